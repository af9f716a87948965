"""What ingest counts. Labels come from closed sets: the project's streams and the codes of `api/answers.py`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class IngestMetrics:
    """Registered on the service's own registry, so nothing is registered by importing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "millstream_events_accepted",
            "Events that Kafka confirmed. Falls to zero while rejected grows: a producer changed its format.",
            ["stream"],
            registry=registry,
        )
        self.rejected = Counter(
            "millstream_events_rejected",
            "Events that do not fit their stream, by reason. Rises: see the answers, or the producer's log.",
            ["stream", "reason"],
            registry=registry,
        )
        self.refused = Counter(
            "millstream_requests_refused",
            "Requests of which nothing was taken, by reason. `busy` rises: add replicas. `unknown`: Kafka is slow or away. "
            "`quota`: the log names who.",
            ["reason"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "millstream_ingest_request_seconds",
            "From the last byte of the body to the answer. Rises: Kafka confirms slowly, or batches are large.",
            ["route"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0),
            registry=registry,
        )
        self.replies_away = Counter(
            "millstream_ingest_replies_away",
            "Times that the store of shared replies did not answer. Rises: see MILLSTREAM_VALKEY; each replica knows its own.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "millstream_ingest_requests_in_flight",
            "Requests under way, from the last byte of their bodies on. Stays at the limit: add replicas, or find the producer "
            "that does not wait.",
            registry=registry,
        )
        self.bytes_in_flight = Gauge(
            "millstream_ingest_bytes_in_flight",
            "Bytes of bodies under way, from their first one on. Stays at the limit while few requests are under way: somebody "
            "sends slowly, and gives way after two seconds.",
            registry=registry,
        )
        self.quotas_away = Counter(
            "millstream_ingest_quotas_away",
            "Times that the store of shared quotas did not answer. Rises: see MILLSTREAM_VALKEY; each replica "
            "counts for itself, so that together they let more through.",
            registry=registry,
        )
        self.jwks_failed = Counter(
            "millstream_ingest_jwks_failed",
            "Times that the issuer's keys could not be read. Rises: see MILLSTREAM_JWT_JWKS; after a day tokens are refused.",
            registry=registry,
        )
        self.behind = Gauge(
            "millstream_ingest_downstream_behind",
            "1 while features is behind with the stream by more than MILLSTREAM_MAX_DOWNSTREAM_LAG, which is answered 429. "
            "Stays: add replicas of features.",
            ["stream"],
            registry=registry,
        )
        self.lag_unknown = Counter(
            "millstream_ingest_downstream_unknown",
            "Times that Kafka did not say how far features is. Rises: see the log; meanwhile no lag refuses anything.",
            registry=registry,
        )
