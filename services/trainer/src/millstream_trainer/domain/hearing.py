"""What a verdict or a request means for a loop: what it changes by itself, and whether it asks for a run."""

from __future__ import annotations

from dataclasses import replace

from millstream.contracts.events import (
    LEARNED,
    Cause,
    ChallengerJudged,
    Finding,
    LabelsMatured,
    RetrainRequested,
    WindowJudged,
    WindowKind,
)
from millstream.contracts.times import DAY, from_datetime
from millstream_trainer.domain.ask import Ask
from millstream_trainer.domain.broken import told
from millstream_trainer.domain.rules import Rules
from millstream_trainer.domain.state import LoopState

Verdict = LabelsMatured | WindowJudged | ChallengerJudged


AHEAD = 2 * DAY
"""How far beyond what was heard of a loop a request may look: labels are counted once a day, and who asks may know of more."""


def heard(state: LoopState, event: Verdict) -> LoopState:
    """What a verdict changes by itself: stream time, the count of labels, whether data is broken, how a trial does."""
    at = from_datetime(event.at)
    state = state.passed(at)
    if isinstance(event, LabelsMatured):
        return _counted(state, event.matured, at)
    if isinstance(event, ChallengerJudged):
        return replace(state, judged={**state.judged, event.watch: event})
    before, place = state.verdicts.get(event.kind), (event.kind, event.version)
    said_until = {**state.said_until, place: max(at, state.said_until.get(place, 0))}
    state = replace(state, verdicts={**state.verdicts, event.kind: event}, said_until=said_until)
    if event.kind in LEARNED and (event.finding is Finding.BROKEN_DATA or not event.says_nothing):
        # Whole inputs that drift unblock too: against an old reference they would never be called healthy again.
        broken = {kind: since for kind, since in state.broken.items() if kind is not event.kind}
        spells = told(state.spells.get(event.kind, ()), event, before)
        if event.finding is Finding.BROKEN_DATA:
            since = next((spell.start for spell in spells if spell.holds(at)), from_datetime(event.start))
            broken[event.kind] = state.broken.get(event.kind, since)
        return replace(state, broken=broken, spells={**state.spells, event.kind: spells})
    return state


def _counted(state: LoopState, matured: int, at: int) -> LoopState:
    """So many labels were counted at `at`. Drift without its snapshot counts anew, those that Kafka still has: the ones that it
    knows no more go on counting, else a trigger would wait until there are as many again."""
    if state.counted_at is not None and at < state.counted_at:
        return state
    known, total = state.matured or 0, matured + state.uncounted
    if at == state.counted_at:
        # Nothing matures in no time: it is heard again, and may be the count from before it was made anew.
        total = min(total, known)
    uncounted = state.uncounted + max(0, known - total)
    return replace(state, matured=max(total, known), counted_at=at, uncounted=uncounted)


def asked_by(state: LoopState, event: Verdict | RetrainRequested, rules: Rules) -> Ask | None:
    """The request that an event is, or None when it asks for nothing."""
    if isinstance(event, LabelsMatured):
        return _asked_by_the_clock(state, event, rules)
    if isinstance(event, WindowJudged):
        # Drift without its snapshot judges anew what Kafka still has. What came of it once is not decided again.
        is_over = from_datetime(event.at) < state.said_until.get((event.kind, event.version), 0)
        return None if is_over else _asked_by_a_window(event)
    if isinstance(event, ChallengerJudged):
        return None
    now, why = state.stream_time or 0, f"{event.by} asked: {event.reason}"
    at = now if event.at is None else from_datetime(event.at)
    if event.at is not None and at > now + AHEAD:
        why += f" (up to {event.at:%Y-%m-%d %H:%M}, which has not come)"
        at = now  # else every verdict until then would join that run, and cooldown and budget count from there
    return Ask(request=event.id, loop=event.loop, cause=event.cause, at=at, why=why, given=event.given)


def _asked_by_the_clock(state: LoopState, event: LabelsMatured, rules: Rules) -> Ask | None:
    at, last, matured = from_datetime(event.at), state.last_run, state.matured or 0
    if state.running is not None or state.waiting is not None or (last is not None and at <= last.at):
        return None
    if state.clock_asked_at is not None and at < state.clock_asked_at + rules.cooldown:
        return None  # a refusal is repeated once per cooldown, not once per day
    if state.champion is None:
        if matured < rules.first_rows:
            return None
        why = f"{matured} labels have matured, the first model needs {rules.first_rows}"
        return Ask(request=event.id, loop=event.loop, cause=Cause.FIRST_MODEL, at=at, why=why)
    if last is None:
        return None
    if rules.schedule is not None and at >= last.at + rules.schedule:
        why = f"{days(at - last.at)} since the last run, the schedule is {days(rules.schedule)}"
        return Ask(request=event.id, loop=event.loop, cause=Cause.SCHEDULE, at=at, why=why)
    enough = _enough_labels(last.matured, rules)
    if enough is not None and matured >= enough:
        why = f"{matured} labels have matured, {last.matured:.0f} had at the last run; {enough} were waited for"
        return Ask(request=event.id, loop=event.loop, cause=Cause.LABELS, at=at, why=why)
    return None


def _enough_labels(at_last_run: float | None, rules: Rules) -> int | None:
    if at_last_run is None:
        return None
    if rules.grow_rows is not None:
        return int(at_last_run) + rules.grow_rows
    return None if rules.grow is None else int(at_last_run * (1 + rules.grow) + 0.5)


def _asked_by_a_window(event: WindowJudged) -> Ask | None:
    causes = {
        Finding.DETECTED: Cause.DRIFT,
        Finding.BROKEN_DATA: Cause.DRIFT,
        Finding.PERFORMANCE_DROP: Cause.ESTIMATE if event.kind is WindowKind.ESTIMATED else Cause.PERFORMANCE,
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
        broken=event.kind if event.finding is Finding.BROKEN_DATA else None,
        changed_at=event.changed_at or event.start,
    )


def days(micros: int) -> str:
    return f"{micros / DAY:.1f} days"


def elapsed(micros: int) -> str:
    """Rounded down: 2.96 days are not yet the 3.0 that a rule wants."""
    return f"{micros * 10 // DAY / 10:.1f} days"
