#!/usr/bin/env python3
"""Asks the official validators about the bills of materials of guests.

    pip install -r requirements.txt
    validate.py GUESTKIT_INSPECT IMAGE...        (./dev sbom does both)

Each image is asked twice for each format: the bytes must not differ.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

# Longest time of one inspection, in seconds; a guest takes a fraction of one.
LIMIT = 60
# Complaints that are shown of one document.
SHOWN = 5


def render(command, image, form):
    """The document's bytes, and what is wrong with how they came about."""
    runs = []
    for _ in range(2):
        ran = subprocess.run([command, "--output", form, image], capture_output=True, timeout=LIMIT)
        if ran.returncode:
            sys.exit(ran.stderr.decode())
        runs.append(ran.stdout)
    return runs[0], [] if runs[0] == runs[1] else ["two runs differ"]


def urls_of(document):
    for component in document["components"]:
        if "purl" in component:
            yield component["purl"]


def cyclonedx(data):
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    complaints = [] if error is None else [str(error)]
    urls = list(urls_of(json.loads(data)))
    for url in urls:
        # Reading a URL and writing it again is what puts it into the canonical form.
        if PackageURL.from_string(url).to_string() != url:
            complaints.append(f"no canonical package URL: {url}")
    return len(urls), complaints


def spdx(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bom.spdx.json"
        path.write_bytes(data)
        document = parse_file(str(path))
    messages = validate_full_spdx_document(document, "SPDX-2.3")
    urls = [
        reference
        for package in document.packages
        for reference in package.external_references
        if reference.reference_type == "purl"
    ]
    return len(urls), [message.validation_message for message in messages]


def without_system(folder):
    """A disk with a partition in which nothing is: its bill of materials is empty, and valid."""
    table = bytes(446) + bytes([0, 0, 2, 0, 0x83, 0, 2, 0]) + struct.pack("<II", 1, 100)
    path = Path(folder) / "without-a-system.raw"
    path.write_bytes((table + bytes(48) + b"\x55\xaa").ljust(1 << 16, b"\0"))
    return str(path)


def main():
    with tempfile.TemporaryDirectory() as folder:
        validate(folder)


def validate(folder):
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    command, images = sys.argv[1], sys.argv[2:] + [without_system(folder)]
    wrong = 0
    for image in images:
        counts = set()
        for form, check in (("cyclonedx", cyclonedx), ("spdx", spdx)):
            data, complaints = render(command, image, form)
            count, more = check(data)
            complaints += more
            counts.add(count)
            print(f"{Path(image).name} {form}: {count} packages, {len(complaints)} complaints")
            for complaint in complaints[:SHOWN]:
                print(f"  {complaint[:500]}")
            wrong += len(complaints)
        if len(counts) != 1:
            print("  the two forms have different packages")
            wrong += 1
    sys.exit(wrong > 0)


main()
