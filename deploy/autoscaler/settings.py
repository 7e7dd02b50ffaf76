"""What the rendered chart says about scaling one pool."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of ScaledObject, pod and worker; seconds and records."""

    min_replicas: int
    max_replicas: int
    polling: int
    cooldown: int
    lag_threshold: int
    activation_lag: int
    scale_in_window: int
    scale_in_pods: int
    scale_in_period: int
    scale_out_window: int
    # (type, value, period) each.
    scale_out_policies: tuple
    concurrency: int
    drain: int
    grace: int
    partitions: int

    @staticmethod
    def of(resources, name):
        """From the resources of the workload `name`; fails where the arithmetic here would not be that of the cluster."""
        found = {r["kind"]: r for r in resources if r["metadata"]["name"] == name}
        scaled = found["ScaledObject"]["spec"]
        behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        down, up = behavior["scaleDown"], behavior["scaleUp"]
        kafka = next(t for t in scaled["triggers"] if t["type"] == "kafka")
        data = kafka["metadata"]
        assert kafka["metricType"] == "AverageValue", "the target is a value for each pod"
        assert data["excludePersistentLag"] == "false", "a long job's partition would count as idle"
        assert data["allowIdleConsumers"] == "false"
        assert data["offsetResetPolicy"] == "earliest"
        assert up["selectPolicy"] == down["selectPolicy"] == "Max"
        assert [p["type"] for p in down["policies"]] == ["Pods"]
        setup = next(r for r in resources if r["kind"] == "Job")["spec"]["template"]["spec"]
        create = next(c["args"] for c in setup.get("initContainers", []) + setup["containers"] if c["name"] == "topics")
        pod = found["Deployment"]["spec"]["template"]["spec"]
        config = found["ConfigMap"]["data"]
        return Settings(
            min_replicas=scaled["minReplicaCount"],
            max_replicas=scaled["maxReplicaCount"],
            polling=scaled["pollingInterval"],
            cooldown=scaled["cooldownPeriod"],
            lag_threshold=int(data["lagThreshold"]),
            activation_lag=int(data["activationLagThreshold"]),
            scale_in_window=down["stabilizationWindowSeconds"],
            scale_in_pods=down["policies"][0]["value"],
            scale_in_period=down["policies"][0]["periodSeconds"],
            scale_out_window=up["stabilizationWindowSeconds"],
            scale_out_policies=tuple((p["type"], p["value"], p["periodSeconds"]) for p in up["policies"]),
            concurrency=int(config["GUESTKIT_CONCURRENCY"]),
            drain=int(config["GUESTKIT_DRAIN_TIMEOUT"].removesuffix("s")),
            grace=pod["terminationGracePeriodSeconds"],
            partitions=int(create[create.index("--partitions") + 1]),
        )
