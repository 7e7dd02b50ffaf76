#!/usr/bin/env python3
"""Asks the official validators about bills of materials.

    pip install 'cyclonedx-python-lib[json-validation]' spdx-tools
    validate.py DIR...      each with bom.cdx.json and bom.spdx.json (examples/sbom.rs)
"""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def main():
    wrong = 0
    for folder in map(Path, sys.argv[1:]):
        text = (folder / "bom.cdx.json").read_text()
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        print(f"{folder}: CycloneDX 1.6: {'valid' if error is None else str(error)[:500]}")
        wrong += error is not None
        document = parse_file(str(folder / "bom.spdx.json"))
        messages = validate_full_spdx_document(document, "SPDX-2.3")
        print(f"{folder}: SPDX 2.3: {len(document.packages)} packages, {len(messages)} complaints")
        for message in messages[:5]:
            print(f"  {message.validation_message}")
        wrong += len(messages)
    sys.exit(wrong > 0 or len(sys.argv) < 2)


main()
