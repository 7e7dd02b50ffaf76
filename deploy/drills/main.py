"""`./dev operations drills`: the procedures of docs/operations.md, "Disaster recovery", on a real Kafka.

main.py BOOTSTRAP WORKER JOBS LOGS      programs guestkit-worker and guestkit-jobs, a folder for logs
"""

import sys

from fleet_of_one import Fleet


def offsets_reset_backwards(fleet):
    """Nothing runs again: the ledger's SLOT knows better."""
    fleet.stop()
    fleet.reset_offsets_to_start()
    fleet.start()
    fleet.results(24)


def offsets_lost(fleet):
    """A group that was idle for too long: SLOT has the position."""
    fleet.stop()
    fleet.forget_offsets()
    fleet.start()
    fleet.results(24)


def records_lost(fleet):
    """Retention took unread jobs: the slot stops and says so; after the procedure the jobs are published again."""
    fleet.stop()
    lost = {f"job-lost-{n:04}": f"key-lost-{n:04}" for n in range(48)}
    fleet.publish(lost)
    fleet.delete_jobs()
    stopped = [p for p in fleet.start() if p["state"] == "stopped"]
    assert stopped, "no slot noticed that its records are gone"
    assert all("lost records" in p["reason"] for p in stopped), stopped
    fleet.stop()
    fleet.reset_offsets_to_start()
    assert all(p["state"] == "running" for p in fleet.start()), "a slot still stands after the procedure"
    fleet.publish(lost)
    fleet.results(72)


def ledger_lost(fleet):
    """Nothing that was answered runs again by itself; a key that is published again does, once."""
    fleet.stop()
    fleet.lose_ledger()
    fleet.create_topics()
    assert all(p["state"] == "running" for p in fleet.start()), "a slot stands without its old ledger"
    fleet.results(72)
    fleet.publish({"job-again-0001": "key-0001"})
    again = fleet.results(73)["job-again-0001"]
    assert again["status"] == "completed" and not again.get("duplicate_of"), again
    fleet.publish({"job-again-0002": "key-0001"})
    twice = fleet.results(74)["job-again-0002"]
    assert twice["duplicate_of"] == "job-again-0001", twice


DRILLS = (offsets_reset_backwards, offsets_lost, records_lost, ledger_lost)


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    fleet = Fleet(*sys.argv[1:])
    try:
        fleet.start()
        fleet.publish({f"job-{n:04}": f"key-{n:04}" for n in range(24)})
        fleet.results(24)
        for drill in DRILLS:
            drill(fleet)
            print(f"ok  {drill.__name__.replace('_', ' ')}: {drill.__doc__}", flush=True)
    finally:
        fleet.stop()


if __name__ == "__main__":
    main()
