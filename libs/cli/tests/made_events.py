"""Events made by hand: a small language for the stories that a loop can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from millstream.contracts.events import (
    BrokenField,
    Cause,
    ChallengerJudged,
    ColumnDrift,
    Decision,
    Event,
    Finding,
    GateCheck,
    LabelsMatured,
    ModelRef,
    ModelState,
    Outcome,
    ReplicaObeyed,
    RetrainDecided,
    RetrainRequested,
    RolloutAction,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    SkewJudged,
    Step,
    TrainingFinished,
    TrainingStarted,
    TrialFinding,
    WindowCorrected,
    WindowJudged,
    WindowKind,
)
from millstream_cli.journal import Told

LOOP = "flight-delay"
START = datetime(2013, 6, 1, tzinfo=UTC)
WINDOW = timedelta(days=2)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def ref(version: str, at: datetime = START) -> ModelRef:
    return ModelRef(version=version, run=f"run{version}", uri=f"file:///models/{version}", sha256="0" * 64, at=at)


@dataclass
class Journal:
    """Notes events as the services would say them; each method gives the id of what it noted."""

    told: list[Told] = field(default_factory=list)
    revision: int = 0

    def note(self, event: Event, caused_by: str | None = None) -> str:
        id = str(event.id)  # type: ignore[attr-defined]
        self.told.append(Told(id, caused_by, event))
        return id

    def window(self, at: float, finding: Finding, effect: float, version: str = "1", **other: Any) -> str:
        kind = other.pop("kind", WindowKind.INPUTS)
        default = [ColumnDrift(column="distance", psi=effect, missing=0.0, reference_missing=0.0, importance=0.4)]
        columns = other.pop("columns", default if kind is WindowKind.INPUTS else [])
        return self.note(
            WindowJudged(
                id=f"{kind.value}-{version}-{at:g}",
                loop=LOOP,
                version=version,
                kind=kind,
                index=int(at),
                finding=finding,
                reason=other.pop("reason", f"effect {effect:.3f}"),
                at=day(at),
                start=other.pop("start", day(at) - WINDOW),
                end=day(at),
                rows=5000,
                effect=effect,
                columns=columns,
                **other,
            ),
            "flight-1",
        )

    def labels(self, at: float, matured: int = 21000, duplicated: int = 0) -> str:
        return self.note(
            LabelsMatured(
                id=f"labels-{at:g}",
                loop=LOOP,
                at=day(at),
                matured=matured,
                pending=300,
                expired=40,
                late=2,
                orphaned=1,
                duplicated=duplicated,
            )
        )

    def performance(
        self, at: float, loss: float, version: str = "1", finding: Finding = Finding.HEALTHY, **more: float
    ) -> str:
        """`more` metrics, as `whole_rows` of the window's 5,000."""
        metrics = {"log_loss": loss, "low": loss - 0.01, "high": loss + 0.01} | more
        return self.window(at, finding, loss / 0.45 - 1, version, kind=WindowKind.PERFORMANCE, metrics=metrics)

    def corrected(self, at: float, of: float, was: Finding, finding: Finding, version: str = "1") -> str:
        """Late labels, for the performance window that was judged on day `of`."""
        return self.note(
            WindowCorrected(
                id=f"corrected-{of:g}-{at:g}",
                loop=LOOP,
                version=version,
                index=int(of),
                corrects=f"performance-{version}-{of:g}",
                at=day(at),
                labels=180,
                rows=5180,
                was=was,
                finding=finding,
                reason="180 labels came late: log loss 0.4912 of 5180 rows",
                before={"log_loss": 0.45},
                after={"log_loss": 0.4912},
            )
        )

    def broken(self, at: float) -> str:
        field_ = BrokenField(
            column="distance",
            stream="flights-scheduled",
            field="distance",
            producer="tower-3",
            detail="41% missing, 0% in training",
        )
        return self.window(
            at, Finding.BROKEN_DATA, 0.9, broken=[field_], reason="distance: 41% missing, 0% in training"
        )

    def decided(self, at: float, request: str, decision: Decision, cause: Cause = Cause.DRIFT, **other: Any) -> str:
        run = other.pop("run", None)
        return self.note(
            RetrainDecided(
                id=other.pop("id", f"decided-{request}"),
                loop=LOOP,
                request=request,
                cause=cause,
                decision=decision,
                reason=other.pop("reason", "effect 0.310 in 2 of 3 windows"),
                at=day(at),
                run=run,
                **other,
            ),
            request,
        )

    def trained(
        self,
        at: float,
        version: str,
        outcome: Outcome,
        *,
        passed: bool = True,
        cause: str = "",
        metrics: dict[str, float] | None = None,
    ) -> str:
        started = self.note(
            TrainingStarted(id=f"started-{version}", loop=LOOP, run=f"run{version}", attempt=1, at=day(at)), cause
        )
        check = GateCheck(
            name="log_loss",
            passed=passed,
            champion=0.51,
            challenger=0.48,
            detail="0.4800 against 0.5100 of the champion",
        )
        return self.note(
            TrainingFinished(
                id=f"finished-{version}",
                loop=LOOP,
                run=f"run{version}",
                attempt=1,
                outcome=outcome,
                reason="log loss 0.4800, the champion has 0.5100",
                at=day(at),
                version=None if outcome is Outcome.FAILED else version,
                rows=45123,
                seconds=2.5,
                metrics=metrics or {"log_loss": 0.48},
                gate=[check],
                mlflow_run=None,
            ),
            started,
        )

    def judged(self, at: float, pairs: int, difference: float, *, version: str = "2", **other: Any) -> str:
        watch = other.pop("watch", False)
        return self.note(
            ChallengerJudged(
                id=f"judged-{version}-{watch}-{pairs}",
                loop=LOOP,
                version=version,
                against=other.pop("against", "1"),
                watch=watch,
                finding=other.pop("finding", TrialFinding.UNDECIDED),
                reason=other.pop("reason", "the interval holds zero"),
                at=day(at),
                questions=pairs + 200,
                answered=0,
                pairs=pairs,
                difference=difference,
                low=difference - 0.02,
                high=difference + 0.02,
                loss=0.5,
                error_rate=0.05,
                **other,
            )
        )

    def moved(self, at: float, before: Step, step: Step, *, version: str = "2", cause: str, **other: Any) -> str:
        self.revision += 1
        share = other.pop("share", 0.0)
        reason = other.pop("reason", "as the rollout has it")
        by = other.pop("by", "")
        numbers = other.pop("numbers", {})
        old = other.pop("champion", "1")
        moved = self.note(
            RolloutMoved(
                id=f"moved-{self.revision}",
                loop=LOOP,
                revision=self.revision,
                run=f"run{version}",
                version=version,
                step=step,
                before=before,
                share=share,
                reason=reason,
                at=day(at),
                model=ref(version),
                by=by,
                numbers=numbers,
            ),
            cause,
        )
        answers = version if step is Step.CHAMPION else old
        on_trial = ref(version) if step in (Step.SHADOW, Step.CANARY) else None
        self.state(at, step, answers, challenger=on_trial, share=share, cause=moved, **other)
        return moved

    def state(self, at: float, step: Step, champion: str, *, cause: str = "", **other: Any) -> str:
        if not cause:
            self.revision += 1
        return self.note(
            ModelState(
                id=f"state-{self.revision}",
                loop=LOOP,
                revision=self.revision,
                step=step,
                champion=ref(champion),
                challenger=other.pop("challenger", None),
                previous=other.pop("previous", None),
                reason="because",
                at=day(at),
                **other,
            ),
            cause,
        )

    def retrain(self, id: str, cause: Cause = Cause.MANUAL, by: str = "Ada", reason: str = "the new runway") -> str:
        return self.note(RetrainRequested(id=id, loop=LOOP, cause=cause, by=by, reason=reason))

    def approved(self, run: str) -> str:
        return self.note(RunApproved(id=f"approved-{run}", loop=LOOP, run=run, by="Grace", reason="looks right"))

    def wants(self, action: RolloutAction, reason: str) -> str:
        return self.note(
            RolloutRequested(id=f"wants-{action.value}", loop=LOOP, action=action, by="Ada", reason=reason)
        )

    def skew(self, at: float, finding: Finding) -> str:
        return self.note(
            SkewJudged(
                id=f"skew-{at:g}",
                loop=LOOP,
                finding=finding,
                reason="3 of 100 differ",
                at=day(at),
                start=day(at - 1),
                end=day(at),
                checked=100,
                differing=3,
                bound=0.01,
            )
        )

    def obeyed(self, at: float, instance: str, revision: int, **other: Any) -> str:
        return self.note(
            ReplicaObeyed(
                id=f"{instance}-{at:g}",
                loop=LOOP,
                instance=instance,
                revision=revision,
                version="1",
                at=day(at),
                **other,
            )
        )


