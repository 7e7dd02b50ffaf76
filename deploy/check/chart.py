"""Rendering: the chart with each set of values, split by who understands the resources."""

import functools
import json
import pathlib
import re

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/guestkit"
EXAMPLES = ROOT / "deploy/helm/examples"
MANIFESTS = ROOT / "deploy/manifests"
RELEASE = "guestkit"
NAMESPACE = "guestkit"

# Files of a set, by the API groups in them: who has no KEDA leaves keda.yaml out.
FILES = {
    "kubernetes": ("v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"),
    "keda": ("keda.sh/v1alpha1",),
    "prometheus-operator": ("monitoring.coreos.com/v1",),
    "strimzi": ("kafka.strimzi.io/v1",),
}


def sets():
    """Names and values of everything that is rendered."""
    yield "fleet", {}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def documents(values):
    """All resources as (template, text with its comments, resource)."""
    return _documents(json.dumps(values, sort_keys=True))


@functools.cache
def _documents(values):
    return tuple(_render(json.loads(values)))


def _render(values):
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    for template, text in sorted(rendered.items()):
        if template.endswith("NOTES.txt"):
            continue
        for part in re.split(r"(?m)^---\s*$", text):
            resource = yaml.safe_load(part)
            if resource is not None:
                yield template.removeprefix("guestkit/"), part.strip("\n") + "\n", resource


def files(values, name):
    """File names and texts of one set."""
    texts = {}
    for _, text, resource in documents(values):
        kind = next((f for f, groups in FILES.items() if resource["apiVersion"] in groups), None)
        if kind is None:
            raise ValueError(f"no file for {resource['apiVersion']} {resource['kind']}")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        texts.setdefault(kind, []).append("\n".join(lines) + "\n")
    source = "values.yaml" if name == "fleet" else f"deploy/helm/examples/{name}.yaml"
    head = f"# Rendered from the chart with {source} by `./dev manifests --write`.\n"
    return {f"{kind}.yaml": head + "---\n" + "---\n".join(parts) for kind, parts in texts.items()}
