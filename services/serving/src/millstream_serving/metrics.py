"""What serving measures: kind, meaning, what to do when it rises."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_SECONDS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1.0)


class ServingMetrics:
    """Registered on the service's own registry. Loops are a closed set: the project's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.served = Counter(
            "millstream_predictions_served",
            "Questions that a model answered, by who did: `champion`, in a canary `challenger` too, and on watch `previous` "
            "where the new champion failed. Flat while questions come: see unanswered, and /readyz.",
            ["loop", "variant", "transport"],
            registry=registry,
        )
        self.unanswered = Counter(
            "millstream_questions_unanswered",
            "Questions without an answer. `no_model`: normal before the first model; `model_failed`: see GET /v1/loops; "
            "`stale_features`: features is behind; `unavailable`: callers were told 503 for want of the "
            "online store, Kafka, or a model that runs elsewhere.",
            ["loop", "reason", "transport"],
            registry=registry,
        )
        self.unlogged = Counter(
            "millstream_predictions_unlogged",
            "Answers that are on no record: given while Kafka was away and the buffer full, as the loop says "
            "(`predict.unlogged: answer`), or left at a stop. Above 0: drift and training miss them; see Kafka.",
            ["loop"],
            registry=registry,
        )
        self.log_bytes = Gauge(
            "millstream_prediction_log_bytes",
            "Answers that were given and that Kafka has not confirmed yet. A kill would lose them. Rises: Kafka is slow or "
            "away.",
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "millstream_predict_stage_seconds",
            "Time of one batch in each stage. `features` rises: the online store; `model` rises: the model or the batch. With "
            "a model on trial it is the time until both have answered.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "millstream_questions_shed",
            "Questions over HTTP that got no answer for want of time: `overloaded`, told at once, or past their `deadline`. "
            "Rises: add replicas, or see which stage is slow (millstream_predict_stage_seconds).",
            ["reason"],
            registry=registry,
        )
        self.stale = Counter(
            "millstream_questions_stale",
            "Questions whose features lagged beyond the loop's bound: flagged, refused, or made to wait (once each time they "
            "are looked at). Rises: features is behind, see its lag and millstream_view_lag_seconds.",
            ["loop", "outcome", "transport"],
            registry=registry,
        )
        self.featureless = Counter(
            "millstream_predictions_featureless",
            "Questions asked of the model with every feature null, because the online store did not answer and the loop says "
            "`predict.store_away: default`. Rises: see Valkey; what was answered meanwhile is a guess.",
            ["loop", "transport"],
            registry=registry,
        )
        self.view_lag = Gauge(
            "millstream_view_lag_seconds",
            "How far a view lagged behind the last questions; 0 within the loop's bound, a quiet stream included. Above 0: "
            "features misses events that a question should have seen; scale it, or see why it is stuck.",
            ["loop", "view"],
            registry=registry,
        )
        self.trial_failures = Counter(
            "millstream_trial_failures",
            "Questions that one of two models side by side gave no answer to, by its role: `raised`, `late`, `not_finite`. The "
            "other answered. Of a challenger: its guards end the trial; of a champion: it is on watch and will be rolled back.",
            ["loop", "role", "reason"],
            registry=registry,
        )
        self.trial_seconds = Histogram(
            "millstream_trial_model_seconds",
            "Time of a run of each of two models side by side, by its role. A challenger far above the champion: it will be "
            "late, and its guards end the trial.",
            ["loop", "role"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.revision = Gauge(
            "millstream_model_revision",
            "Revision of the model state that this replica obeys. Replicas that differ for long: see refused.",
            ["loop"],
            registry=registry,
        )
        self.load_seconds = Histogram(
            "millstream_model_load_seconds",
            "Time from hearing of a model to serving it. Rises: package storage is slow, or the model is large.",
            ["loop"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self.model_bytes = Gauge(
            "millstream_model_memory_bytes",
            "Memory that a loop's models take, measured as each was loaded; 0 while they are unloaded. The sum stays below "
            "MILLSTREAM_MODEL_MEMORY, where that is set. Near it: loops that are asked again are loaded again; raise it.",
            ["loop"],
            registry=registry,
        )
        self.unloaded = Counter(
            "millstream_models_unloaded",
            "Times that a loop's models gave way to another's; its next question loads them again. Rises all the time: the "
            "loops that are asked need more than MILLSTREAM_MODEL_MEMORY; raise it, or add replicas that answer some of them.",
            ["loop"],
            registry=registry,
        )
        self.refused = Counter(
            "millstream_models_refused",
            "Model states that could not be obeyed; the model before stays. Ever above zero: GET /v1/loops says why.",
            ["loop", "reason"],
            registry=registry,
        )
        self.remote = Counter(
            "millstream_remote_model_requests",
            "Requests to a model that runs elsewhere: `answered`, `failed`, `late`, and `not_asked` while its circuit is open. "
            "Anything but answered: see the endpoint; its questions go unanswered or another model answers.",
            ["loop", "outcome"],
            registry=registry,
        )
        self.remote_circuit = Gauge(
            "millstream_remote_model_circuit",
            "Whether a model that runs elsewhere is asked: 0 closed, it is; 1 half open, one question looks; 2 open, not. "
            "As of the last question. Above 0: the endpoint is away.",
            ["loop"],
            registry=registry,
        )
        self.explanations = Counter(
            "millstream_explanations",
            "Answers that were asked to explain themselves: `given`; `busy` or `late` where there was no time; `failed`. "
            "Busy or late for long: fewer questions should ask for it, or more replicas answer.",
            ["loop", "outcome"],
            registry=registry,
        )