def first_model(journal: Journal) -> None:
    """Version 1 answers from day 0 on."""
    asked = journal.labels(0)
    decided = journal.decided(0, asked, Decision.ACCEPTED, Cause.FIRST_MODEL, run="run1", reason="21000 labels")
    started = journal.trained(0, "1", Outcome.PROMOTED, cause=decided)
    journal.state(0, Step.CHAMPION, "1", cause="")
    assert started
    journal.performance(3, 0.45)
    journal.performance(5, 0.46)


def drifted(journal: Journal) -> str:
    """Version 1 is suspected on day 8 and detected on day 10; the id of the detection."""
    journal.window(4, Finding.HEALTHY, 0.02)
    journal.window(6, Finding.HEALTHY, 0.03)
    journal.window(8, Finding.SUSPECTED, 0.25)
    journal.performance(9, 0.55)
    return journal.window(10, Finding.DETECTED, 0.31)


def on_trial(journal: Journal) -> str:
    """Drift led to version 2, which passed the gate and is in the shadow from day 10 on; the id of that step."""
    first_model(journal)
    verdict = drifted(journal)
    decided = journal.decided(10, verdict, Decision.ACCEPTED, run="run2")
    finished = journal.trained(10, "2", Outcome.ON_TRIAL, cause=decided)
    return journal.moved(10, Step.REGISTERED, Step.SHADOW, cause=finished)


def promoted(journal: Journal) -> str:
    """Version 2 went through shadow and canary and answers from day 15 on; the id of that step."""
    on_trial(journal)
    looked = journal.judged(12, 1000, -0.015)
    journal.moved(12, Step.SHADOW, Step.CANARY, share=0.1, cause=looked)
    looked = journal.judged(15, 1500, -0.025, finding=TrialFinding.BETTER, reason="below zero")
    return journal.moved(
        15, Step.CANARY, Step.CHAMPION, cause=looked, previous=ref("1"), watch_until=day(17), reason="better by 0.025"
    )
