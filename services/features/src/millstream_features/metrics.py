"""What features measures: kind, meaning, what to do when it rises."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class FeatureMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.applied = Counter(
            "millstream_events_applied",
            "Events merged into tiles. Flat with lag left: the store is slow or away.",
            ["stream"],
            registry=registry,
        )
        self.repeated = Counter(
            "millstream_batches_repeated",
            "Batches that the fence found applied already. A few after each restart are normal.",
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
        self.gaps = Counter(
            "millstream_offsets_lost",
            "Offsets that Kafka dropped before they were applied. Ever above zero: data was lost, raise the topic's retention.",
            ["stream"],
            registry=registry,
        )
        self.lake_rows = Counter("millstream_lake_rows", "Rows appended to the lake.", ["stream"], registry=registry)
        self.lake_seconds = Histogram(
            "millstream_lake_append_seconds",
            "Time of one append. Rises: compact the table, or storage is slow.",
            ["stream"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=registry,
        )
        self.lake_waiting = Gauge(
            "millstream_lake_rows_waiting", "Rows read and not yet in the lake.", registry=registry
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
            "Largest absolute difference among the last 200 checked predictions; infinite beside a null.",
            ["loop", "view"],
            registry=registry,
        )
        self.skew_unchecked = Counter(
            "millstream_skew_unchecked",
            "Sampled predictions that could not be checked: lake_behind, unavailable, failed (the log says why).",
            ["loop", "reason"],
            registry=registry,
        )
        self.skew_verdicts = Counter(
            "millstream_skew_verdicts",
            "Verdicts about skew: detected, cleared.",
            ["loop", "finding"],
            registry=registry,
        )
