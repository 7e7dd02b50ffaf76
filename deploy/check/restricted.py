"""Pod security "restricted", whole, and what this project asks beyond it. Every rule answers with its breaches."""

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
# Volume types that "restricted" allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}
# Sysctls that the standard calls safe would go here; none is needed.


def breaches(resource):
    """Rule and place of each breach."""
    if resource["kind"] not in KINDS:
        return []
    spec = resource["spec"]["template"]["spec"]
    annotations = resource["spec"]["template"]["metadata"].get("annotations", {})
    found = [*_pod(spec)]
    found += [("appArmor", name) for name in annotations if name.startswith("container.apparmor.security.beta")]
    containers = [("containers", c) for c in spec["containers"]]
    containers += [("initContainers", c) for c in spec.get("initContainers", [])]
    containers += [("ephemeralContainers", c) for c in spec.get("ephemeralContainers", [])]
    for _, container in containers:
        found += [(rule, container["name"]) for rule in _container(container, spec.get("securityContext", {}))]
    return found


def _pod(spec):
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name, "pod"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls", "pod"
    if security.get("seLinuxOptions"):
        yield "seLinuxOptions", "pod"
    if security.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess", "pod"
    if security.get("runAsUser") == 0:
        yield "runAsUser 0", "pod"
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield kind, f"volume {volume['name']}"
    # Beyond the standard.
    if spec.get("automountServiceAccountToken") is not False:
        yield "service account token", "pod"
    if spec.get("enableServiceLinks") is not False:
        yield "service links", "pod"


def _container(container, pod):
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield "privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = security.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities added"
    if security.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    if security.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runAsUser 0"
    if security.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield "seccompProfile"
    if security.get("procMount", "Default") != "Default":
        yield "procMount"
    if security.get("seLinuxOptions"):
        yield "seLinuxOptions"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe, {}).get("httpGet", {}).get("host"):
            yield "probe host"
    # Beyond the standard.
    if security.get("readOnlyRootFilesystem") is not True:
        yield "root file system writable"
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}) or "memory" not in resources.get("requests", {}):
        yield "no memory request and limit"
    if "cpu" not in resources.get("requests", {}):
        yield "no cpu request"
