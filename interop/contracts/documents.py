"""Holds the files in schemas/ against each other, with other libraries than the product's.

    documents.py

JSON Schemas are valid 2020-12 without a name twice in an object; examples and released documents keep to them;
Avro schemas are valid, and each version reads what every other wrote (FULL_TRANSITIVE) in a library of another
language.
"""

import io
import json
import sys
from pathlib import Path

import fastavro
from jsonschema import Draft202012Validator

from forms import SCHEMAS, avro_schema, from_avro, json_validator

FIXTURES = SCHEMAS.parent / "protocol/tests/fixtures"
DOCUMENTS = sorted(path.stem for path in (SCHEMAS / "avro").glob("*.avsc"))


def once(pairs):
    names = [name for name, _ in pairs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"names that stand twice in one object: {sorted(twice)}")
    return dict(pairs)


def json_schemas():
    for path in sorted((SCHEMAS / "json").glob("*.json")):
        schema = json.loads(path.read_text(), object_pairs_hook=once)
        Draft202012Validator.check_schema(schema)
        yield path.name


def examples():
    validator = json_validator("job_envelope")
    for path in sorted((SCHEMAS / "examples").glob("*.json")):
        validator.validate(json.loads(path.read_text(), object_pairs_hook=once))
        yield path.name


def document_of(fixture):
    return max((name for name in DOCUMENTS if fixture.startswith(name)), key=len)


def released_documents():
    """What was written once, in both forms, read by every version of its schema and written again."""
    for path in sorted(FIXTURES.glob("v*/*.json")):
        document = document_of(path.stem)
        validator = json_validator(document)
        written = json.loads(path.read_text(), object_pairs_hook=once)
        validator.validate(written)
        record = path.with_suffix(".avro").read_bytes()
        versions = [SCHEMAS / "avro", *sorted((SCHEMAS / "released").iterdir())]
        schemas = [avro_schema(folder / f"{document}.avsc") for folder in versions]
        writers = [schema for schema in schemas if schema.header == record[:10]]
        if not writers:
            raise ValueError(f"{path.name}: no version has the fingerprint {record[2:10].hex()}")
        for reader in schemas:
            value = fastavro.schemaless_reader(io.BytesIO(record[10:]), writers[0].parsed, reader.parsed)
            validator.validate(from_avro(document, value))
            for other in schemas:
                out = io.BytesIO()
                fastavro.schemaless_writer(out, reader.parsed, value)
                out.seek(0)
                if fastavro.schemaless_reader(out, reader.parsed, other.parsed) != value:
                    raise ValueError(f"{path.name}: versions of {document} read one record differently")
        yield path.name


def main():
    for what in (json_schemas, examples, released_documents):
        names = list(what())
        if not names:
            sys.exit(f"{what.__name__}: nothing was found")
        print(f"{what.__name__.replace('_', ' ')}: {len(names)}")


if __name__ == "__main__":
    main()
