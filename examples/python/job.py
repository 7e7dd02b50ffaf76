"""Publishes an inspection job and prints its result as JSON.

    job.py confluent|single-object|json IMAGE

The framing is that of the job and of the result. GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL
and GUESTKIT_TOPIC_PREFIX say where.
"""

import io
import json
import os
import sys
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

SERVERS = os.environ.get("GUESTKIT_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
REGISTRY = os.environ.get("GUESTKIT_SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081/apis/ccompat/v7")
PREFIX = os.environ.get("GUESTKIT_TOPIC_PREFIX", "vm-operations")
JOBS, RESULTS = f"{PREFIX}.jobs", f"{PREFIX}.results"
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas/avro"
PATIENCE_SECONDS = 60


class Json:
    """The document as it is."""

    content_type = "application/json"

    def encode(self, job):
        text = {**job, "created_at": job["created_at"].isoformat()}
        text["payload"] = {**job["payload"], "data": json.loads(job["payload"]["data"])}
        return json.dumps(text).encode()

    def decode(self, value):
        return json.loads(value)


class SingleObject:
    """C3 01, the schema's fingerprint, the record: no registry."""

    content_type = "application/avro"

    def __init__(self):
        self.job, self.job_header = self.schema("job_envelope.avsc")
        self.result, self.result_header = self.schema("job_result.avsc")

    @staticmethod
    def schema(file):
        schema = json.loads((SCHEMAS / file).read_text())
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        return fastavro.parse_schema(schema), b"\xc3\x01" + bytes.fromhex(fingerprint)

    def encode(self, job):
        out = io.BytesIO(self.job_header)
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(out, self.job, job)
        return out.getvalue()

    def decode(self, value):
        if not value.startswith(self.result_header):
            raise ValueError(f"another framing or schema: {value[:10].hex()}")
        result = fastavro.schemaless_reader(io.BytesIO(value[10:]), self.result)
        return {**result, "data": json.loads(result["data"] or "null")}


class Confluent:
    """00, the registry's id of the schema, the record. The schemas come from the registry."""

    content_type = "application/avro"

    def __init__(self):
        registry = SchemaRegistryClient({"url": REGISTRY})
        # Schemas are registered by `guestkit-jobs schemas register`, never by a producer.
        settings = {"auto.register.schemas": False, "use.latest.version": True}
        self.serialize = AvroSerializer(registry, conf=settings)
        self.deserialize = AvroDeserializer(registry)

    def encode(self, job):
        return self.serialize(job, SerializationContext(JOBS, MessageField.VALUE))

    def decode(self, value):
        result = self.deserialize(value, SerializationContext(RESULTS, MessageField.VALUE))
        return {**result, "data": json.loads(result["data"] or "null")}


FRAMINGS = {"confluent": Confluent, "single-object": SingleObject, "json": Json}


def inspect_job(image):
    return {
        "version": "1.0",
        "job_id": str(uuid.uuid4()),
        "created_at": datetime.now(timezone.utc),
        "kind": "VMOperation",
        "operation": "guestkit.inspect",
        # With "execution": {"idempotency_key": …} all jobs of that key and payload are one piece of work.
        "payload": {"type": "guestkit.inspect.v1", "data": json.dumps({"image": {"path": image}})},
    }


def at_the_end_of_results():
    """A consumer that sees what is committed from now on; it needs no group."""
    consumer = Consumer(
        {
            "bootstrap.servers": SERVERS,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    partitions = consumer.list_topics(RESULTS, timeout=10).topics[RESULTS].partitions
    ends = []
    for partition in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(RESULTS, partition), timeout=10)
        ends.append(TopicPartition(RESULTS, partition, end))
    consumer.assign(ends)
    return consumer


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in FRAMINGS:
        sys.exit(__doc__)
    framing = FRAMINGS[sys.argv[1]]()
    job = inspect_job(sys.argv[2])
    consumer = at_the_end_of_results()

    failures = []
    producer = Producer({"bootstrap.servers": SERVERS, "enable.idempotence": True})
    producer.produce(
        JOBS,
        key=job["job_id"],
        value=framing.encode(job),
        headers={"content-type": framing.content_type},
        on_delivery=lambda error, _: error and failures.append(error),
    )
    if producer.flush(PATIENCE_SECONDS) or failures:
        sys.exit(f"not published: {failures or 'no answer'}")

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            sys.exit(f"not read: {record.error()}")
        if record.key() == job["job_id"].encode():
            result = framing.decode(record.value())
            shown = {name: result.get(name) for name in ("job_id", "status", "error", "data")}
            print(json.dumps(shown))
            consumer.close()
            sys.exit(0 if result["status"] == "completed" else 1)
    sys.exit(f"no result of {job['job_id']} within {PATIENCE_SECONDS} s")


if __name__ == "__main__":
    main()
