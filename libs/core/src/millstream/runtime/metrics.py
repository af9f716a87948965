"""Metrics that every service has: kind, meaning, and what to do when it rises. Labels come from closed sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class RuntimeMetrics:
    """Registered on the service's own registry, so nothing is registered by importing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.consumed = Counter(
            "millstream_records_consumed",
            "Records handled and committed. Falls to zero with lag left: see /livez.",
            ["topic", "group"],
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "millstream_batch_seconds",
            "Time to handle one batch, without the commit. Rises: a dependency is slow or batches are large.",
            ["topic", "group"],
            buckets=BATCH_SECONDS,
            registry=registry,
        )
        self.lag = Gauge(
            "millstream_consumer_lag_records",
            "Records in the topic that this consumer has yet to handle. Rises: add replicas, up to the partitions.",
            ["topic", "partition", "group"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "millstream_dead_letters",
            "Records that can never be handled, by reason. Rises: `millstream dlq list`, a producer is broken.",
            ["topic", "group", "reason"],
            registry=registry,
        )
        self.retries = Counter(
            "millstream_batch_retries",
            "Batches tried again because a dependency was away. Rises: see the log for which one.",
            ["topic", "group"],
            registry=registry,
        )
        self.published = Counter(
            "millstream_records_published",
            "Records confirmed by Kafka with acks=all. Flat while records are consumed: see publish_unknown, and the log.",
            ["topic"],
            registry=registry,
        )
        self.publish_unknown = Counter(
            "millstream_publish_unknown",
            "Records that Kafka did not confirm in time; they may or may not be there. Rises: Kafka is slow or away.",
            ["topic"],
            registry=registry,
        )
