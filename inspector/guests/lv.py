"""Adds a striped logical volume to a metadata backup of lvm2. usage: lv.py FILE NAME EXTENTS STRIPES"""
import random
import string
import sys

path, name, extents, stripes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
text = open(path).read()
each = -(-extents // stripes)
letters = string.ascii_letters + string.digits
groups = (6, 4, 4, 4, 4, 4, 6)
uuid = "-".join("".join(random.choice(letters) for _ in range(n)) for n in groups)
legs = ", ".join(f'"pv{n}", 0' for n in range(stripes))
size = "stripe_size = 128" if stripes > 1 else ""
volumes = f"""
	logical_volumes {{
		{name} {{
			id = "{uuid}"
			status = ["READ", "WRITE", "VISIBLE"]
			flags = []
			segment_count = 1
			segment1 {{
				start_extent = 0
				extent_count = {each * stripes}
				type = "striped"
				stripe_count = {stripes}
				{size}
				stripes = [{legs}]
			}}
		}}
	}}
"""
end = text.rindex("}")
open(path, "w").write(text[:end] + volumes + text[end:])
