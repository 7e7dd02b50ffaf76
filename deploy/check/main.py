"""`./dev manifests`: chart, plain manifests, Compose file and Dockerfile, each before the tool of its own community.

main.py [--write]    with --write files made from others are written; else they have to be equal
"""

import os
import pathlib
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "autoscaler"))
import checks

# Name, check. Each yields what is wrong, or a line that begins with "not run:".
STEPS = (
    ("values.yaml is that of the schema", checks.values),
    ("the chart's alerts are the one file", checks.rules),
    ("helm lint", checks.lint),
    ("wrong values are refused", checks.refusals),
    ("manifests are rendered from the chart", checks.manifests),
    ("Kubernetes schemas", checks.kubernetes),
    ("pod security restricted", checks.pod_security),
    ("custom resources", checks.custom_resources),
    ("references", checks.references),
    ("topics and rights", checks.topics_and_rights),
    ("variables are known to the programs", checks.variables),
    ("docker compose config", checks.compose),
    ("Dockerfile", checks.dockerfile),
    ("runbook", checks.runbook),
    ("autoscaler", checks.autoscaler),
)


def main():
    unknown = set(sys.argv[1:]) - {"--write"}
    if unknown:
        sys.exit(__doc__)
    checks.WRITE = "--write" in sys.argv
    failed = 0
    for name, check in STEPS:
        start = time.monotonic()
        problems = []
        for line in check():
            if line.startswith("not run:"):
                print(line)
                if os.environ.get("CI") == "true":
                    problems.append(line)
            elif line.startswith("note:"):
                print(line.removeprefix("note:").strip())
            else:
                problems.append(line)
        print(f"{'FAILED' if problems else 'ok    '}  {name}  {time.monotonic() - start:.1f} s", flush=True)
        for problem in problems:
            print(f"    {problem}")
        failed += bool(problems)
    print(f"{len(STEPS) - failed} of {len(STEPS)} passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
