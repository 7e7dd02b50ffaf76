"""`./dev operations record`: a real run under the simulated autoscaler: real Kafka, workers as pods, the chart's settings.

record.py BOOTSTRAP WORKER JOBS OUTPUT      programs guestkit-worker and guestkit-jobs; half an hour

The autoscaler's decisions are carried out: a pod is a worker process, taken away by SIGTERM with the drain time of
the chart.
"""

import datetime
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "check"))
import chart
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from keda import Autoscaler
from settings import Settings

PREFIX = "autoscaler-run"
GROUP = "autoscaler-run-workers"
# A burst that asks for every pod, then a trickle that keeps jobs running while pods are taken away.
BURST_AT, BURST = 20, 240
TRICKLE_UNTIL, TRICKLE_EVERY = 1260, 10
# One job in eight lands on a wrong partition, as with any other client, and is forwarded.
MISROUTED = 8
LIMIT = 2400
SEED = 7


def murmur2(data):
    """As in Kafka's Java client."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def plan(partitions):
    """Second, slot, duration and id of each job."""
    random_ = random.Random(SEED)
    times = [BURST_AT] * BURST + list(range(BURST_AT + 60, TRICKLE_UNTIL, TRICKLE_EVERY))
    for number, at in enumerate(times):
        job = f"scale-job-{number:04}"
        yield {
            "at": at,
            "id": job,
            "slot": murmur2(job.encode()) % partitions,
            "ms": random_.randrange(10_000, 40_000, 1000),
            "misrouted": number % MISROUTED == 0,
        }


class Pods:
    """Worker processes."""

    def __init__(self, worker, bootstrap, settings, folder):
        self.worker, self.bootstrap, self.settings, self.folder = worker, bootstrap, settings, folder
        self.live, self.draining, self.number = [], [], 0
        self.ready_after, self.drained_after, self.killed = [], [], 0

    def want(self, count, now):
        while len(self.live) < count:
            self.number += 1
            port = 18600 + self.number
            log = open(self.folder / f"worker-{self.number}.log", "w")
            arguments = [
                "run",
                "--bootstrap-servers",
                self.bootstrap,
                "--topic-prefix",
                PREFIX,
                "--group-id",
                GROUP,
                "--concurrency",
                str(self.settings.concurrency),
                "--drain-timeout",
                f"{self.settings.drain}s",
                "--http-listen",
                f"127.0.0.1:{port}",
                "--result-format",
                "json",
            ]
            process = subprocess.Popen([self.worker, *arguments], stderr=log, stdout=log)
            self.live.append({"process": process, "port": port, "from": now, "ready": False})
        # As a ReplicaSet does: who is not ready first, then who came last.
        for _ in range(len(self.live) - count):
            pod = max(self.live, key=lambda p: (not p["ready"], p["from"]))
            self.live.remove(pod)
            pod["process"].send_signal(signal.SIGTERM)
            pod["gone"] = now
            self.draining.append(pod)

    def look(self, now):
        for pod in self.live:
            if not pod["ready"] and _status(pod["port"], "readyz"):
                pod["ready"] = True
                self.ready_after.append(now - pod["from"])
            assert pod["process"].poll() is None, f"a worker died: {pod}"
        for pod in list(self.draining):
            if pod["process"].poll() is not None:
                self.draining.remove(pod)
                self.drained_after.append(now - pod["gone"])
            elif now - pod["gone"] > self.settings.grace:
                pod["process"].kill()
                self.killed += 1


def _status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=1) as answer:
            return answer.read()
    except OSError:
        return None


def main():
    bootstrap, worker, jobs, output = sys.argv[1:]
    settings = Settings.of([r for _, _, r in chart.documents({})], "guestkit-worker")
    folder = pathlib.Path(output).with_suffix(".logs")
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "GUESTKIT_BOOTSTRAP_SERVERS": bootstrap}
    subprocess.run(
        [jobs, "topics", "create", "--topic-prefix", PREFIX, "--partitions", str(settings.partitions)],
        env=environment,
        check=True,
    )
    topic = f"{PREFIX}.jobs"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    planned = list(plan(settings.partitions))
    waiting = list(planned)
    pods = Pods(worker, bootstrap, settings, folder)
    scaler = Autoscaler(settings)
    replicas, rows, events, lags = 0, [], [], [0] * settings.partitions
    start = time.monotonic()
    for now in range(LIMIT):
        time.sleep(max(0, start + now - time.monotonic()))
        while waiting and waiting[0]["at"] <= now:
            job = waiting.pop(0)
            created = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
            document = {
                "version": "1.0",
                "job_id": job["id"],
                "created_at": created,
                "kind": "VMOperation",
                "operation": "system.echo",
                "payload": {"type": "system.echo.v1", "data": {"sleep_ms": job["ms"]}},
                "execution": {"idempotency_key": job["id"]},
            }
            partition = (job["slot"] + 1) % settings.partitions if job["misrouted"] else job["slot"]
            producer.produce(topic, json.dumps(document).encode(), partition=partition)
        producer.flush(5)
        try:
            lags = lag(admin, topic, settings.partitions)
        except KafkaException as error:
            # A leader that moves: the last answer stands for a second.
            print(now, error, flush=True)
        wanted = scaler.step(now, lags, replicas)
        if wanted != replicas:
            events.append([now, replicas, wanted])
            print(now, "lag", sum(lags), "pods", replicas, "->", wanted, flush=True)
        replicas = wanted
        pods.want(replicas, now)
        pods.look(now)
        rows.append([sum(lags), replicas, sum(p["ready"] for p in pods.live), len(pods.draining)])
        if not waiting and replicas == 0 and not pods.draining and now > TRICKLE_UNTIL:
            break
    results = read(bootstrap, f"{PREFIX}.results")
    record = {
        "settings": {name: getattr(settings, name) for name in settings.__dataclass_fields__},
        "jobs": [[j["at"], j["slot"], j["ms"]] for j in planned],
        "columns": ["lag", "wanted", "ready", "draining"],
        "seconds": rows,
        "events": events,
        "ready_after": pods.ready_after,
        "drained_after": pods.drained_after,
        "killed": pods.killed,
        "results": {
            "jobs": len(planned),
            "results": len(results),
            "different": len({r["job_id"] for r in results}),
            "completed": sum(r["status"] == "completed" for r in results),
        },
        "last_lags": lags,
    }
    # One line a part.
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in record.items())
    pathlib.Path(output).write_text("{\n" + lines + "\n}\n")
    print(
        json.dumps({k: record[k] for k in ("events", "ready_after", "drained_after", "killed", "results", "last_lags")})
    )


def lag(admin, topic, partitions):
    """As KEDA counts: end of the log less the committed offset, or all of it where none is committed."""
    names = [TopicPartition(topic, p) for p in range(partitions)]
    ends = admin.list_offsets({tp: OffsetSpec.latest() for tp in names}, request_timeout=10)
    ends = {tp.partition: future.result().offset for tp, future in ends.items()}
    answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, names)], request_timeout=10)
    committed = {tp.partition: tp.offset for tp in next(iter(answer.values())).result().topic_partitions}
    return [ends[p] - max(committed.get(p, -1), 0) for p in range(partitions)]


def read(bootstrap, topic):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "autoscaler-run-reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    found, quiet = [], time.monotonic()
    while time.monotonic() - quiet < 15:
        message = consumer.poll(1)
        if message is not None and not message.error():
            found.append(json.loads(message.value()))
            quiet = time.monotonic()
    consumer.close()
    return found


if __name__ == "__main__":
    main()
