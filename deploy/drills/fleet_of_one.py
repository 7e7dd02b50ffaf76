"""A prefix on a real Kafka with one worker, and what operators do to it."""

import datetime
import json
import os
import pathlib
import random
import subprocess
import time
import urllib.request

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

PARTITIONS = 12
# Longest waits: for a worker to have all its partitions, for results, for a drain, for a deleted topic to be gone.
READY_SECONDS, RESULTS_SECONDS, STOP_SECONDS, TOPIC_SECONDS = 90, 60, 60, 30


class Fleet:
    """Topics of a prefix of its own, and the programs."""

    def __init__(self, bootstrap, worker, jobs, logs):
        self.bootstrap, self.worker, self.jobs, self.logs = bootstrap, worker, jobs, logs
        self.prefix = f"drill-{random.randrange(16**8):08x}"
        self.group = f"{self.prefix}-workers"
        self.port = 18990
        self.process = None
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
        self.create_topics()

    def create_topics(self):
        """What a person does, too."""
        command = [self.jobs, "topics", "create", "--partitions", str(PARTITIONS), "--topic-prefix", self.prefix]
        subprocess.run(
            [*command, "--bootstrap-servers", self.bootstrap], check=True, stdout=subprocess.DEVNULL, env=_clean()
        )

    def start(self):
        """One worker; returns its partitions when each is restored or stopped."""
        arguments = ["run", "--bootstrap-servers", self.bootstrap, "--topic-prefix", self.prefix]
        arguments += ["--group-id", self.group, "--http-listen", f"127.0.0.1:{self.port}", "--result-format", "json"]
        with open(pathlib.Path(self.logs, f"{self.prefix}.log"), "a") as log:
            self.process = subprocess.Popen([self.worker, *arguments], stdout=log, stderr=log, env=_clean())
        return _until(READY_SECONDS, "the worker has all partitions", self._settled)

    def _settled(self):
        assert self.process.poll() is None, f"the worker ended with {self.process.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=2) as answer:
                partitions = json.load(answer)["partitions"]
        except OSError:
            return None
        settled = len(partitions) == PARTITIONS and all(p["state"] in ("running", "stopped") for p in partitions)
        return partitions if settled else None

    def stop(self):
        """Drained, as by Kubernetes."""
        if self.process is not None:
            process, self.process = self.process, None
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0, "the worker did not drain"

    def publish(self, jobs):
        """Jobs by id, with their idempotency keys; anywhere, as any client does."""
        for job, key in jobs.items():
            created = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
            document = {
                "version": "1.0",
                "job_id": job,
                "created_at": created,
                "kind": "VMOperation",
                "operation": "system.echo",
                "payload": {"type": "system.echo.v1", "data": {"key": key}},
                "execution": {"idempotency_key": key},
            }
            self.producer.produce(f"{self.prefix}.jobs", json.dumps(document).encode())
        assert self.producer.flush(RESULTS_SECONDS) == 0, "not everything was published"

    def results(self, count):
        """All results, when there are at least so many and for some seconds no more; one for each job."""
        found = []

        def enough():
            found[:] = self._read_results()
            return len(found) >= count or None

        _until(RESULTS_SECONDS, f"{count} results", enough)
        # What should not come has time to.
        time.sleep(5)
        found = self._read_results()
        ids = [result["job_id"] for result in found]
        assert len(ids) == len(set(ids)) == count, f"{len(ids)} results of {len(set(ids))} jobs, not {count}"
        return {result["job_id"]: result for result in found}

    def _read_results(self):
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.prefix}-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        topic = f"{self.prefix}.results"
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        found, ended, deadline = [], set(), time.monotonic() + RESULTS_SECONDS
        while len(ended) < PARTITIONS and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error():
                ended.add(message.partition())
            else:
                found.append(json.loads(message.value()))
        consumer.close()
        return found

    def offsets(self, which):
        """First or next offsets of the jobs topic, by partition."""
        wanted = {tp: which for tp in self._jobs()}
        return {tp.partition: f.result().offset for tp, f in self.admin.list_offsets(wanted).items()}

    def reset_offsets_to_start(self):
        """kafka-consumer-groups.sh --reset-offsets --to-earliest"""
        earliest = self.offsets(OffsetSpec.earliest())
        wanted = [TopicPartition(f"{self.prefix}.jobs", p, offset) for p, offset in earliest.items()]
        answer = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self.group, wanted)])
        next(iter(answer.values())).result()

    def forget_offsets(self):
        """As the broker does with a group that was idle for too long."""
        for future in self.admin.delete_consumer_groups([self.group]).values():
            future.result()

    def delete_jobs(self):
        """As retention does."""
        latest = self.offsets(OffsetSpec.latest())
        wanted = [TopicPartition(f"{self.prefix}.jobs", p, offset) for p, offset in latest.items()]
        for future in self.admin.delete_records(wanted).values():
            future.result()

    def lose_ledger(self):
        name = f"{self.prefix}.ledger"
        for future in self.admin.delete_topics([name]).values():
            future.result()
        _until(TOPIC_SECONDS, "the ledger is gone", lambda: name not in self.admin.list_topics().topics or None)

    def _jobs(self):
        return [TopicPartition(f"{self.prefix}.jobs", p) for p in range(PARTITIONS)]


def _clean():
    """The user's own settings must not reach the programs."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("GUESTKIT_", "KAFKA_"))}


def _until(seconds, what, look):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = look()
        if answer is not None:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")
