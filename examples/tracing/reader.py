"""Waits for the result of a job and goes on with its trace. Prints the result.

    python reader.py BOOTSTRAP PREFIX JOB_ID

The workers of this example write results as JSON (--result-format json).
"""

import json
import sys
import time

from confluent_kafka import Consumer
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, SpanKind

import telemetry


def find(bootstrap, topic, job_id):
    """The record of the job's result."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-of-{job_id}",
            # Only what is committed is a result.
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            record = consumer.poll(0.5)
            if record and not record.error() and record.key() == job_id.encode():
                return record
    finally:
        consumer.close()
    raise SystemExit(f"no result of {job_id} within a minute")


def main(bootstrap, prefix, job_id):
    tracer, finish = telemetry.start("my-inventory")
    topic = f"{prefix}.results"
    record = find(bootstrap, topic, job_id)
    headers = {name: value.decode() for name, value in record.headers() or []}
    context = propagate.extract(headers)
    sender = trace.get_current_span(context).get_span_context()
    with tracer.start_as_current_span(
        f"process {topic}",
        context=context,
        kind=SpanKind.CONSUMER,
        links=[Link(sender)],
        attributes=telemetry.messaging("process", "process", topic)
        | {"messaging.message.id": job_id},
    ):
        result = json.loads(record.value())
        with tracer.start_as_current_span("store"):
            print(json.dumps(result))
    finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
