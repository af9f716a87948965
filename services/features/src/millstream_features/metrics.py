"""What features measures: kind, meaning, what to do when it rises."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

READABLE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0)
"""At 10,000 events a second half are readable within 5 ms; a restart takes 12 s, and what is above a minute is an outage."""


class FeatureMetrics:
    """Registered on the service's own registry. Streams and views are closed sets: the project's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.applied = Counter(
            "millstream_events_applied",
            "Events merged into tiles. Flat with lag left: the store is slow or away.",
            ["stream"],
            registry=registry,
        )
        self._newest: dict[str, float] = {}
        """View → the newest known-at applied (seconds)."""
        self.repeated = Counter(
            "millstream_batches_repeated",
            "Batches that the fence found applied already. Rises without a restart: the group rebalances, see the log.",
            ["stream"],
            registry=registry,
        )
        self.late = Counter(
            "millstream_events_late",
            "Events too late for any window; they are in the lake. Rises: raise lateness, or find the slow producer.",
            ["stream"],
            registry=registry,
        )
        self.stream_time = Gauge(
            "millstream_stream_time_seconds",
            "Largest known-at applied. Falls behind the clock: features are stale.",
            ["stream"],
            registry=registry,
        )
        self.behind = Gauge(
            "millstream_view_behind_seconds",
            "Now minus the newest known-at applied; of several replicas the least holds. It grows in a quiet stream, too: "
            "stale is what has lag left (millstream_consumer_lag_records). Both rise: add replicas, or the store is slow.",
            ["view"],
            registry=registry,
        )
        self.readable = Histogram(
            "millstream_event_readable_seconds",
            "From Kafka's timestamp of an event until its windows can be read, for the slowest event of each step. Rises: the "
            "worker catches up, the store is slow, or a producer sends old timestamps.",
            ["view"],
            buckets=READABLE_SECONDS,
            registry=registry,
        )
        self.gaps = Counter(
            "millstream_offsets_lost",
            "Offsets that Kafka dropped before they were applied. Ever above zero: data was lost, raise the topic's retention.",
            ["stream"],
            registry=registry,
        )
        self.unfilled = Gauge(
            "millstream_view_unfilled",
            "1: the view is new or changed and cannot be read. Then run: millstream features rebuild --view NAME.",
            ["view"],
            registry=registry,
        )
        self.lake_rows = Counter(
            "millstream_lake_rows",
            "Rows appended to the lake. Flat while events are applied: see lake_held, and the lag of features-lake.",
            ["stream"],
            registry=registry,
        )
        self.lake_seconds = Histogram(
            "millstream_lake_append_seconds",
            "Time of one append. Rises: compact the table, or storage is slow.",
            ["stream"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=registry,
        )
        self.lake_waiting = Gauge(
            "millstream_lake_rows_waiting",
            "Rows read and not yet in the lake. Rises: the lake's storage is slow or away; Kafka keeps what is not read.",
            registry=registry,
        )
        self.lake_held = Gauge(
            "millstream_lake_held",
            "1 while a stream is not kept because its schema does not fit its table. Above 0: mend it before Kafka "
            "forgets what waits; `millstream check --lake` says what does not fit.",
            ["stream"],
            registry=registry,
        )
        self.lake_files = Gauge(
            "millstream_lake_files",
            "Files of the table when it was last tidied. Rises from day to day by more than the dates: compact by hand.",
            ["stream"],
            registry=registry,
        )
        self.lake_joined = Counter(
            "millstream_lake_files_joined",
            "Small files that became part of larger ones. Flat while lake_files rises: see lake_tidying_failed.",
            ["stream"],
            registry=registry,
        )
        self.lake_deleted = Counter(
            "millstream_lake_files_deleted",
            "Files deleted that nothing used any more. Flat for days: old versions fill the storage, see lake_tidying_failed.",
            ["stream"],
            registry=registry,
        )
        self.lake_untidied = Counter(
            "millstream_lake_tidying_failed",
            "Times that a table could not be tidied; it is tried again at the next time. Rises: the log says why.",
            ["stream"],
            registry=registry,
        )
        self.skew_checked = Counter(
            "millstream_skew_checked",
            "Predictions whose features were computed again from the lake. Flat: see skew_unchecked.",
            ["loop"],
            registry=registry,
        )
        self.skew_differing = Counter(
            "millstream_skew_differing",
            "Checked predictions with a feature that is another number offline. Rises: run millstream skew LOOP.",
            ["loop"],
            registry=registry,
        )
        self.skew_share = Gauge(
            "millstream_skew_share",
            "Share of the last 200 checked predictions that differ. Above the loop's drift.skew.bound: a verdict.",
            ["loop"],
            registry=registry,
        )
        self.skew_largest = Gauge(
            "millstream_skew_largest",
            "Largest absolute difference among the last 200 checked predictions; infinite beside a null. Large: run "
            "millstream skew LOOP.",
            ["loop", "view"],
            registry=registry,
        )
        self.skew_unchecked = Counter(
            "millstream_skew_unchecked",
            "Sampled predictions that could not be checked, by reason. `lake_behind` rises: see the lag of features-lake; "
            "`unavailable`, `failed`: the log says why.",
            ["loop", "reason"],
            registry=registry,
        )
        self.skew_verdicts = Counter(
            "millstream_skew_verdicts",
            "Verdicts about skew. `detected`: run millstream skew LOOP; `cleared` ends it.",
            ["loop", "finding"],
            registry=registry,
        )

    def applied_now(
        self, view: str, *, stream_time: float, slowest: float, clock: Callable[[], float] = time.time
    ) -> None:
        """A step of the store has made events of `view` readable: the newest known-at in it, and the oldest of Kafka's
        timestamps (both seconds)."""
        if view not in self._newest:
            self.behind.labels(view).set_function(lambda: clock() - self._newest[view])
        self._newest[view] = max(stream_time, self._newest.get(view, 0.0))
        self.readable.labels(view).observe(max(0.0, clock() - slowest))
