"""May the loop learn again? One decision per request, always with its reason and the numbers behind it.

Everything is counted in stream time, so a year replayed in minutes is decided as the year was. In this order:

1. a cause that `retrain.on` does not list is declined, and so is a verdict that the data itself is broken;
2. while a run is under way every request joins it: coalesced;
3. a verdict on a version that no longer answers is declined;
4. broken inputs block drift, performance and schedule until a later inputs window is whole, drifting or not;
5. after three rejected challengers in a row only a person may ask;
6. within the cooldown of the last run, and past the budget of the period, requests are declined.

A person passes 4, 5 and the cooldown, since somebody looked; nobody passes the budget.

Skew between online and offline features (`millstream-skew`) is not heard: it asks for nothing, since a run learns from the
lake and no fit mends a tile, and it blocks nothing, since what it says is a sample's and not a fact of the replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Cause,
    Decision,
    Finding,
    LabelsMatured,
    RetrainDecided,
    RetrainRequested,
    WindowJudged,
    WindowKind,
)
from millstream.contracts.times import DAY, from_datetime, to_datetime
from millstream_trainer.domain.state import LoopState, run_name

REJECTED_IN_A_ROW = 3
"""One rejection is a bad week, three are a loop that a retrain does not cure: stop and let a person look."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the loop's file says about retraining. Durations in microseconds."""

    first_rows: int
    schedule: int | None
    cooldown: int
    budget_runs: int
    budget_period: int
    causes: frozenset[Cause]
    """`retrain.on`; the first model needs no permission."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Somebody or something asks for a retrain."""

    request: str
    loop: str
    cause: Cause
    at: int
    why: str
    version: str | None = None
    """The model version that a verdict is about."""
    broken: bool = False
    """The inputs themselves are broken: learning from them is worse than waiting."""
    matured: int | None = None


def heard(state: LoopState, event: LabelsMatured | WindowJudged) -> LoopState:
    """What a verdict changes by itself: stream time, and whether the inputs are broken."""
    at = from_datetime(event.at)
    state = state.passed(at)
    if isinstance(event, WindowJudged) and event.kind is WindowKind.INPUTS:
        # Whole inputs that drift unblock too: against an old reference they would never be called healthy again.
        return replace(state, broken_since=at if event.finding is Finding.BROKEN_DATA else None)
    return state


def asked_by(state: LoopState, event: LabelsMatured | WindowJudged | RetrainRequested, rules: Rules) -> Ask | None:
    """The request that an event is, or None when it asks for nothing."""
    if isinstance(event, LabelsMatured):
        return _asked_by_the_clock(state, event, rules)
    if isinstance(event, WindowJudged):
        return _asked_by_a_verdict(event)
    at = from_datetime(event.at) if event.at is not None else state.stream_time
    why = f"{event.by} asked: {event.reason}"
    return Ask(request=event.id, loop=event.loop, cause=event.cause, at=0 if at is None else at, why=why)


def _asked_by_the_clock(state: LoopState, event: LabelsMatured, rules: Rules) -> Ask | None:
    at = from_datetime(event.at)
    last = state.last_run
    if state.running is not None or (last is not None and at <= last.at):
        return None
    if state.clock_asked_at is not None and at < state.clock_asked_at + rules.cooldown:
        return None  # a refusal is repeated once per cooldown, not once per day
    if state.champion is None:
        if event.matured < rules.first_rows:
            return None
        why = f"{event.matured} labels have matured, the first model needs {rules.first_rows}"
        return Ask(request=event.id, loop=event.loop, cause=Cause.FIRST_MODEL, at=at, why=why, matured=event.matured)
    if rules.schedule is None or last is None or at < last.at + rules.schedule:
        return None
    why = f"{_days(at - last.at)} since the last run, the schedule is {_days(rules.schedule)}"
    return Ask(request=event.id, loop=event.loop, cause=Cause.SCHEDULE, at=at, why=why, matured=event.matured)


