"""A fleet under the autoscaler, second by second, without Kafka: partitions, pods, jobs, rebalances, drains.

It knows of the workers what scaling depends on: a partition's offset moves only over a contiguous prefix; a job
whose partition moves to another pod is run again there; a pod that has to go takes nothing new, finishes what
runs within its drain time and keeps its partitions until then.
"""

import dataclasses

from keda import Autoscaler

# From the start of a pod until it is ready, the median of the recorded run, of which some seconds are the restore of
# small ledgers; partitions that move later are restored within as many.
READY_SECONDS = 4
RESTORE_SECONDS = 2
# No scenario takes as long.
LIMIT = 4 * 3600


@dataclasses.dataclass
class Job:
    """One job of a partition."""

    seconds: int
    started: int | None = None
    pod: object = None
    done: bool = False


@dataclasses.dataclass(eq=False)
class Pod:
    """One worker."""

    member_at: int
    number: int
    leaves_by: int | None = None
    partitions: set = dataclasses.field(default_factory=set)
    usable_at: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """What became of a scenario."""

    events: list
    lags: list
    interrupted: int
    moved: int

    @property
    def peak(self):
        return max((after for _, _, after in self.events), default=0)

    @property
    def empty_at(self):
        """The first second from which on nothing waits and nothing runs."""
        busy = [second for second, lag in enumerate(self.lags) if lag]
        return busy[-1] + 1 if busy else 0

    @property
    def zero_at(self):
        return self.events[-1][0] if self.events and self.events[-1][2] == 0 else None

    def flaps(self, within):
        """Pods added again so soon after some were taken away that they could have stayed."""
        ins = [at for at, before, after in self.events if after < before]
        outs = [at for at, before, after in self.events if after > before]
        return sum(any(0 < out - in_ < within for in_ in ins) for out in outs)


class Fleet:
    """The state; `second` is called once a second."""

    def __init__(self, settings):
        self.settings = settings
        self.log = [[] for _ in range(settings.partitions)]
        self.prefix = [0] * settings.partitions
        self.pods, self.number = [], 0
        self.interrupted = self.moved = 0

    def lags(self):
        return [len(log) - prefix for log, prefix in zip(self.log, self.prefix)]

    def second(self, now):
        self._finish(now)
        changed = False
        for pod in list(self.pods):
            if pod.leaves_by is not None and (not self._running(pod) or now >= pod.leaves_by):
                for job in self._running(pod):
                    self.interrupted += 1
                    job.started = job.pod = None
                self.pods.remove(pod)
                changed = True
            changed |= pod.member_at == now
        if changed:
            self._rebalance(now)
        for pod in self.pods:
            if pod.leaves_by is None:
                self._start(pod, now)

    def want(self, count, now):
        stay = [pod for pod in self.pods if pod.leaves_by is None]
        for _ in range(count - len(stay)):
            self.number += 1
            self.pods.append(Pod(now + READY_SECONDS, self.number))
        # As a ReplicaSet does: who came last goes first.
        for pod in sorted(stay, key=lambda pod: -pod.number)[: max(len(stay) - count, 0)]:
            pod.leaves_by = now + min(self.settings.drain, self.settings.grace)

    def _running(self, pod):
        return [job for p in pod.partitions for job in self.log[p][self.prefix[p] :] if job.pod is pod and not job.done]

    def _finish(self, now):
        for partition, log in enumerate(self.log):
            for job in log[self.prefix[partition] :]:
                if job.started is not None and now - job.started >= job.seconds:
                    job.done = True
            while self.prefix[partition] < len(log) and log[self.prefix[partition]].done:
                self.prefix[partition] += 1

    def _rebalance(self, now):
        """Balanced, and as few moves as that allows."""
        members = [pod for pod in self.pods if pod.member_at <= now]
        free = set(range(self.settings.partitions)) - {p for pod in members for p in pod.partitions}
        if not members:
            return
        most = -(-self.settings.partitions // len(members))
        for pod in sorted(members, key=lambda pod: pod.number):
            for partition in sorted(pod.partitions)[most:]:
                self._take(pod, partition)
                free.add(partition)
        for partition in sorted(free):
            least = min(members, key=lambda pod: (len(pod.partitions), pod.number))
            least.partitions.add(partition)
            least.usable_at[partition] = now + RESTORE_SECONDS
        while True:
            least = min(members, key=lambda pod: (len(pod.partitions), pod.number))
            fullest = max(members, key=lambda pod: (len(pod.partitions), pod.number))
            if len(fullest.partitions) - len(least.partitions) < 2:
                return
            partition = max(fullest.partitions)
            self._take(fullest, partition)
            least.partitions.add(partition)
            least.usable_at[partition] = now + RESTORE_SECONDS

    def _take(self, pod, partition):
        for job in self.log[partition][self.prefix[partition] :]:
            if job.pod is pod and not job.done:
                self.moved += 1
                job.started = job.pod = None
        pod.partitions.remove(partition)

    def _start(self, pod, now):
        room = self.settings.concurrency - len(self._running(pod))
        if room <= 0:
            return
        waiting = [
            (number, partition, job)
            for partition in pod.partitions
            if pod.usable_at[partition] <= now
            for number, job in enumerate(self.log[partition][self.prefix[partition] :])
            if job.started is None
        ]
        for _, _, job in sorted(waiting, key=lambda entry: entry[:2])[:room]:
            job.started, job.pod = now, pod


def run(jobs, settings):
    """Jobs are (second, partition, seconds); ends when all is done and nobody is left, or at the limit."""
    fleet, scaler = Fleet(settings), Autoscaler(settings)
    waiting = sorted(jobs)
    replicas, events, lags = 0, [], []
    for now in range(LIMIT):
        while waiting and waiting[0][0] <= now:
            _, partition, seconds = waiting.pop(0)
            fleet.log[partition].append(Job(seconds))
        fleet.second(now)
        lags.append(sum(fleet.lags()))
        wanted = scaler.step(now, fleet.lags(), replicas)
        if wanted != replicas:
            events.append((now, replicas, wanted))
            fleet.want(wanted, now)
        replicas = wanted
        if not waiting and replicas == 0 and not fleet.pods and lags[-1] == 0:
            break
    return Outcome(events, lags, fleet.interrupted, fleet.moved)
