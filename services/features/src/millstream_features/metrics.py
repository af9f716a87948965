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
        self.lake_held = Gauge(
            "millstream_lake_held",
            "1 while a stream is not kept because its schema does not fit its table. Mend it before Kafka forgets what waits.",
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
            "Small files that became part of larger ones.",
            ["stream"],
            registry=registry,
        )
        self.lake_deleted = Counter(
            "millstream_lake_files_deleted", "Files deleted that nothing used any more.", ["stream"], registry=registry
        )
        self.lake_untidied = Counter(
            "millstream_lake_tidying_failed",
            "Times that a table could not be tidied; the log says why. It is tried again at the next time.",
            ["stream"],
            registry=registry,
        )
