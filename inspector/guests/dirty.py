"""Leaves a hive as a machine does that lost power: the file in its old state, the newer one in its
transaction logs alone. usage: dirty.py OLD NEW OUT (writes OUT, OUT.LOG1, OUT.LOG2)
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/windows"))
from logs import entry, seal  # noqa: E402

old, new = (pathlib.Path(path).read_bytes() for path in sys.argv[1:3])
out = sys.argv[3]
# Windows makes the file longer before it writes the log.
old = old.ljust(len(new), b"\0")
size = len(new) - 4096
page = lambda hive, number: hive[4096 + number * 4096 : 8192 + number * 4096]
changed = [number for number in range(size // 4096) if page(old, number) != page(new, number)]
assert len(changed) > 2, changed
half = len(changed) // 2
base = lambda sequence: bytes(seal(old[:4096], sequence, sequence, 6)[:512])
files = {
    "": bytes(seal(old[:4096], 41, 40, size=size)) + old[4096:],
    # Two flushes, the older one in LOG2.
    ".LOG2": base(40) + entry(40, size, changed[:half], new),
    ".LOG1": base(41) + entry(41, size, changed[half:], new),
}
for ending, content in files.items():
    pathlib.Path(out + ending).write_bytes(content)
