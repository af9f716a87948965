"""How many replicas KEDA and the autoscaler behind it would run: their arithmetic, without a cluster.

Of the lag: KEDA 2.20, `pkg/scalers/kafka_scaler.go` (`getLagForPartition`, `getTotalLag`). Of what follows from it: Kubernetes
1.35, `pkg/controller/podautoscaler` (`horizontal.go`, `replica_calculator.go`). All times are seconds since any moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.1
"""An average this near to its target changes nothing (the controller's default)."""


@dataclass(frozen=True, kw_only=True)
class KafkaTrigger:
    """A Kafka trigger as the charts write it: `allowIdleConsumers: "false"`, `scaleToZeroOnInvalidOffset: "false"`,
    `offsetResetPolicy: earliest`."""

    name: str
    lag_threshold: int
    limit_to_partitions_with_lag: bool = True
    exclude_persistent_lag: bool = True


@dataclass(frozen=True, kw_only=True)
class Lag:
    """What KEDA makes of the offsets of one trigger."""

    metric: int
    """Records. What the autoscaler divides by the threshold."""
    active: bool
    """Whether there has to be a replica."""


class LagReader:
    """One trigger's scaler. It remembers where the group stood: lag that nobody works on is no reason for more replicas."""

    def __init__(self, trigger: KafkaTrigger) -> None:
        self._trigger = trigger
        self._before: dict[int, int] = {}

    def read(self, committed: Mapping[int, int | None], ends: Mapping[int, int]) -> Lag:
        """`committed`: partition → next offset of the group, None where it never committed; `ends`: partition → next offset of
        the log."""
        trigger = self._trigger
        total = whole = lagging = 0
        for partition, end in ends.items():
            at = committed.get(partition)
            if at is None:  # nobody knows how much of it was read: all, says `earliest`
                lag = with_persistent = end
            else:
                with_persistent = lag = end - at
                if trigger.exclude_persistent_lag and self._before.get(partition) == at:
                    lag = 0
                self._before[partition] = at
            total += lag
            whole += with_persistent
            lagging += lag > 0
        most = lagging if trigger.limit_to_partitions_with_lag else len(ends)
        # KEDA divides whole numbers: up to one replica more than partitions passes.
        if total // trigger.lag_threshold > most:
            total = most * trigger.lag_threshold
        return Lag(metric=total, active=whole > 0)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One direction of an autoscaler's behaviour, with one policy of type Pods."""

    window: float
    """Seconds that all recommendations have to agree for."""
    pods: int
    period: float
    """Seconds in which at most `pods` come, or go."""


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """What the charts say (deploy/charts/common, `millstream.behavior`)."""

    up: Pace = Pace(window=30, pods=4, period=60)
    down: Pace = Pace(window=600, pods=1, period=120)


@dataclass(kw_only=True)
class Autoscaler:
    """The autoscaler that KEDA makes for a ScaledObject, and KEDA's own part of it, from none to one replica and back."""

    least: int
    most: int
    cooldown: float = 300
    """Seconds without anything to do until the last replica goes, where `least` is 0."""
    behavior: Behavior = Behavior()
    _said: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)
    _active_at: float = float("-inf")

    def activate(self, replicas: int, active: bool, now: float) -> int:
        """KEDA's part, once every `pollingInterval`: the first replica comes at once, the last goes after the cooldown."""
        if active:
            self._active_at = now
            return max(replicas, 1, self.least)
        if self.least == 0 and replicas and now - self._active_at >= self.cooldown:
            self._said.clear()
            return 0
        return max(replicas, self.least)

    def decide(self, replicas: int, wanted: Sequence[tuple[float, float]], now: float) -> int:
        """The autoscaler's part, every 15 s. `wanted`: (metric, threshold) of each trigger; the largest answer counts."""
        if replicas == 0:  # it is switched off then
            return 0
        proposals = [self._proposal(metric, threshold, replicas) for metric, threshold in wanted]
        steady = self._stable(replicas, max(proposals, default=replicas), now)
        least = max(1, self.least)
        up, down = self.behavior.up, self.behavior.down
        if steady > replicas:
            limit = max(replicas, replicas - self._net(up.period, now) + up.pods)
            found = min(steady, limit, self.most)
        else:
            limit = min(replicas, replicas - self._net(down.period, now) - down.pods)
            found = max(steady, limit, least)
        found = max(least, min(found, self.most))
        if found != replicas:
            self._changes.append((now, found - replicas))
        return found

    @staticmethod
    def _proposal(metric: float, threshold: float, replicas: int) -> int:
        if abs(metric / (threshold * replicas) - 1.0) <= TOLERANCE:
            return replicas
        return math.ceil(metric / threshold)

    def _stable(self, replicas: int, proposal: int, now: float) -> int:
        """Up by the lowest of what was said in the window, down by the highest."""
        up, down = self.behavior.up.window, self.behavior.down.window
        self._said = [(at, said) for at, said in self._said if at > now - max(up, down)]
        lowest = min([proposal, *(said for at, said in self._said if at > now - up)])
        highest = max([proposal, *(said for at, said in self._said if at > now - down)])
        self._said.append((now, proposal))
        return min(max(replicas, lowest), highest)

    def _net(self, period: float, now: float) -> int:
        """Replicas that came in this period, less those that went."""
        longest = max(self.behavior.up.period, self.behavior.down.period)
        self._changes = [(at, change) for at, change in self._changes if at > now - longest]
        return sum(change for at, change in self._changes if at > now - period)
