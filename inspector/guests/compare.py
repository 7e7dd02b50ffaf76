"""Compares what guestkit-inspect says of the guests of make.sh with their truth/.

usage: compare.py GUESTKIT-INSPECT FOLDER
"""
import json
import pathlib
import subprocess
import sys

command, folder = sys.argv[1], pathlib.Path(sys.argv[2])


def run(*arguments):
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{arguments}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []


def at(document, pointer):
    for part in pointer.strip("/").split("/"):
        document = document[int(part)] if part.isdigit() else document[part]
    return document


def same(what, found, expected):
    if found != expected:
        both = [(a, b) for a, b in zip(found, expected) if a != b][:3] if isinstance(found, list) else [(found, expected)]
        raise AssertionError(f"{what}: {len(found) if isinstance(found, list) else ''} found, first differences {both}")
    return len(expected) if isinstance(expected, list) else 1


def check(guest):
    truth = guest / "truth"
    images = [guest / "disk.img"]
    more = ["--add", guest / "disk2.img"] if (guest / "disk2.img").exists() else []
    first = run(*images, *more, "--output", "json")
    same("two runs", first, run(*images, *more, "--output", "json"))
    document = json.loads(first)
    counts = {}
    if more and [disk["device"] for disk in document["further"]] != ["/dev/sdb"]:
        raise AssertionError(f"further disks: {document.get('further')}")
    for pointer, value in rows(truth / "facts.tsv"):
        counts["facts"] = counts.get("facts", 0) + same(pointer, str(at(document, pointer)), value)
    if (truth / "systems").exists():
        same("systems", len(document["os"]), int((truth / "systems").read_text()))
    packages = sorted(
        [p["name"], p["full_version"], p["arch"] or ""] for p in document["packages"]
    )
    counts["packages"] = same("packages", packages, sorted(rows(truth / "packages.tsv")))
    if (truth / "passwd").exists():
        expected = sorted(
            (f[0], int(f[2]), int(f[3]), f[5], f[6])
            for f in (line.split(":") for line in (truth / "passwd").read_text().splitlines())
        )
        found = sorted((u["name"], u["uid"], u["gid"], u["home"], u["shell"]) for u in document["users"])
        counts["users"] = same("users", found, expected)
        states = {u["name"]: u["password"] for u in document["users"]}
        same("passwords", states, {"root": "set", "daemon": "none", "alice": "none", "bob": "empty"})
        if b"0123456789abcdefghij" in first:
            raise AssertionError("a password hash is in the report")
    for name, addresses in rows(truth / "interfaces.tsv"):
        interface = next(i for i in document["network"]["interfaces"] if i["name"] == name)
        found = "dhcp" if interface["dhcp"] else " ".join(interface["addresses"])
        counts["interfaces"] = counts.get("interfaces", 0) + same(name, found, addresses)
    if (truth / "services.tsv").exists():
        starts = ["boot", "system", "automatic", "manual", "disabled"]
        expected = [(name, starts[int(start)], path) for name, start, path in rows(truth / "services.tsv")]
        found = [(s["name"], s["state"], s["exec"] or "") for s in document["services"]["units"]]
        counts["services"] = same("services", sorted(found), sorted(expected))
        hive = next(h for h in document["windows"]["hives"] if h["name"].endswith("SYSTEM"))
        if "replayed" not in json.dumps(hive["recovery"]):
            raise AssertionError(f"the dirty hive: {hive}")
    if (truth / "subvolumes.txt").exists():
        expected = (truth / "subvolumes.txt").read_text().splitlines()
        found = [s["path"] for fs in document["filesystems"] for s in fs.get("subvolumes", []) if s["path"]]
        counts["subvolumes"] = same("subvolumes", sorted(found), expected)
    # ntfs-3g does not show the volume's own files.
    hidden = lambda path: path.startswith("$")
    tree = []
    for line in run("tree", "--sha256", "--output", "json", *images, "/", *more).splitlines():
        row = json.loads(line)
        kind = row["kind"]
        last = row.get("target") if kind == "l" else row.get("sha256", "") if kind == "f" else ""
        if hidden(row["path"]):
            continue
        tree.append([row["path"], kind, str(row["size"]) if kind == "f" else "0", last])
    expected = [row for row in rows(truth / "tree.tsv")]
    mounted = [path for path in ("home", "var", ".snapshots", "boot") if (truth / "subvolumes.txt").exists() or path == "boot"]
    inside = lambda path: any(path.startswith(m + "/") for m in mounted)
    counts["nodes"] = same(
        "tree", sorted(r for r in tree if not inside(r[0])), sorted(r for r in expected if not inside(r[0]))
    )
    return counts


failed = 0
for guest in sorted(path for path in folder.iterdir() if (path / "truth").is_dir()):
    try:
        counts = check(guest)
        print(f"{guest.name:<16} ok      " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    except (AssertionError, KeyError, IndexError, StopIteration, TypeError) as error:
        failed += 1
        print(f"{guest.name:<16} FAILED  {type(error).__name__}: {error}")
sys.exit(1 if failed else 0)