def _asked_by_a_verdict(event: WindowJudged) -> Ask | None:
    causes = {
        Finding.DETECTED: Cause.DRIFT,
        Finding.BROKEN_DATA: Cause.DRIFT,
        Finding.PERFORMANCE_DROP: Cause.PERFORMANCE,
    }
    cause = causes.get(event.finding)
    if cause is None:
        return None
    return Ask(
        request=event.id,
        loop=event.loop,
        cause=cause,
        at=from_datetime(event.at),
        why=event.reason,
        version=event.version,
        broken=event.finding is Finding.BROKEN_DATA,
    )


def decide(state: LoopState, ask: Ask, rules: Rules) -> RetrainDecided | None:
    """The one decision on `ask`; None when the journal already holds it."""
    if ask.request in state.answered:
        return None
    decision, reason = _judge(state, ask, rules)
    last = state.last_run
    numbers = {
        "runs_in_period": float(state.runs_after(ask.at - rules.budget_period)),
        "budget": float(rules.budget_runs),
        "rejected_in_a_row": float(state.rejected_in_a_row),
    }
    if last is not None:
        numbers["days_since_last_run"] = round((ask.at - last.at) / DAY, 4)
    if ask.matured is not None:
        numbers["matured"] = float(ask.matured)
    return RetrainDecided(
        id=derived_id("decided", ask.loop, ask.request),
        loop=ask.loop,
        request=ask.request,
        cause=ask.cause,
        decision=decision,
        reason=reason,
        at=to_datetime(ask.at),
        run=run_name(ask.loop, ask.request) if decision is Decision.ACCEPTED else None,
        numbers=numbers,
    )


def _judge(state: LoopState, ask: Ask, rules: Rules) -> tuple[Decision, str]:
    refusal = _not_listened_to(state, ask, rules)
    if refusal is not None:
        return Decision.DECLINED, refusal
    last = state.last_run
    if state.running is not None:
        return Decision.COALESCED, f"run {state.running.name} is under way: {ask.why}"
    if last is not None and ask.cause is not Cause.MANUAL and ask.at <= last.at:
        # Whether that run has ended by now is a matter of wall time; by stream time both were asked at once.
        return Decision.COALESCED, f"run {last.name} already looked up to then: {ask.why}"
    refusal = _guarded(state, ask, rules)
    if refusal is not None:
        return Decision.DECLINED, refusal
    return Decision.ACCEPTED, ask.why


def _not_listened_to(state: LoopState, ask: Ask, rules: Rules) -> str | None:
    if ask.cause is Cause.FIRST_MODEL:
        return None if state.champion is None else f"there is a model already, version {state.champion.version}"
    if ask.cause not in rules.causes:
        return f"retrain.on does not list {ask.cause.value}: {ask.why}"
    if ask.broken:
        return f"broken data: {ask.why}; retrains wait for whole inputs"
    if state.stream_time is None:
        return "nothing has been heard of this loop yet, so there is no stream time to train at"
    return None


def _guarded(state: LoopState, ask: Ask, rules: Rules) -> str | None:
    if ask.cause is not Cause.MANUAL:
        refusal = _guarded_from_machines(state, ask, rules)
        if refusal is not None:
            return refusal
    used = state.runs_after(ask.at - rules.budget_period)
    if used >= rules.budget_runs:
        return f"{used} runs within {_days(rules.budget_period)}, the budget is {rules.budget_runs}"
    return None


def _guarded_from_machines(state: LoopState, ask: Ask, rules: Rules) -> str | None:
    champion, last = state.champion, state.last_run
    if ask.version is not None and champion is not None and ask.version != champion.version:
        return f"the verdict is about version {ask.version}, version {champion.version} answers now"
    if state.broken_since is not None and ask.cause is not Cause.FIRST_MODEL:
        return f"inputs are broken since {to_datetime(state.broken_since):%Y-%m-%d %H:%M}; waiting for whole inputs"
    rejected = state.rejected_in_a_row
    if rejected >= REJECTED_IN_A_ROW:
        return f"{rejected} challengers in a row were rejected: ask for a retrain by hand when the cause is found"
    if last is not None and ask.at - last.at < rules.cooldown:
        return f"{_days(ask.at - last.at)} since the last run, the cooldown is {_days(rules.cooldown)}"
    return None


def _days(micros: int) -> str:
    return f"{micros / DAY:.1f} days"
