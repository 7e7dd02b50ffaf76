"""The whole way, with a real collector: producer, worker, reader; then what the collector gave on is judged.

`./dev trace` runs this; it needs a Kafka, the programs and an image.

    python check.py BOOTSTRAP FOLDER_OF_PROGRAMS IMAGE
"""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import rotel
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

HERE = Path(__file__).parent
# Topics of this run alone: the broker may be somebody's.
PREFIX = f"traced-{os.getpid()}"
# Sections of an inspection that every guest has.
SECTIONS = {"open", "layers", "os", "packages"}


class Sink(ThreadingHTTPServer):
    """Where the collector sends what it collected."""

    def __init__(self):
        self.spans = []
        super().__init__(("127.0.0.1", 0), Request)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Request(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes(resource.resource)["service.name"]
            for scope in resource.scope_spans:
                self.server.spans.extend((service, span) for span in scope.spans)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(holder):
    return {
        pair.key: pair.value.string_value or pair.value.int_value
        for pair in holder.attributes
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, limit, holds):
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {limit} s")
        time.sleep(0.1)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def collector(sink, log):
    """A collector in its own process; its address."""
    port, grpc = free_port(), free_port()
    agent = Path(rotel.__file__).parent / "rotel-agent"
    process = subprocess.Popen(
        [
            agent,
            "start",
            *("--otlp-http-endpoint", f"127.0.0.1:{port}"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
            *("--exporter", "otlp"),
            *("--otlp-exporter-endpoint", f"http://127.0.0.1:{sink.server_port}"),
            *("--otlp-exporter-protocol", "http"),
            *("--batch-timeout", "200ms"),
        ],
        stdout=log,
        stderr=log,
    )
    wait_for("the collector listens", 20, lambda: answers(port))
    return process, f"http://127.0.0.1:{port}"


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def judge(spans, trace_id):
    """The names of the trace's spans as a tree; raises where something is missing."""
    ours = {s.span_id: (service, s) for service, s in spans if s.trace_id.hex() == trace_id}

    def one(service, name):
        found = [s for who, s in ours.values() if (who, s.name) == (service, name)]
        assert len(found) == 1, f"{len(found)} spans {name} of {service}"
        return found[0]

    upload = one("my-portal", "upload")
    send = one("my-portal", f"send {PREFIX}.jobs")
    process = one("guestkit-worker", f"process {PREFIX}.jobs")
    reader = one("my-inventory", f"process {PREFIX}.results")
    store = one("my-inventory", "store")
    assert send.parent_span_id == upload.span_id
    assert process.parent_span_id == send.span_id
    assert [link.span_id for link in process.links] == [send.span_id]
    assert reader.parent_span_id == process.span_id
    assert [link.span_id for link in reader.links] == [process.span_id]
    assert store.parent_span_id == reader.span_id
    for name in ["queue", "attempt", f"commit {PREFIX}.jobs"]:
        child = one("guestkit-worker", name)
        assert child.parent_span_id == process.span_id, name
        assert child.start_time_unix_nano >= process.start_time_unix_nano, name
        assert child.end_time_unix_nano <= process.end_time_unix_nano, name
    attempt = one("guestkit-worker", "attempt")
    sections = {s.name for _, s in ours.values() if s.parent_span_id == attempt.span_id}
    assert SECTIONS <= sections, f"sections {sorted(sections)}"
    said = attributes(process)
    assert said["guestkit.status"] == "completed", said
    assert said["messaging.consumer.group.name"] == "guestkit-workers", said

    children = {}
    for service, span in ours.values():
        children.setdefault(span.parent_span_id, []).append((service, span))

    def draw(parent, depth):
        for service, span in sorted(
            children.get(parent, []), key=lambda pair: pair[1].start_time_unix_nano
        ):
            ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
            print(f"{'  ' * depth}{span.name}  [{service}] {ms:.1f} ms")
            yield span.span_id
            yield from draw(span.span_id, depth + 1)

    drawn = set(draw(b"", 0))
    assert drawn == set(ours), "spans that hang nowhere"


def main(bootstrap, programs, image):
    programs, image = Path(programs), Path(image)
    jobs = [
        programs / "guestkit-jobs",
        *("--bootstrap-servers", bootstrap),
        *("--topic-prefix", PREFIX),
    ]
    sink = Sink()
    started = []
    with tempfile.TemporaryFile() as log:
        try:
            agent, endpoint = collector(sink, log)
            started.append(agent)
            environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            run(*jobs, "topics", "create", "--partitions", "2")
            worker = subprocess.Popen(
                [
                    programs / "guestkit-worker",
                    "run",
                    *("--bootstrap-servers", bootstrap),
                    *("--topic-prefix", PREFIX),
                    *("--disk-root", image.parent),
                    *("--result-format", "json"),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
            started.append(worker)
            python = (sys.executable, "-u")
            words = run(
                *python, HERE / "producer.py", bootstrap, PREFIX, image.name, env=environment
            )
            job_id, trace_id = words.split()
            result = json.loads(
                run(*python, HERE / "reader.py", bootstrap, PREFIX, job_id, env=environment)
            )
            assert result["status"] == "completed", result.get("error")
            # The documents say the same as the headers.
            assert result["observability"]["trace_id"] == trace_id, result["observability"]

            # The command line begins traces too, or goes on with a script's.
            of_script = "0af7651916cd43dd8448eb211c80319c"
            run(
                *jobs,
                *("inspect", image.name, "--wait", "--timeout", "60s"),
                env=environment | {"TRACEPARENT": f"00-{of_script}-b7ad6b7169203331-01"},
            )
            # Leaving sends what is left.
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
            wanted = {
                trace_id: {"upload", "store", f"commit {PREFIX}.jobs", f"process {PREFIX}.results"},
                of_script: {f"send {PREFIX}.jobs", f"process {PREFIX}.jobs", f"commit {PREFIX}.jobs"},
            }

            def collected(trace):
                return {s.name for _, s in sink.spans if s.trace_id.hex() == trace}

            wait_for(
                "the collector gives on all spans",
                20,
                lambda: all(names <= collected(trace) for trace, names in wanted.items()),
            )
            judge(sink.spans, trace_id)
            send = [s for _, s in sink.spans if s.name == f"send {PREFIX}.jobs" and s.trace_id.hex() == of_script]
            assert len(send) == 1 and send[0].parent_span_id.hex() == "b7ad6b7169203331"
            print(f"one trace, {len(sink.spans)} spans collected in all")
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-8000:])
            raise
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
