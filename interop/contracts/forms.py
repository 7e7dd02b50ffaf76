"""The two forms of a document, and the schemas of both."""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import fastavro
from jsonschema import Draft202012Validator

SCHEMAS = Path(os.environ.get("GUESTKIT_SCHEMAS_ROOT", Path(__file__).resolve().parents[2] / "schemas"))

# Fields that hold JSON text in Avro and the value itself in JSON, by document.
JSON_TEXT = {
    "job_envelope": {("payload", "data")},
    "job_result": {("data",)},
    "job_outcome": {("result", "data")},
}


@dataclass(frozen=True)
class AvroSchema:
    """A schema, and what single-object encoding begins with."""

    parsed: dict
    header: bytes


def avro_schema(path):
    schema = json.loads(Path(path).read_text())
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    return AvroSchema(fastavro.parse_schema(schema), b"\xc3\x01" + fingerprint)


def json_validator(document):
    schema = json.loads((SCHEMAS / f"json/{document}.schema.json").read_text())
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def from_avro(document, value):
    """The JSON form of a decoded record."""
    return _json(value, JSON_TEXT.get(document, set()), ())


def _json(value, texts, path):
    if path in texts and isinstance(value, str):
        return json.loads(value)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_json(item, texts, path) for item in value]
    if isinstance(value, dict):
        form = {name: _json(item, texts, path + (name,)) for name, item in value.items() if name != "extensions"}
        # What the writer knew beyond the schema stands at its own place in JSON.
        form.update({name: json.loads(text) for name, text in value.get("extensions", {}).items()})
        if "schema_uri" in form:
            form["$schema"] = form.pop("schema_uri")
        return form
    return value
