"""Publishes a job; its trace begins here. Prints job id and trace id.

    python producer.py BOOTSTRAP PREFIX IMAGE
"""

import json
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, format_trace_id

import telemetry


def main(bootstrap, prefix, image):
    tracer, finish = telemetry.start("my-portal")
    topic = f"{prefix}.jobs"
    job_id = f"portal-{uuid.uuid4().hex}"
    job = {
        "version": "1.0",
        "job_id": job_id,
        "created_at": datetime.now(timezone.utc).isoformat(),
        "kind": "VMOperation",
        "operation": "guestkit.inspect",
        "payload": {"type": "guestkit.inspect.v1", "data": {"image": {"path": image}}},
    }
    with tracer.start_as_current_span("upload"):
        with tracer.start_as_current_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER,
            attributes=telemetry.messaging("send", "send", topic)
            | {"messaging.message.id": job_id},
        ) as span:
            # The header `traceparent`: all that the worker needs.
            carrier = {}
            propagate.inject(carrier)
            headers = [(name, value.encode()) for name, value in carrier.items()]
            producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
            producer.produce(topic, json.dumps(job), key=job_id, headers=headers)
            if producer.flush(30):
                raise SystemExit("the job was not delivered")
            print(job_id, format_trace_id(span.get_span_context().trace_id))
    finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
