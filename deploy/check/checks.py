"""The checks of `./dev manifests`. Each yields what is wrong."""

import contextlib
import copy
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import helm_python
import jsonschema
import kubernetes_validate
import yaml

import chart
import restricted
import scaling
import values as values_file
from chart import CHART, MANIFESTS, ROOT

WRITE = False

# The oldest that the chart promises, the one in the middle, the newest that the validator knows.
KUBERNETES = ("1.27", "1.32", "1.37")
CRDS = ROOT.parent / "shared"
# Longest time for a tool that reads a file.
TOOL_SECONDS = 60
# What breaks "restricted" on purpose, and why: examples/host-disks.yaml says that hostPath needs "privileged".
EXEMPT = {"host-disks": {("hostPath", "volume disks")}}


def same(path, text):
    """The file has this text; written when that was asked for."""
    if WRITE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        yield f"{path.relative_to(ROOT)} is not what it is made from: ./dev manifests --write"


def schema():
    return json.loads((CHART / "values.schema.json").read_text())


def values():
    root = schema()
    jsonschema.Draft7Validator.check_schema(root)
    yield from same(CHART / "values.yaml", values_file.text(root))
    written = yaml.safe_load(values_file.text(root))
    wanted = values_file.defaults(root, root)
    wanted.pop("global")
    if written != wanted:
        yield "values.yaml does not say the defaults of the schema"


def rules():
    """The chart cannot reach out of its folder, so it has a copy of the one file of alerts."""
    source = (ROOT / "deploy/prometheus/rules/guestkit.yml").read_text()
    yield from same(CHART / "files/rules.yml", source)


def lint():
    for name, given in chart.sets():
        report = helm_python.lint(CHART, given, strict=True, namespace=chart.NAMESPACE)
        for message in report["messages"]:
            # An icon is for catalogues of charts.
            if "icon is recommended" not in message["error"]:
                yield f"{name}: {message['path']}: {message['error']}"
        if [error for error in report["errors"] if "icon is recommended" not in error]:
            yield f"{name}: {report['errors']}"


