"""Writes a logical volume's content where lvm2 says that its extents lie.

usage: stripe.py CONTENT LVS PVS, with the output of
  lvs --segments -o lv_name,stripes,stripe_size,devices   and   pvs -o pv_name,pe_start,pv_uuid
"""
import sys

EXTENT = 4 << 20
content, lvs, pvs = sys.argv[1:]
start = {f[0]: int(f[1]) for f in (line.split() for line in open(pvs)) if len(f) > 1}
data = open(content, "rb").read()
data += bytes(-len(data) % EXTENT)
lines = [line.split() for line in open(lvs)]
assert len(lines) == 1, f"one segment expected: {lines}"
_, stripes, size, devices = lines[0]
stripes, size = int(stripes), int(size) or EXTENT
legs = []
for device in devices.split(","):
    name, extent = device.rstrip(")").split("(")
    legs.append((open(name, "r+b"), start[name] + int(extent) * EXTENT))
assert len(legs) == stripes
for at in range(0, len(data), size):
    chunk = at // size
    file, base = legs[chunk % stripes]
    file.seek(base + chunk // stripes * size)
    file.write(data[at : at + size])
for file, _ in legs:
    file.close()
