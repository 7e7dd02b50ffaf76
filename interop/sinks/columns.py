"""Checks that every column that examples/sinks/ksqldb/results.sql names is a field of the results' schema.

ksqlDB itself can't be had from the registries that this project uses. Keywords are written in capitals there and
names in small letters, which is what tells them apart here.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SELECT = re.compile(r"\bSELECT\b(?P<columns>.*?)\bFROM\b(?P<rest>[^;]*)", re.S)
NAME = re.compile(r"(?<!\bAS )(?<![\w'$.])[a-z_]+(?:->[a-z_]+)*(?![\w(])")
TEXT = re.compile(r"'[^']*'")


def fields(schema):
    """Fields of a record, also of a nullable one."""
    if isinstance(schema, list):
        schema = next(branch for branch in schema if branch != "null")
    return {field["name"]: field["type"] for field in schema["fields"]} if isinstance(schema, dict) else {}


def is_field(path, schema):
    for name in path.split("->"):
        known = fields(schema)
        if name not in known:
            return False
        schema = known[name]
    return True


def main():
    schema = json.loads((ROOT / "schemas/avro/job_result.avsc").read_text())
    text = re.sub(r"--.*", "", (ROOT / "examples/sinks/ksqldb/results.sql").read_text())
    names = set()
    for select in SELECT.finditer(text):
        grouped = re.findall(r"GROUP BY (\w+)", select["rest"])
        names.update(NAME.findall(TEXT.sub("''", select["columns"])), grouped)
    unknown = sorted(name for name in names if not is_field(name, schema))
    if unknown or len(names) < 4:
        sys.exit(f"no fields of JobResult: {unknown}; found {sorted(names)}")
    print("fields of JobResult:", ", ".join(sorted(names)))


if __name__ == "__main__":
    main()
