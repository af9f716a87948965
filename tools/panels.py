"""What the dashboards show: of a loop and of scaling as it is written here, of a service each of its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alerts import RECORDED, objectives
from metrics_table import Declared

UNITS = {"seconds": "s", "bytes": "bytes", "share": "percentunit"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph. `asks` are queries with the text of their lines; what they ask of is said below its title."""

    title: str
    asks: Sequence[tuple[str, str]]
    unit: str = "short"
    steady: bool = False
    """One large number instead of lines."""


def over(how: str, by: Sequence[str], what: str) -> str:
    return f"{how} by ({', '.join(by)}) ({what})" if by else f"{how}({what})"


def rate(name: str, *by: str, where: str = "") -> str:
    return over("sum", by, f"rate({name}{where}[$__rate_interval])")


def slow(name: str, *by: str) -> str:
    """The 99th percentile."""
    return f"histogram_quantile(0.99, {rate(f'{name}_bucket', 'le', *by)})"


def lines(*labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def panel_of(metric: Declared) -> Panel:
    """A metric as its kind is read: a counter by its rate, a histogram by its slowest hundredth, a gauge as it is."""
    by = [label for label in metric.labels if label != "partition"]
    title = metric.name.removeprefix("millstream_").removesuffix("_total").replace("_", " ")
    unit = UNITS.get(metric.name.rsplit("_", 1)[-1], "short")
    if metric.kind == "counter":
        return Panel(title=f"{title}, a second", asks=[(rate(metric.name, *by), lines(*by) or title)])
    if metric.kind == "histogram":
        return Panel(title=f"{title}, 99 %", asks=[(slow(metric.name, *by), lines(*by) or title)], unit="s")
    how = "sum" if "partition" in metric.labels else "max"
    return Panel(title=title, asks=[(over(how, by, metric.name), lines(*by) or title)], unit=unit)


PROCESS = (
    Panel(title="replicas", asks=[('sum by (job) (up{job=~"$job"})', lines("job"))]),
    Panel(
        title="memory",
        asks=[('max by (job, instance) (process_resident_memory_bytes{job=~"$job"})', lines("job", "instance"))],
        unit="bytes",
    ),
    Panel(
        title="CPU cores",
        asks=[
            (
                'sum by (job, instance) (rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval]))',
                lines("job", "instance"),
            )
        ],
    ),
)
LOOP = {
    "Is it well": (
        Panel(
            title="alerts that fire",
            asks=[('count(ALERTS{alertname=~"Millstream.+", alertstate="firing"}) or vector(0)', "alerts")],
            steady=True,
        ),
        Panel(
            title="error budget left of 30 days",
            asks=[
                (f'1 - avg_over_time({RECORDED}1h{{slo="{slo.slo}"}}[30d]) / {slo.budget:g}', slo.slo)
                for slo in objectives()
            ],
            unit="percentunit",
            steady=True,
        ),
        Panel(title="bad events, last hour", asks=[(f"{RECORDED}1h", lines("slo"))], unit="percentunit"),
    ),
    "Answers": (
        Panel(
            title="answers a second, by who gave them",
            asks=[(rate("millstream_predictions_served_total", "loop", "variant"), lines("loop", "variant"))],
        ),
        Panel(
            title="questions without an answer",
            asks=[(rate("millstream_questions_unanswered_total", "loop", "reason"), lines("loop", "reason"))],
        ),
        Panel(title="skew", asks=[("max by (loop) (millstream_skew_share)", lines("loop"))], unit="percentunit"),
    ),
    "What came true, and what drifted": (
        Panel(
            title="questions that found their label, and that never did",
            asks=[
                (rate("millstream_labels_matured_total", "loop"), "matured {{loop}}"),
                (rate("millstream_labels_expired_total", "loop"), "expired {{loop}}"),
            ],
        ),
        Panel(
            title="effect of the last window",
            asks=[("max by (loop, kind) (millstream_drift_effect)", lines("loop", "kind"))],
        ),
        Panel(
            title="verdicts",
            asks=[
                (
                    "sum by (loop, finding) (increase(millstream_windows_judged_total[$__rate_interval]))",
                    lines("loop", "finding"),
                )
            ],
        ),
    ),
    "Learning": (
        Panel(
            title="decisions",
            asks=[
                (
                    "sum by (loop, cause, decision) (increase(millstream_retrains_decided_total[$__rate_interval]))",
                    lines("loop", "cause", "decision"),
                )
            ],
        ),
        Panel(
            title="runs, by outcome",
            asks=[
                (
                    "sum by (loop, outcome) (increase(millstream_training_finished_total[$__rate_interval]))",
                    lines("loop", "outcome"),
                )
            ],
        ),
        Panel(
            title="phase of the run",
            asks=[("max by (loop, phase) (millstream_training_phase) > 0", lines("loop", "phase"))],
        ),
    ),
    "Rollout": (
        Panel(
            title="share that the challenger answers",
            asks=[("max by (loop) (millstream_rollout_share)", lines("loop"))],
            unit="percentunit",
        ),
        Panel(
            title="steps",
            asks=[
                (
                    "sum by (loop, step) (increase(millstream_rollout_moves_total[$__rate_interval]))",
                    lines("loop", "step"),
                )
            ],
        ),
        Panel(
            title="loss of the newer model minus the older's",
            asks=[("max by (loop) (millstream_trial_loss_difference)", lines("loop"))],
        ),
        Panel(
            title="replicas, and those that are behind",
            asks=[
                ("min by (loop) (millstream_replicas_live)", "live {{loop}}"),
                ("max by (loop) (millstream_replicas_behind)", "behind {{loop}}"),
            ],
        ),
        Panel(
            title="age of the champion's data",
            asks=[("max by (loop) (millstream_champion_age_seconds)", lines("loop"))],
            unit="s",
        ),
        Panel(title="held by a person", asks=[("max by (loop) (millstream_rollout_held)", lines("loop"))]),
    ),
}
SCALING = {
    "Who there is": PROCESS,
    "Kafka: what waits, and how fast it goes": (
        Panel(
            title="lag by group",
            asks=[("sum by (group, topic) (millstream_consumer_lag_records)", lines("group", "topic"))],
        ),
        Panel(
            title="records a second",
            asks=[(rate("millstream_records_consumed_total", "group", "topic"), lines("group", "topic"))],
        ),
        Panel(
            title="seconds until the lag is gone",
            asks=[
                (
                    "sum by (group, topic) (millstream_consumer_lag_records)"
                    f" / {rate('millstream_records_consumed_total', 'group', 'topic')}",
                    lines("group", "topic"),
                )
            ],
            unit="s",
        ),
        Panel(
            title="the partition with the largest lag",
            asks=[("max by (group, topic) (millstream_consumer_lag_records)", lines("group", "topic"))],
        ),
        Panel(title="a batch, 99 %", asks=[(slow("millstream_batch_seconds", "group"), lines("group"))], unit="s"),
        Panel(title="batches tried again", asks=[(rate("millstream_batch_retries_total", "group"), lines("group"))]),
    ),
    "HTTP: what is under way, and what is turned away": (
        Panel(
            title="requests to ingest under way",
            asks=[("max by (instance) (millstream_ingest_requests_in_flight)", lines("instance"))],
        ),
        Panel(
            title="refused by ingest, shed by serving",
            asks=[
                (rate("millstream_requests_refused_total", "reason", where='{reason="busy"}'), "ingest {{reason}}"),
                (rate("millstream_questions_shed_total", "reason"), "serving {{reason}}"),
            ],
        ),
        Panel(
            title="told to wait for features",
            asks=[("max by (stream) (millstream_ingest_downstream_behind)", lines("stream"))],
        ),
        Panel(
            title="a stage of serving, 99 %",
            asks=[(slow("millstream_predict_stage_seconds", "stage"), lines("stage"))],
            unit="s",
        ),
        Panel(
            title="an answer of ingest, 99 %",
            asks=[(slow("millstream_ingest_request_seconds", "route"), lines("route"))],
            unit="s",
        ),
        Panel(
            title="from Kafka until it can be read, 99 %",
            asks=[(slow("millstream_event_readable_seconds", "view"), lines("view"))],
            unit="s",
        ),
    ),
}
