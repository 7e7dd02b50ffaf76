"""Publishes jobs of every kind to a fleet and looks at each record that comes of it.

    records.py confluent|single-object|json

The framing is that of the fleet's results. Of every record: CloudEvents headers, read by CloudEvents' own SDK;
headers and keys as schemas/asyncapi.yaml has them; the value in its framing, and its JSON form against the JSON
Schema. GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL and GUESTKIT_TOPIC_PREFIX say where.
"""

import io
import json
import os
import re
import struct
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone

import fastavro
import yaml
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from jsonschema import Draft202012Validator

from forms import SCHEMAS, avro_schema, from_avro, json_validator

SERVERS = os.environ["GUESTKIT_BOOTSTRAP_SERVERS"]
PREFIX = os.environ["GUESTKIT_TOPIC_PREFIX"]
IMAGE = "debian-12.qcow2"
PATIENCE_SECONDS = 60
# After the last result that was expected: one more would be as wrong as one less.
SETTLE_SECONDS = 2
# Clocks of this program and the worker are the same; only rounding differs.
CLOCK_SLACK = timedelta(seconds=1)
# The fleet is started a moment before, and by hand perhaps some hours.
ADVERTISED_BEFORE = timedelta(days=1)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# Reverse DNS names, as CloudEvents recommends for types.
REVERSE_DNS = re.compile(r"io\.guestkit\.[a-z]+(\.[a-z]+)*\.v[0-9]+")
# By document: the type of its event, the field that is the record key, what the id of its event begins with.
EVENTS = {
    "job_result": ("io.guestkit.job.result.v1", "job_id", "job_id"),
    "job_progress": ("io.guestkit.job.progress.v1", "job_id", "job_id"),
    "worker_advertisement": ("io.guestkit.worker.v1", "worker_id", "incarnation"),
}

ASYNCAPI = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())


class Raw(JSONFormat):
    """The SDK's format, for data that is no JSON."""

    def read_data(self, data, content_type):
        return super().read_data(data, content_type) if content_type == "application/json" else data


def described(name):
    """A schema of the AsyncAPI document, with what it refers to."""
    schema = {**ASYNCAPI["components"]["schemas"][name], "components": ASYNCAPI["components"]}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


# Jobs


def job(operation, data, key=None, **fields):
    document = {
        "version": "1.0",
        "job_id": str(uuid.uuid4()),
        "created_at": datetime.now(timezone.utc).isoformat(),
        "kind": "VMOperation",
        "operation": operation,
        "payload": {"type": f"{operation}.v1", "data": data},
        "observability": {"correlation_id": "contracts"},
        **fields,
    }
    if key:
        document["execution"] = {"idempotency_key": key, **fields.get("execution", {})}
    return document


def all_jobs():
    """Jobs, and how each ends; invalid records; what is no job at all."""
    key = f"contracts-{uuid.uuid4()}"
    failing = {"fail": {"code": "DISK_FULL", "message": "no space", "recoverable": False, "times": 0}}
    jobs = [
        (job("system.echo", {"greeting": "hello", "sleep_ms": 200, "progress_steps": 3}, key), "completed"),
        (job("system.echo", {"greeting": "hello", "sleep_ms": 200, "progress_steps": 3}, key), "completed"),
        (job("system.echo", {"greeting": "other"}, key), "failed"),
        (job("guestkit.inspect", {"image": {"path": IMAGE}}), "completed"),
        (job("guestkit.inspect", {"image": {"path": "missing.qcow2"}}), "failed"),
        (job("system.echo", failing), "failed"),
        (job("acme.paint", {}), "failed"),
    ]
    invalid = job("system.echo", {}, execution={"priority": 99})
    return jobs, [invalid, invalid], b"\xff\xfenothing that anybody wrote"


def publish(jobs, invalid, garbage):
    failures = []
    producer = Producer({"bootstrap.servers": SERVERS, "enable.idempotence": True})

    def send(key, value, headers):
        producer.produce(
            f"{PREFIX}.jobs",
            key=key,
            value=value,
            headers=headers,
            on_delivery=lambda error, _: error and failures.append(error),
        )

    headers = [("content-type", b"application/json"), ("traceparent", TRACE.encode())]
    for document in [document for document, _ in jobs] + invalid:
        # The recommended key: jobs of one idempotency key stay in order.
        key = document.get("execution", {}).get("idempotency_key", document["job_id"])
        send(key, json.dumps(document).encode(), headers)
    send(b"poison", garbage, producers_event())
    if producer.flush(PATIENCE_SECONDS) or failures:
        sys.exit(f"not published: {failures or 'no answer'}")


