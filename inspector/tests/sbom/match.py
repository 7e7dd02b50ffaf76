#!/usr/bin/env python3
"""Lets a vulnerability matcher read the bills of materials of guests: AppThreat's vdb.

    match.py GUESTKIT_INSPECT IMAGE...        (./dev sbom does it)

The matcher's database is made here, of advisories in OSV's format. For each Debian and RPM package of
the guests: one that is fixed in a later version, which has to be found, and one that was fixed in the
version that is installed, which must not be. So the matcher has to understand type, distribution,
name, epoch and version of our package URLs as we mean them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

# The matcher's configuration is read when it is imported.
HOME = tempfile.mkdtemp(prefix="guestkit-vdb-")
os.environ.update(VDB_HOME=HOME, VDB_QUIET="true")

from packageurl import PackageURL  # noqa: E402
from vdb.lib import config, db, search  # noqa: E402
from vdb.lib.osv import OSVSource  # noqa: E402

# Longest time of one inspection, in seconds; a guest takes a fraction of one.
LIMIT = 60
# Differences that are shown of one guest.
SHOWN = 5
ECOSYSTEMS = {"deb": "Debian", "rpm": "Fedora"}


def advisory(number, url, fixed):
    return {
        "id": f"CVE-2099-{number}",
        "schema_version": "1.6.0",
        "published": "2099-01-01T00:00:00Z",
        "modified": "2099-01-01T00:00:00Z",
        "details": "made for a test",
        "affected": [
            {
                "package": {
                    "ecosystem": ECOSYSTEMS[url.type],
                    "name": url.name,
                    "purl": PackageURL(url.type, url.namespace, url.name).to_string(),
                },
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
            }
        ],
    }


def bom_of(command, image):
    ran = subprocess.run([command, "--output", "cyclonedx", image], capture_output=True, timeout=LIMIT)
    if ran.returncode:
        sys.exit(ran.stderr.decode())
    return json.loads(ran.stdout)


def main(command, images):
    boms = {image: bom_of(command, image) for image in images}
    urls = {}
    for bom in boms.values():
        for component in bom["components"]:
            url = PackageURL.from_string(component["purl"]) if "purl" in component else None
            if url and url.type in ECOSYSTEMS:
                # The same package of two guests may have two versions: each is its own question.
                urls.setdefault((url.type, url.namespace, url.name, component["version"]), url)
    names = [key[:3] for key in urls]
    advisories, wanted, number = [], {}, 10_000
    for (kind, namespace, name, version), url in urls.items():
        if names.count((kind, namespace, name)) > 1:
            continue
        advisories.append(advisory(number, url, version + "+later"))
        advisories.append(advisory(number + 40_000, url, version))
        wanted[url.to_string()] = {f"CVE-2099-{number}"}
        number += 1
    source = OSVSource()
    db.get(db_file=config.VDB_BIN_FILE, index_file=config.VDB_BIN_INDEX)
    source.store([one for each in advisories for one in source.convert(each)])
    failed = False
    for image, bom in boms.items():
        answer = search.search_bom_detailed(bom, with_data=False)
        asked, wrong = 0, []
        for component in answer["components"]:
            url = component["locator"]["purl"]
            if url not in wanted:
                continue
            asked += 1
            found = set(component["cve_ids"])
            if found != wanted[url]:
                wrong.append(f"{url}: {sorted(found)}, not {sorted(wanted[url])}")
        if not asked:
            print(f"{os.path.basename(image)}: nothing to match")
            continue
        state = "ok" if not wrong else "FAILED"
        print(f"{os.path.basename(image)}: matched {asked - len(wrong)} of {asked} packages: {state}")
        for line in wrong[:SHOWN]:
            print(f"    {line}")
        failed |= bool(wrong)
    if not wanted:
        sys.exit("no package to match")
    return 1 if failed else 0


try:
    code = main(sys.argv[1], sys.argv[2:])
finally:
    shutil.rmtree(HOME, ignore_errors=True)
sys.exit(code)
