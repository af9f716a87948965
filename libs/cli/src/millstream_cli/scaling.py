"""A scaler over a traffic trace, second by second: records come, replicas work them off, KEDA looks and decides."""

from __future__ import annotations

import csv
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from millstream_cli.autoscaler import Autoscaler, KafkaTrigger, Lag, LagReader

SYNC = 15
"""Seconds between two looks of the autoscaler (the controller's default)."""
RATE_OVER = 120
"""Seconds that the charts' query of the rate looks back."""
LONGEST = 7 * 86_400
"""Seconds of a trace: a step a second stays within a minute."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """What one trigger looks at."""

    trigger: KafkaTrigger
    partitions: int
    records_per_second: float
    """Of one replica."""
    rate_per_replica: float | None = None
    """Records a second that were worked off lately ask for a replica each so many; None: the lag alone counts."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What no values file says."""

    start: int = 30
    """Seconds until a new replica works."""
    pause: int = 3
    """Seconds that the whole group stands still when a replica comes or goes."""
    skew: float = 0.0
    """Share of the traffic that all goes to the first partition; the rest is spread evenly."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One second."""

    rate: float
    lag: float
    """Records, of the topic that is furthest behind."""
    replicas: int
    """As the Deployment has it; the newest do not work yet."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    moments: Sequence[Moment]
    left: float
    """Records that nobody has worked off at the end."""

    @property
    def changes(self) -> list[tuple[int, int, int]]:
        """(second, replicas before, after)."""
        pairs = enumerate(pairwise(m.replicas for m in self.moments), 1)
        return [(second, before, after) for second, (before, after) in pairs if before != after]

    def flaps(self, within: int = 900) -> int:
        """How often a replica came and one went, or the other way round, in so many seconds."""
        turns = [(second, after > before) for second, before, after in self.changes]
        return sum(up != was and second - at <= within for (at, was), (second, up) in pairwise(turns))

    @property
    def replica_hours(self) -> float:
        return sum(m.replicas for m in self.moments) / 3600

    def behind(self, records: float) -> int:
        """Seconds with more lag than that."""
        return sum(m.lag > records for m in self.moments)


def simulate(
    rates: Sequence[float], topics: Sequence[Topic], scaler: Autoscaler, *, polling: int, world: World | None = None
) -> Outcome:
    """`rates`: records that come in each second, into every topic. `polling`: seconds between two looks of KEDA itself."""
    world = world or World()
    groups = [_Group(topic, world) for topic in topics]
    replicas = max(scaler.least, 0)
    working, ready_at, paused = replicas, [0] * replicas, 0
    moments: list[Moment] = []
    for now, rate in enumerate(rates):
        wanted = replicas
        for group in groups:
            # Before the look: what came in this second is not committed yet, so that a partition that keeps up has a lag too.
            group.receive(rate)
        if now % SYNC == 0:
            # KEDA answers the autoscaler by a look of its own; only whether there has to be any replica waits for its turn.
            lags = [group.look() for group in groups]
            if now % max(SYNC, polling) == 0:
                wanted = scaler.activate(replicas, any(lag.active for lag in lags), now)
            if replicas and wanted:
                asked: list[tuple[float, float]] = []
                for lag, group in zip(lags, groups, strict=True):
                    asked.append((lag.metric, group.topic.trigger.lag_threshold))
                    if group.topic.rate_per_replica is not None:
                        asked.append((group.rate, group.topic.rate_per_replica))
                wanted = scaler.decide(replicas, asked, now)
        if wanted > replicas:
            ready_at += [now + world.start] * (wanted - replicas)
        elif wanted < replicas:
            del ready_at[wanted:]
        replicas = wanted
        there = sum(at <= now for at in ready_at)
        if there != working:
            working, paused = there, now + world.pause
        for group in groups:
            group.work(working if now >= paused else 0)
        moments.append(Moment(rate=rate, lag=max(group.lag for group in groups), replicas=replicas))
    return Outcome(moments=moments, left=max(group.lag for group in groups))


class _Group:
    """A consumer group on a topic: each partition belongs to one replica, as evenly as it goes."""

    def __init__(self, topic: Topic, world: World) -> None:
        self.topic = topic
        first, even = world.skew, (1.0 - world.skew) / topic.partitions
        self._shares = [first * (n == 0) + even for n in range(topic.partitions)]
        self._ends = [0.0] * topic.partitions
        self._done = [0.0] * topic.partitions
        self._reader = LagReader(topic.trigger)
        self._was: deque[float] = deque([0.0], maxlen=RATE_OVER + 1)
        """Records that were worked off by the end of each of the last seconds."""

    @property
    def lag(self) -> float:
        return sum(self._ends) - sum(self._done)

    @property
    def rate(self) -> float:
        """Records a second that were worked off lately, as Prometheus tells it."""
        return (self._was[-1] - self._was[0]) / RATE_OVER

    def receive(self, records: float) -> None:
        self._ends = [end + records * share for end, share in zip(self._ends, self._shares, strict=True)]

    def work(self, replicas: int) -> None:
        """A second of it. A replica gives each of its partitions a share by what lies there, as polls do."""
        for replica in range(min(replicas, self.topic.partitions)):
            mine = range(replica, self.topic.partitions, replicas)
            lags = [self._ends[n] - self._done[n] for n in mine]
            part = min(1.0, self.topic.records_per_second / max(sum(lags), 1e-9))
            for n, lag in zip(mine, lags, strict=True):
                self._done[n] += lag * part
        self._was.append(sum(self._done))

    def look(self) -> Lag:
        ends = {n: math.floor(end) for n, end in enumerate(self._ends)}
        return self._reader.read({n: min(ends[n], math.floor(done)) for n, done in enumerate(self._done)}, ends)


Shape = Callable[[float], float]
"""Share of the day (0 to 1) → share of the peak."""
SHAPES: dict[str, Shape] = {
    "day": lambda at: 0.1 + 0.45 * (1.0 - math.cos(2.0 * math.pi * at)),
    "saw": lambda at: (at * 24.0) % 1.0,
    "burst": lambda at: 1.0 if at % (1 / 6) < 1 / 144 else 0.1,
}
"""`day`: one hill, a tenth of the peak at night. `saw`: up to the peak each hour. `burst`: ten minutes of it in every four
hours."""


def shaped(shape: str, peak: float, seconds: int = 86_400) -> list[float]:
    """Records a second of a made-up trace."""
    return [peak * SHAPES[shape](second % 86_400 / 86_400) for second in range(seconds)]


def traced(path: Path) -> list[float]:
    """Records a second by a CSV file with the columns `second` and `rate`; a rate holds until the next line's second.

    Raises ValueError, which says what is wrong and where.
    """
    found: list[tuple[int, float]] = []
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if not {"second", "rate"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: the first line has to name the columns: second,rate")
        for row in rows:
            try:
                second, rate = float(row["second"]), float(row["rate"])
            except (TypeError, ValueError):
                raise ValueError(
                    f"{path}:{rows.line_num}: {row['second']!r}, {row['rate']!r} are no numbers; write 60,2500"
                ) from None
            if not (0 <= second <= LONGEST and 0 <= rate < math.inf) or (found and second <= found[-1][0]):
                raise ValueError(
                    f"{path}:{rows.line_num}: seconds go up, from 0 to {LONGEST} (a week), and no rate is below 0"
                )
            found.append((int(second), rate))
    if len(found) < 2:
        raise ValueError(f"{path}: a trace has two lines at least, the last says where it ends")
    start = found[0][0]
    rates = [0.0] * start
    for (begin, rate), (end, _) in pairwise(found):
        rates += [rate] * (end - begin)
    return rates