# Values that cannot work, and the word that the refusal has to say.
REFUSED = (
    ({"kafka": {"bootstrapServer": "x"}}, "bootstrapServer"),
    ({"worker": {"concurrency": 0}}, "concurrency"),
    ({"worker": {"autoscaling": {"maxReplicas": 13}}}, "maxReplicas"),
    ({"worker": {"kind": "StatefulSet", "replicas": 13}}, "replicas"),
    ({"worker": {"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}}, "minReplicas"),
    ({"pools": {"Default": {}}}, "Default"),
    ({"pools": {"default": {"autoscaling": {"lagTreshold": 1}}}}, "lagTreshold"),
    ({"gateway": {"tokensSecret": ""}}, "tokensSecret"),
    ({"gateway": {"allowAnonymous": True}}, "allowAnonymous"),
    ({"gateway": {"pool": "gpu"}}, "gpu"),
    ({"strimzi": {"topics": {"enabled": True}}}, "setup.enabled"),
    ({"image": {"digest": "sha256:12"}}, "digest"),
)


def refusals():
    for given, word in REFUSED:
        try:
            list(chart.documents(given))
        except helm_python.HelmError as error:
            if word not in str(error):
                yield f"{given}: refused without naming {word}: {error}"
        else:
            yield f"{given}: not refused"


def manifests():
    wanted = set()
    for name, given in chart.sets():
        for file, text in chart.files(given, name).items():
            path = MANIFESTS / name / file
            wanted.add(path)
            yield from same(path, text)
    for path in sorted(set(MANIFESTS.glob("*/*.yaml")) - wanted):
        if WRITE:
            path.unlink()
        else:
            yield f"{path.relative_to(ROOT)} is rendered from nothing"


def rendered():
    """Every different resource as (first set that has it, resource)."""
    seen = set()
    for name, given in chart.sets():
        for _, _, resource in chart.documents(given):
            text = json.dumps(resource, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield name, resource


def kubernetes():
    count = 0
    for name, resource in rendered():
        if resource["apiVersion"] not in chart.FILES["kubernetes"]:
            continue
        for version in KUBERNETES:
            count += 1
            try:
                # It prints what it thinks of the version's age.
                with contextlib.redirect_stdout(io.StringIO()):
                    kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = "/".join(str(part) for part in error.path)
                yield f"{name}, {version}: {resource['kind']} {resource['metadata']['name']}: {path}: {error.message}"
    yield f"note: {count} resources against Kubernetes {', '.join(KUBERNETES)}"


def pod_security():
    pods = 0
    for name, given in chart.sets():
        found = set()
        for _, _, resource in chart.documents(given):
            pods += resource["kind"] in restricted.KINDS
            for rule, place in restricted.breaches(resource):
                if (rule, place) in EXEMPT.get(name, ()):
                    found.add((rule, place))
                else:
                    yield f"{name}: {resource['kind']} {resource['metadata']['name']}: {rule} ({place})"
        for rule, place in EXEMPT.get(name, set()) - found:
            yield f"{name}: exempt from {rule} ({place}) without need"
    yield from _rules_can_fail()
    yield f"note: {pods} pod templates"


def _rules_can_fail():
    """Each part of the security settings, taken away, is a breach."""
    deployment = next(r for _, _, r in chart.documents({}) if r["kind"] == "Deployment")
    assert not restricted.breaches(deployment)
    places = (
        ("spec", "securityContext"),
        ("spec",),
        ("spec", "containers", 0, "securityContext"),
        ("spec", "containers", 0, "resources"),
    )
    needed = {
        "runAsNonRoot",
        "seccompProfile",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "capabilities",
        "requests",
        "limits",
    }
    for place in places:
        part = deployment["spec"]["template"]
        for step in place:
            part = part[step]
        for key in needed & part.keys():
            broken = copy.deepcopy(deployment)
            part = broken["spec"]["template"]
            for step in place:
                part = part[step]
            del part[key]
            if not restricted.breaches(broken):
                yield f"no breach without {key}"


def custom_resources():
    validator = CRDS / "tools/crdval.py"
    if not validator.exists():
        yield f"not run: custom resources of KEDA, Strimzi and the Prometheus operator, there is no {validator}"
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, given in chart.sets():
            texts = chart.files(given, name)
            for file in texts.keys() - {"kubernetes.yaml"}:
                paths.append(pathlib.Path(folder, f"{name}-{file}"))
                paths[-1].write_text(texts[file])
        # A field too many, to see that the validator is strict.
        bad = pathlib.Path(folder, "bad.yaml")
        bad.write_text("apiVersion: kafka.strimzi.io/v1\nkind: KafkaTopic\nmetadata: {name: x}\nspec: {partition: 1}\n")
        run = subprocess.run(
            [sys.executable, validator, *paths, bad], capture_output=True, text=True, timeout=TOOL_SECONDS
        )
        faults = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("ok ")]
        if not any("'partition' was unexpected" in line for line in faults):
            yield "the validator of custom resources accepts an unknown field"
        yield from (line for line in faults if "'partition' was unexpected" not in line)
        yield f"note: {run.stdout.count('ok (')} custom resources"


# Every secret that there can be, for each program.
SECRETS = {
    "kafka": {
        "secretFiles": {
            "sasl.password": {"secretName": "a", "key": "b"},
            "ssl.ca.location": {"secretName": "a", "key": "c"},
        }
    },
    "schemaRegistry": {
        "url": "https://registry",
        "user": "u",
        "password": {"secretName": "r", "key": "p"},
        "ca": {"secretName": "r", "key": "c"},
    },
    "gateway": {"tlsSecret": "t"},
}


def references():
    """What names something else names something that is there, and selectors find their pods."""
    for name, given in [*chart.sets(), ("all secrets", SECRETS)]:
        resources = [resource for _, _, resource in chart.documents(given)]
        named = {(r["kind"], r["metadata"]["name"]) for r in resources}
        if len(named) != len(resources):
            yield f"{name}: two resources have one name"
        pods = [r["spec"]["template"]["metadata"]["labels"] for r in resources if r["kind"] in restricted.KINDS]
        for resource in resources:
            where = f"{name}: {resource['kind']} {resource['metadata']['name']}"
            spec = resource.get("spec", {})
            wanted = []
            if resource["kind"] in restricted.KINDS:
                pod = spec["template"]["spec"]
                if "serviceAccountName" in pod:
                    wanted.append(("ServiceAccount", pod["serviceAccountName"]))
                for container in pod["containers"]:
                    wanted += [("ConfigMap", e["configMapRef"]["name"]) for e in container.get("envFrom", [])]
                    mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
                    if mounts != {volume["name"] for volume in pod.get("volumes", [])}:
                        yield f"{where}: volumes and mounts differ"
                    if any(
                        m["mountPath"].startswith("/disks") and not m.get("readOnly")
                        for m in container.get("volumeMounts", [])
                    ):
                        yield f"{where}: a disk is mounted writable"
            if resource["kind"] == "ScaledObject":
                wanted.append(("Deployment", spec["scaleTargetRef"]["name"]))
                wanted += [
                    ("TriggerAuthentication", t["authenticationRef"]["name"])
                    for t in spec["triggers"]
                    if "authenticationRef" in t
                ]
            if resource["kind"] == "Ingress":
                wanted += [
                    ("Service", p["backend"]["service"]["name"])
                    for rule in spec["rules"]
                    for p in rule["http"]["paths"]
                ]
            yield from (f"{where}: there is no {kind} {other}" for kind, other in wanted if (kind, other) not in named)
            selector = {
                "PodDisruptionBudget": spec.get("selector"),
                "PodMonitor": spec.get("selector"),
                "NetworkPolicy": spec.get("podSelector"),
            }.get(resource["kind"])
            if resource["kind"] == "Service":
                selector = {"matchLabels": spec["selector"]}
            if selector and not any(selector["matchLabels"].items() <= labels.items() for labels in pods):
                yield f"{where}: its selector finds no pod"
        if given is SECRETS:
            yield from _secrets_arrive(resources)
        # Every pod has a network policy.
        policies = [r["spec"]["podSelector"]["matchLabels"] for r in resources if r["kind"] == "NetworkPolicy"]
        yield from (
            f"{name}: no network policy for {labels}"
            for labels in pods
            if not any(p.items() <= labels.items() for p in policies)
        )


def _secrets_arrive(resources):
    """Each program that talks to Kafka and the registry finds each secret where its variable says."""
    wanted = {
        "KAFKA_SASL_PASSWORD_FILE": "sasl.password",
        "KAFKA_SSL_CA_LOCATION": "ssl.ca.location",
        "GUESTKIT_SCHEMA_REGISTRY_PASSWORD_FILE": "registry.password",
        "GUESTKIT_SCHEMA_REGISTRY_CA": "registry.ca",
    }
    configs = {r["metadata"]["name"]: r["data"] for r in resources if r["kind"] == "ConfigMap"}
    for resource in resources:
        if resource["kind"] not in restricted.KINDS:
            continue
        pod = resource["spec"]["template"]["spec"]
        files = {
            item["path"]
            for volume in pod["volumes"]
            if volume["name"] == "secrets"
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }
        for container in pod["containers"] + pod.get("initContainers", []):
            told = {e["name"]: e.get("value") for e in container.get("env", [])}
            for source in container.get("envFrom", []):
                told |= configs[source["configMapRef"]["name"]]
            for variable, file in wanted.items():
                if told.get(variable) != f"/etc/guestkit/secrets/{file}" or file not in files:
                    yield f"{resource['metadata']['name']}, {container['name']}: {variable} does not arrive"


def topics_and_rights():
    """Topics are those of files/topics.json, which a test in kafka/ compares with what the CLI creates; rights name
    topics that exist."""
    given = dict(chart.sets())["strimzi"]
    given["pools"] = {"default": {}, "gpu": {}}
    resources = [r for _, _, r in chart.documents(given) if r["apiVersion"] == "kafka.strimzi.io/v1"]
    topics = {r["spec"]["topicName"]: r["spec"] for r in resources if r["kind"] == "KafkaTopic"}
    wanted = {}
    for kind, topic in json.loads((CHART / "files/topics.json").read_text()).items():
        for suffix in ("", ".gpu") if topic["pooled"] else ("",):
            wanted[f"vm-operations.{kind}{suffix}"] = {
                "topicName": f"vm-operations.{kind}{suffix}",
                "partitions": 12 if topic["partitioned"] else 1,
                "replicas": 3,
                "config": {**topic["config"], "min.insync.replicas": "2"},
            }
    if topics != wanted:
        yield f"topics differ from files/topics.json: {sorted(set(topics) ^ set(wanted)) or 'settings'}"
    for user in (r for r in resources if r["kind"] == "KafkaUser"):
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            if "{" in resource["name"]:
                yield f"{user['metadata']['name']}: unreplaced {resource['name']}"
            if resource["type"] == "topic" and resource["patternType"] == "literal" and resource["name"] not in topics:
                yield f"{user['metadata']['name']}: there is no topic {resource['name']}"


def environment(resource):
    """Variables that a resource gives to our programs."""
    if resource["kind"] == "ConfigMap":
        return set(resource["data"])
    if resource["kind"] in restricted.KINDS:
        spec = resource["spec"]["template"]["spec"]
        return {e["name"] for c in spec["containers"] + spec.get("initContainers", []) for e in c.get("env", [])}
    return set()


def compose_file():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def variables():
    """Each GUESTKIT_ variable stands in the sources of a program; a misspelt one would be ignored in silence."""
    known = set()
    for folder in ("worker/src", "producer-cli/src"):
        for path in (ROOT / folder).rglob("*.rs"):
            known |= set(re.findall(r'"(GUESTKIT_[A-Z_]+)"', path.read_text()))
    librdkafka = set(re.findall(r'"([a-z0-9._]+)",', (ROOT / "kafka/src/properties.rs").read_text()))
    used = [(name, variable) for name, resource in rendered() for variable in environment(resource)]
    for name, service in compose_file()["services"].items():
        if "guestkit" in service["image"]:
            used += [(f"docker-compose.yml, {name}", variable) for variable in service.get("environment", {})]
    for where, variable in sorted(set(used)):
        if variable.startswith("KAFKA_"):
            name = variable.removeprefix("KAFKA_").removesuffix("_FILE").lower().replace("_", ".")
            if name not in librdkafka:
                yield f"{where}: librdkafka has no property {name}"
        elif variable.startswith("GUESTKIT_") and variable not in known:
            yield f"{where}: no program reads {variable}"


def tool(name):
    return pathlib.Path(sys.executable).with_name(name)


def compose():
    run = subprocess.run(
        [tool("docker-compose"), "--file", ROOT / "docker-compose.yml", "--profile", "*", "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
    )
    if run.returncode != 0 or run.stderr.strip():
        yield run.stderr.strip() or f"docker compose config: exit code {run.returncode}"
        return
    services = json.loads(run.stdout)["services"]
    for name, service in services.items():
        if not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", service["image"]):
            yield f"{name}: image {service['image']} is not pinned"
        if "memory" not in service.get("deploy", {}).get("resources", {}).get("limits", {}):
            yield f"{name}: no memory limit"
        if service.get("privileged") or service.get("user", "").split(":")[0] in ("", "0", "root"):
            yield f"{name}: runs as root"
        if "no-new-privileges:true" not in service.get("security_opt", []) or "ALL" not in service.get("cap_drop", []):
            yield f"{name}: keeps privileges"
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and not volume.get("read_only"):
                yield f"{name}: {volume['source']} is mounted writable"
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            if condition == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name}: waits for the health of {other}, which has no check"
            if condition == "service_started":
                yield f"{name}: does not wait for {other} to be ready"
        stays = service.get("restart") == "unless-stopped"
        if stays and "healthcheck" not in service:
            yield f"{name}: no health check"
    # The rule sees through a mistake: an unknown key is refused by Compose itself.
    bad = subprocess.run(
        [tool("docker-compose"), "--file", "-", "config"],
        input="services: {x: {image: 'a:1', helthcheck: {}}}",
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
    )
    if bad.returncode == 0:
        yield "docker compose accepts an unknown key"


def dockerfile():
    path = ROOT / "deploy/Dockerfile"
    run = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "style", path], capture_output=True, text=True, timeout=TOOL_SECONDS
    )
    yield from (run.stdout + run.stderr).splitlines()
    if run.returncode != 0 and not run.stdout:
        yield f"hadolint: exit code {run.returncode}"
    text = path.read_text()
    members = re.search(r"^members = \[(.*)\]", (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    for member in re.findall(r'"([^"]+)"', members):
        if f"COPY {member}/Cargo.toml {member}/\n" not in text:
            yield f"deploy/Dockerfile does not copy the manifest of {member}"
    for word in ("<<", "--link", "# syntax="):
        if re.search(rf"^[^#].*{re.escape(word)}" if word != "# syntax=" else r"^# syntax=", text, re.M):
            yield f"deploy/Dockerfile uses {word}, which older engines refuse"


def runbook():
    """Each alert has its place in the operations guide, under its own name."""
    path = ROOT / "deploy/prometheus/rules/guestkit.yml"
    groups = yaml.safe_load(path.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    guide = (ROOT / "docs/operations.md").read_text()
    written = set(re.findall(r"(?m)^### (Guestkit\w+)$", guide))
    yield from (f"docs/operations.md has no ### {alert}" for alert in sorted(alerts - written))
    yield from (f"docs/operations.md has {alert}, which is no alert" for alert in sorted(written - alerts))


def autoscaler():
    """The settings of the chart as it is rendered, so that a changed value is judged."""
    yield from scaling.check([resource for _, _, resource in chart.documents({})])