def producers_event():
    """The headers of a CloudEvent of somebody else."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"theirs-1"),
        ("ce_type", b"com.example.request.v1"),
        ("ce_source", b"/example/producer"),
        ("content-type", b"application/octet-stream"),
    ]


# Reading


def committed(topic, enough, settle=0):
    """All records of a topic, once they are enough, and those of some seconds more."""
    settings = {"bootstrap.servers": SERVERS, "group.id": "unused", "enable.auto.commit": False}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    records, deadline = [], time.monotonic() + PATIENCE_SECONDS
    while len(records) < enough:
        if time.monotonic() > deadline:
            sys.exit(f"{topic}: {len(records)} records after {PATIENCE_SECONDS} s")
        record = consumer.poll(0.5)
        if record is not None and not record.error():
            records.append(record)
    deadline = time.monotonic() + settle
    while time.monotonic() < deadline:
        record = consumer.poll(0.2)
        if record is not None and not record.error():
            records.append(record)
    consumer.close()
    return records


class Decoder:
    """Values in one framing, and nothing but it."""

    def __init__(self, framing):
        self.framing = framing
        if framing == "confluent":
            self.registry = SchemaRegistryClient({"url": os.environ["GUESTKIT_SCHEMA_REGISTRY_URL"]})

    def decode(self, document, value):
        if self.framing == "json":
            return json.loads(value)
        ours = avro_schema(SCHEMAS / f"avro/{document}.avsc")
        if self.framing == "single-object":
            assert value[:10] == ours.header, f"it begins with {value[:10].hex()}"
            return from_avro(document, fastavro.schemaless_reader(io.BytesIO(value[10:]), ours.parsed))
        zero, number = struct.unpack(">BI", value[:5])
        assert zero == 0, f"it begins with {value[:5].hex()}"
        text = self.registry.get_schema(number).schema_str
        assert json.loads(text) == json.loads((SCHEMAS / f"avro/{document}.avsc").read_text())
        return from_avro(document, fastavro.schemaless_reader(io.BytesIO(value[5:]), ours.parsed))


# Checks


class Events:
    """What holds of all events together."""

    def __init__(self, started):
        self.started = started
        self.seen = set()

    def check(self, record, kind, decoder):
        headers = dict(record.headers())
        assert len(headers) == len(record.headers()), "a header stands twice"
        described("eventHeaders").validate({name: value.decode() for name, value in headers.items()})
        type_, key, begin = EVENTS[kind]
        described("workerId" if key == "worker_id" else "jobId").validate(record.key().decode())

        message = binding.KafkaMessage(headers=headers, key=record.key(), value=record.value())
        event = binding.from_binary(message, Raw())
        identity = (event.get_source(), event.get_id())
        assert identity not in self.seen, f"two events have the source and id {identity}"
        self.seen.add(identity)
        assert REVERSE_DNS.fullmatch(event.get_type()), event.get_type()
        assert event.get_type() == type_, event.get_type()
        now = datetime.now(timezone.utc)
        assert self.started - CLOCK_SLACK <= event.get_time() <= now + CLOCK_SLACK, event.get_time()
        wanted = "application/json" if decoder.framing == "json" else "application/avro"
        assert event.get_datacontenttype() == wanted, event.get_datacontenttype()

        document = decoder.decode(kind, record.value())
        if decoder.framing == "json":
            assert event.get_data() == document
        json_validator(kind).validate(document)
        assert record.key().decode() == document[key]
        assert event.get_id().split("/")[0] == str(document[begin])
        return document


def check_results(documents, jobs, invalid):
    statuses = {}
    for document in documents:
        statuses.setdefault(document["job_id"], []).append(document["status"])
    for job, status in jobs:
        assert statuses.pop(job["job_id"]) == [status], f"{job}: {status} was expected"
    # An invalid record that comes twice is two dead letters and one result.
    assert statuses == {invalid[0]["job_id"]: ["failed"]}, statuses
    by_id = {document["job_id"]: document for document in documents}
    first, repeated, conflict, inspected = (by_id[job["job_id"]] for job, _ in jobs[:4])
    assert first.get("duplicate_of") is None and first["data"]["greeting"] == "hello", first
    assert (repeated["duplicate_of"], repeated["original"]["job_id"]) == (first["job_id"],) * 2, repeated
    assert conflict["error"]["code"] == "IDEMPOTENCY_CONFLICT", conflict
    json_validator("guestkit_inspect").validate(inspected["data"])
    trace = TRACE.split("-")[1]
    assert all(by_id[job["job_id"]]["observability"]["trace_id"] == trace for job, _ in jobs)


def check_dead_letters(letters, invalid, garbage):
    validator = described("deadLetterHeaders")
    for letter in letters:
        validator.validate({name: value.decode(errors="replace") for name, value in letter.headers()})
        assert dict(letter.headers())["guestkit_source_topic"].decode() == f"{PREFIX}.jobs"
    values = sorted(letter.value() for letter in letters)
    assert values == sorted([garbage] + [json.dumps(document).encode() for document in invalid])
    # The producer's bytes, key and headers stay, so that his own event can still be read.
    letter = next(letter for letter in letters if letter.value() == garbage)
    assert letter.key() == b"poison"
    assert letter.headers()[: len(producers_event())] == producers_event()
    message = binding.KafkaMessage(headers=dict(letter.headers()), key=letter.key(), value=letter.value())
    event = binding.from_binary(message, Raw())
    assert (event.get_source(), event.get_id()) == ("/example/producer", "theirs-1")


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in ("confluent", "single-object", "json"):
        sys.exit(__doc__)
    decoder = Decoder(sys.argv[1])
    started = datetime.now(timezone.utc)
    jobs, invalid, garbage = all_jobs()
    publish(jobs, invalid, garbage)

    results = committed(f"{PREFIX}.results", len(jobs) + 1, SETTLE_SECONDS)
    letters = committed(f"{PREFIX}.dead-letters", len(invalid) + 1)
    progress = committed(f"{PREFIX}.progress", 1, SETTLE_SECONDS)

    workers = committed(f"{PREFIX}.workers", 1)

    events = Events(started)
    check_results([events.check(record, "job_result", decoder) for record in results], jobs, invalid)
    for record in progress:
        events.check(record, "job_progress", decoder)
    for record in workers:
        # It advertised itself before this program started.
        Events(started - ADVERTISED_BEFORE).check(record, "worker_advertisement", decoder)
    check_dead_letters(letters, invalid, garbage)
    print(f"{len(results)} results, {len(progress)} progress events, {len(letters)} dead letters, {len(workers)} advertisements")


if __name__ == "__main__":
    main()
