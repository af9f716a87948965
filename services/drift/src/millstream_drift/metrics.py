"""Drift's own metrics. Labels are loops of the project and closed sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from millstream.contracts.events import ChallengerJudged
from millstream_drift.domain.join import Counts


class DriftMetrics:
    """Registered on the service's own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"millstream_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"millstream_{name}", meaning, labels, registry=registry)

        self._counts = {
            "questions": count(
                "drift_questions",
                "Questions heard, each once. Flat while serving answers: see the lag of drift, and drift_judges.",
                "loop",
            ),
            "matured": count(
                "labels_matured",
                "Questions that found their label in time. Flat: the label stream is silent, nothing is judged by its loss.",
                "loop",
            ),
            "expired": count(
                "labels_expired", "Questions whose label never came. Rises: the label stream loses events.", "loop"
            ),
            "late": count(
                "labels_late", "Labels after label.within. Rises: make it longer, or find the delay.", "loop"
            ),
            "orphaned": count(
                "labels_orphaned", "Labels without a question. Rises: questions are lost, or label.by differs.", "loop"
            ),
            "duplicated": count(
                "labels_duplicated",
                "Labels that came again; they count once. Rises: a producer of labels repeats itself.",
                "loop",
            ),
            "unlabelled": count(
                "labels_null",
                "Events of the label stream whose label is null. Rises beyond what is usual: the producer lost the field.",
                "loop",
            ),
            "repeated": count(
                "drift_questions_repeated",
                "Answers that came again; they count once. Rises without a restart: serving's group rebalances.",
                "loop",
            ),
            "evicted": count(
                "drift_evicted",
                "Questions and labels forgotten to bound memory. Any: label.within is too long.",
                "loop",
            ),
        }
        self._seen: dict[str, Counts] = {}
        self.pending = gauge(
            "labels_pending",
            "Questions still inside label.within. Rises for longer than that: labels do not come.",
            "loop",
        )
        self.judged = count(
            "windows_judged",
            "Verdicts by finding. `broken_data`: mend the field that it names; `detected`: see millstream why LOOP.",
            "loop",
            "kind",
            "finding",
        )
        self.corrected = count(
            "windows_corrected",
            "Judged windows that late labels corrected. Rises with labels_late: label.within is too short for some.",
            "loop",
        )
        self.effect = gauge(
            "drift_effect",
            "Effect of the last window, weighted PSI or loss increase. Rises: millstream report LOOP names the columns.",
            "loop",
            "kind",
        )
        self._compared = count(
            "challengers_judged",
            "Verdicts on a challenger, or a new champion on watch. `worse`: its trial ends by itself, see millstream why LOOP.",
            "loop",
            "finding",
        )
        self._pairs = gauge(
            "trial_pairs",
            "Labelled questions that both models of the last comparison answered. Flat in a trial: labels do not come.",
            "loop",
        )
        self._difference = gauge(
            "trial_loss_difference",
            "Mean loss of the newer model minus the older one's. Above 0: it is worse, the trial will end.",
            "loop",
        )
        self.unknown_loop = count(
            "drift_unknown_loop",
            "Predictions of loops that are not in the project; ignored. Any: drift and serving have different projects.",
        )
        self.unknown_type = count(
            "drift_unknown_type",
            "Events of a type that this release does not know; ignored. Any: a newer service runs beside it, upgrade drift.",
        )
        self.unjudged = count(
            "drift_predictions_unjudged",
            "Predictions of versions without a readable reference, in no window. Any: see the packages' folder and the log.",
            "loop",
        )
        self.dropped = gauge(
            "drift_rows_dropped",
            "Rows of windows that never got full: its version was forgotten or silent. Large: smaller windows (drift.window).",
            "loop",
        )
        self.lost = count(
            "drift_offsets_lost", "Records that Kafka deleted before drift read them. Any: lengthen the retention."
        )
        self.held = gauge(
            "drift_held_events",
            "Events that wait until their stream time is settled. Rises: a partition is quiet or behind, see the lag of drift.",
            "loop",
        )
        self.judges = gauge(
            "drift_judges",
            "1 where this replica judges the loop, 0 where another does. None for minutes: see /readyz of each; two: a second "
            "installation, or another SHARES.",
            "loop",
        )
        self.snapshot_bytes = gauge(
            "drift_snapshot_bytes",
            "Size of the last snapshot. Rises: shorter label.within or smaller windows.",
            "loop",
        )
        self.snapshot_failures = count(
            "drift_snapshot_failures",
            "Snapshots that could not be kept. Rises: Valkey is away, a crash reads more again.",
        )
        self.encode_seconds = Histogram(
            "millstream_drift_snapshot_seconds",
            "Time that a snapshot stops the fold. Rises: shorter label.within or smaller windows.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=registry,
        )
        self.reports = count(
            "drift_reports",
            "Evidently reports: made, skipped for a newer one, failed. `failed` rises: the log says why; no verdict waits.",
            "outcome",
        )
        self.contents = count(
            "drift_contents",
            "Windows whose texts and embeddings were compared, by outcome. `failed` rises: out of time or memory, see the log.",
            "loop",
            "outcome",
        )
        self.unseen = gauge(
            "drift_contents_unseen",
            "Windows whose content gave way to newer ones. Rises: windows close faster than they are compared.",
            "loop",
        )

    def resume(self, loop: str, counts: Counts) -> None:
        """Counters go on from a snapshot's counts: what was counted before the start is not counted again."""
        self._seen[loop] = Counts(*self._values(counts))

    def observe(self, loop: str, counts: Counts, pending: int, dropped: int, unseen: int) -> None:
        before = self._seen.get(loop) or Counts()
        values = zip(self._counts.values(), self._values(before), self._values(counts), strict=True)
        for counter, then, now in values:
            if now > then:
                counter.labels(loop).inc(now - then)
        self._seen[loop] = Counts(*self._values(counts))
        self.pending.labels(loop).set(pending)
        self.dropped.labels(loop).set(dropped)
        self.unseen.labels(loop).set(unseen)

    def compared(self, verdict: ChallengerJudged) -> None:
        self._compared.labels(verdict.loop, verdict.finding).inc()
        self._pairs.labels(verdict.loop).set(verdict.pairs)
        self._difference.labels(verdict.loop).set(verdict.difference)

    def _values(self, counts: Counts) -> list[int]:
        return [getattr(counts, name) for name in self._counts]
