"""Metrics of the trainer: kind, meaning, and what to do when it rises."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from millstream_trainer.domain.run import PHASES

RUN_SECONDS = (1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1800)


class TrainerMetrics:
    """Labels are loops of the project and closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "millstream_retrains_decided",
            "Decisions on retrain requests. Many declined: read the reasons at /v1/loops or in millstream-training.",
            ["loop", "cause", "decision"],
            registry=registry,
        )
        self.runs = Counter(
            "millstream_training_finished",
            "Runs that ended, by outcome. `failed` rises: the reason is in TrainingFinished; several `rejected` stop it.",
            ["loop", "outcome"],
            registry=registry,
        )
        self.run_seconds = Histogram(
            "millstream_training_seconds",
            "Wall seconds of a run from start to end. Rises: history grows, or the machine is shared.",
            ["loop"],
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self.untracked = Counter(
            "millstream_training_untracked",
            "Runs whose record in MLflow is missing or incomplete. Rises: MLflow is away or slow; no outcome depends on it.",
            ["loop"],
            registry=registry,
        )
        self.running = Gauge(
            "millstream_training_running",
            "1 while a run of the loop is under way. Stays: see millstream_training_phase; MILLSTREAM_RUN_TIMEOUT ends it.",
            ["loop"],
            registry=registry,
        )
        self._phase = Gauge(
            "millstream_training_phase",
            "1 for the part that the loop's run is in, else 0. Long in `dataset`: the lake lags or history grows; in `choice`: "
            "many candidates.",
            ["loop", "phase"],
            registry=registry,
        )
        self.champion_age = Gauge(
            "millstream_champion_age_seconds",
            "Stream time since the data of the champion ended. Rises without end: nothing is promoted; look at decisions.",
            ["loop"],
            registry=registry,
        )
        self.announce_retries = Counter(
            "millstream_training_announce_retries",
            "Times that a run's news waited for Kafka. Rises: Kafka is away; the run's result is kept and told later.",
            registry=registry,
        )
        self.moves = Counter(
            "millstream_rollout_moves",
            "Steps of rollouts, by where the version stands after it. `rejected` or `rolled_back` rises: millstream why"
            " says what was wrong with it.",
            ["loop", "step"],
            registry=registry,
        )
        self.on_trial = Gauge(
            "millstream_rollout_on_trial",
            "1 while a challenger is on trial. Stays: labels do not come, or the steps ask for many; rollout.longest ends it.",
            ["loop"],
            registry=registry,
        )
        self.share = Gauge(
            "millstream_rollout_share",
            "Share of entities that the challenger answers; 0 in the shadow and without a trial. Stays below its next step: "
            "labels do not come.",
            ["loop"],
            registry=registry,
        )
        self.held = Gauge(
            "millstream_rollout_held",
            "1 while a person froze the loop or pinned a version: nothing is promoted. Stays: somebody forgot to undo it.",
            ["loop"],
            registry=registry,
        )
        self.waiting = Gauge(
            "millstream_retrains_waiting",
            "Requests that wait: for labels, the end of quiet hours, or a person's word. Stays: /v1/loops says which.",
            ["loop"],
            registry=registry,
        )
        self.replicas = Gauge(
            "millstream_replicas_live",
            "Replicas of serving that spoke within 90 s. 0: serving is away, or cannot reach Kafka.",
            ["loop"],
            registry=registry,
        )
        self.replicas_behind = Gauge(
            "millstream_replicas_behind",
            "Live replicas that obey an older model state than the newest. Stays above 0: /v1/loops names them and why.",
            ["loop"],
            registry=registry,
        )

    def in_phase(self, loop: str, phase: str | None) -> None:
        """The loop's run is in `phase`; None: it has ended."""
        for name in PHASES:
            self._phase.labels(loop, name).set(name == phase)
