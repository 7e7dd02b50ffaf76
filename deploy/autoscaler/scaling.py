"""Does the fleet scale as it should, with the settings of the rendered chart?"""

import dataclasses
import json
import pathlib

from fleet import run
from settings import Settings

RECORD = pathlib.Path(__file__).with_name("recorded-run.json")
# How far the model may be from the recorded run, in which a second lasts as long as a loaded machine likes.
TOLERANCE = 0.25
DRAIN_MARGIN = 10


def scenarios(record, settings):
    """Names and jobs."""
    yield "recorded", [(at, slot, -(-ms // 1000)) for at, slot, ms in record["jobs"]]
    spread = range(settings.partitions)
    # Demand that comes and goes faster than the window.
    yield "waves", [(wave * 300 + 7, n % len(spread), 15 + n % 20) for wave in range(8) for n in range(100)]
    # Fewer than partitions, from nothing.
    yield "three jobs", [(100, 1, 10), (100, 1, 10), (101, 5, 20)]
    # One job as long as a drain, and the last of all.
    yield "long last", [(5, n % len(spread), 5) for n in range(60)] + [(30, 3, settings.drain)]
    # More all day than one pod does, less than all.
    yield "steady", [(n, n % len(spread), 30) for n in range(3600)]


def breaches(name, outcome, settings):
    if outcome.zero_at is None or outcome.lags[-1] != 0:
        yield f"{name}: backlog {outcome.lags[-1]}, pods {outcome.events[-1][2] if outcome.events else 0} at the end"
    if outcome.peak == 0:
        yield f"{name}: nobody came"
    if outcome.peak > settings.partitions:
        yield f"{name}: {outcome.peak} pods for {settings.partitions} partitions"
    if outcome.interrupted:
        yield f"{name}: {outcome.interrupted} jobs were cut off by pods that had to go"
    if outcome.flaps(600):
        yield f"{name}: pods were added {outcome.flaps(600)} times within 600 s of being taken away"
    for before, after in zip(outcome.events, outcome.events[1:]):
        if after[2] != 0 and after[2] < after[1] and before[2] < before[1] and after[0] - before[0] < 120:
            yield f"{name}: two pods within {after[0] - before[0]} s"


# A changed setting, the scenario that has to notice, and a word of what it has to say.
BREAKING = (
    ({"scale_in_window": 0, "scale_in_pods": 12, "scale_in_period": 15, "cooldown": 30}, "waves", "added"),
    ({"drain": 5}, "recorded", "cut off"),
    ({"activation_lag": 12}, "three jobs", "nobody came"),
    ({"scale_in_period": 30}, "steady", "two pods"),
)


def check(resources):
    """What is wrong, and notes with the figures."""
    settings = Settings.of(resources, "guestkit-worker")
    record = json.loads(RECORD.read_text())
    if settings.grace < settings.drain + DRAIN_MARGIN:
        yield f"grace period {settings.grace} s is too short for a drain of {settings.drain} s"
    found = {}
    for name, jobs in scenarios(record, settings):
        outcome = found[name] = run(jobs, settings)
        yield from breaches(name, outcome, settings)
        yield (
            f"note: {name}: {len(jobs)} jobs, peak {outcome.peak} pods, {len(outcome.events)} scale events, "
            f"empty at {outcome.empty_at} s, zero at {outcome.zero_at} s, {outcome.moved} run again after a rebalance"
        )
    yield from _recorded(record, found["recorded"], settings)
    for change, name, word in BREAKING:
        changed = dataclasses.replace(settings, **change)
        jobs = dict(scenarios(record, settings))[name]
        if not any(word in breach for breach in breaches(name, run(jobs, changed), changed)):
            yield f"{change} is not noticed by {name!r}"


def _recorded(record, model, settings):
    """The real run kept the promises, and the model is like it."""
    seconds, events = record["seconds"], record["events"]
    results = record["results"]
    if not results["jobs"] == results["results"] == results["different"] == results["completed"]:
        yield f"recorded: {results}"
    if record["killed"] or any(after > settings.grace for after in record["drained_after"]):
        yield f"recorded: a pod was killed or drained for too long: {record['drained_after']}"
    if sum(record["last_lags"]) > settings.activation_lag:
        yield (
            f"recorded: a lag of {record['last_lags']} stays, more than activationLagThreshold "
            f"{settings.activation_lag}: the pool would never sleep"
        )
    if events[-1][2] != 0:
        yield "recorded: it did not go back to zero"
    empty = max(second for second, row in enumerate(seconds) if row[0]) + 1
    peak = max(row[1] for row in seconds)
    yield (
        f"note: recorded, real: {results['jobs']} jobs, peak {peak} pods, {len(events)} scale events, empty at {empty} s, "
        f"zero at {events[-1][0]} s, longest drain {max(record['drained_after'])} s"
    )
    if record["settings"] != json.loads(json.dumps(dataclasses.asdict(settings))):
        yield "note: the run was recorded with other settings: only the model judges these"
        return
    if peak != model.peak:
        yield f"the model's peak is {model.peak} pods, the real one was {peak}"
    one_pod = settings.lag_threshold
    for what, real, modelled in (
        ("without backlog", empty, model.empty_at),
        (
            "down to the work of one pod",
            _first_below(one_pod, [row[0] for row in seconds]),
            _first_below(one_pod, model.lags),
        ),
    ):
        yield f"note: {what}: the real fleet at {real} s, the model at {modelled} s"
        if abs(modelled - real) > TOLERANCE * real:
            yield f"the model is {what} at {modelled} s, the real fleet was at {real} s"


def _first_below(most, lags):
    """The first second after the highest backlog with at most so much."""
    highest = lags.index(max(lags))
    return next(second for second, lag in enumerate(lags) if second > highest and lag <= most)
