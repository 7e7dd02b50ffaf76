"""How KEDA's Kafka scaler and the HorizontalPodAutoscaler decide, in their arithmetic; pure, time is an argument.

KEDA moves the workload between 0 and 1 by whether anything lags; the autoscaler between 1 and the most by how
much. Both are modelled from their documentation and KEDA's pkg/scalers/kafka_scaler.go.
"""

import math

# The autoscaler's own period and tolerance, defaults of kube-controller-manager.
SYNC_SECONDS = 15
TOLERANCE = 0.1


def metric(lags, settings):
    """The backlog as KEDA reports it: capped, so that nobody asks for more pods than partitions."""
    total = sum(lags)
    cap = settings.partitions
    if total // settings.lag_threshold > cap:
        total = cap * settings.lag_threshold
    return total


class Autoscaler:
    """Both parts over one workload. `step` once a second answers how many pods are wanted."""

    def __init__(self, settings):
        self.settings = settings
        self.last_active = None
        self.recommendations = []  # (time, pods)
        self.changes = []  # (time, pods more or fewer)

    def step(self, now, lags, replicas):
        """Replicas that are wanted at second `now`, of `replicas` now wanted."""
        if now % self.settings.polling == 0:
            replicas = self._keda(now, sum(lags), replicas)
        if now % SYNC_SECONDS == 0 and replicas > 0:
            replicas = self._autoscale(now, metric(lags, self.settings), replicas)
        return replicas

    def _keda(self, now, lag, replicas):
        settings = self.settings
        if lag > settings.activation_lag:
            self.last_active = now
            return replicas or max(settings.min_replicas, 1)
        idle = self.last_active is None or now - self.last_active >= settings.cooldown
        if replicas > 0 and settings.min_replicas == 0 and idle:
            # An autoscaler at zero forgets what it recommended.
            self.recommendations.clear()
            self.changes.clear()
            return 0
        return replicas

    def _autoscale(self, now, usage, replicas):
        settings = self.settings
        ratio = usage / (settings.lag_threshold * replicas)
        wanted = replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(usage / settings.lag_threshold)
        wanted = min(max(wanted, settings.min_replicas, 1), settings.max_replicas)
        self.recommendations.append((now, wanted))
        longest = max(settings.scale_in_window, settings.scale_out_window, 1)
        self.recommendations = [(t, n) for t, n in self.recommendations if now - t < longest]
        within = [n for t, n in self.recommendations if now - t < settings.scale_in_window] or [wanted]
        lowest = [n for t, n in self.recommendations if now - t < settings.scale_out_window] or [wanted]
        # Out only as far as asked for all the window long, in only as far as not asked for in any of it.
        if wanted > replicas:
            wanted = max(min(lowest), replicas)
        elif wanted < replicas:
            wanted = min(max(within), replicas)
        if wanted > replicas:
            wanted = min(wanted, self._out_limit(now, replicas))
        elif wanted < replicas:
            period = settings.scale_in_period
            wanted = max(wanted, self._at_start(now, replicas, period) - settings.scale_in_pods, 0)
            wanted = min(wanted, replicas)
        if wanted != replicas:
            self.changes.append((now, wanted - replicas))
        return wanted

    def _at_start(self, now, replicas, period):
        """How many there were when the period began."""
        return replicas - sum(n for t, n in self.changes if now - t < period)

    def _out_limit(self, now, replicas):
        limits = []
        for kind, value, period in self.settings.scale_out_policies:
            start = self._at_start(now, replicas, period)
            limits.append(start + value if kind == "Pods" else math.ceil(start * (1 + value / 100)))
        return max(limits)
