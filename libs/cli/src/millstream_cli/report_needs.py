"""What of a loop a person has to see to, and what the loop deals with itself although it is not well."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from millstream.contracts.events import LEARNED, Decision, ModelState, RetrainDecided, SkewJudged
from millstream_cli.incidents import Fate, Incident, RunStory
from millstream_cli.loop_events import Loop
from millstream_cli.telling import broken_at, outcome_of, title_of
from millstream_cli.troubles import Trouble

REJECTED_IN_A_ROW = 3.0
"""As the trainer's policy has it, where a decision does not name the loop's own bound (`breaker` in its numbers)."""
BY_HAND = (Fate.SUGGESTED, Fate.EXPIRED)
"""Of an open incident: the loop goes no further by itself."""


def needs_of(loop: Loop, state: ModelState | None, skew: SkewJudged | None, now: datetime) -> list[str]:
    """What waits for a person, the most pressing first, each with what to type."""
    needs = []
    for trouble in _broken(loop):
        window = trouble.windows[-1]
        where = "; ".join(broken_at(one) for one in window.broken)
        wait = "retrains wait until it is whole" if trouble.kind in LEARNED else "no model reads it, so retrains go on"
        needs.append(
            f"broken data since {trouble.broken_since:%Y-%m-%d %H:%M}: {window.reason}{f' ({where})' if where else ''}; {wait}"
        )
    first = _first(loop, state)
    for asked in waiting(loop, now):
        until = f" until {asked.expires:%Y-%m-%d %H:%M}" if asked.expires is not None else ""
        needs.append(
            f"run {asked.run} waits for an approval{until} ({asked.reason}){first and '; ' + first}: "
            f"millstream approve {loop.name} {asked.run}"
        )
    missing = _no_model(loop, now) if state is None or state.champion is None else None
    if missing is not None:
        needs.append(f"no model answers: {missing}; ask for one: millstream retrain {loop.name} --reason …")
    elif (failed := _failed_last(loop)) is not None:
        needs.append(_failed(loop, failed))
    if not _learns_broken(loop):
        needs += [_suggested(loop, one, first) for one in loop.incidents if one.open and one.fate in BY_HAND]
    row, bound = rejected_in_a_row(loop)
    if row >= bound:
        needs.append(
            f"{row:.0f} challengers in a row did not make it, so only a person may ask{first and ', ' + first}: "
            f"millstream retrain {loop.name} --reason …"
        )
    if skew is not None and skew.finding.value == "detected":
        needs.append(f"online and offline features differ: {skew.reason}; millstream skew {loop.name}")
    if state is not None and state.frozen:
        needs.append(f"frozen ({state.frozen}): no step forward until millstream unfreeze {loop.name}")
    if state is not None and state.pinned:
        needs.append(f"pinned to version {state.pinned}: no retrain until millstream unpin {loop.name}")
    return needs


def notices_of(loop: Loop, since: datetime) -> list[str]:
    """Incidents that are open and runs that failed, where no person is waited for: the loop itself goes on."""
    # What only a person takes further is told as a need, but not while the data are broken that a run would learn from.
    by_hand = (Fate.PENDING,) if _learns_broken(loop) else (*BY_HAND, Fate.PENDING)
    told = [one for one in loop.incidents if one.open and (one.fate in by_hand or _broken_in(one))]
    found = [_open(loop, one) for one in loop.incidents if one.open and one not in told]
    last = _failed_last(loop)
    for run in _ended(loop):
        if run is not last and run.finished is not None and run.fate is Fate.FAILED and run.finished.at > since:
            found.append(_failed(loop, run))
    return found


def _learns_broken(loop: Loop) -> bool:
    """Whether data are broken that runs learn from."""
    return any(one.kind in LEARNED for one in _broken(loop))


def _first(loop: Loop, state: ModelState | None) -> str:
    """When a person's word has an effect, and a good one; empty: now. The trainer declines an approval before then, and a run
    that she asks for."""
    when = []
    if state is not None and state.pinned:
        when.append(f"after millstream unpin {loop.name}")
    if state is not None and state.frozen:
        when.append(f"after millstream unfreeze {loop.name}")
    running = [run.name for one in loop.incidents for run in one.runs if run.fate is Fate.TRAINING]
    when += [f"when run {name} has ended" for name in running]
    if state is not None and state.challenger is not None:
        when.append(f"when the trial of version {state.challenger.version} is over")
    if _learns_broken(loop):
        when.append("once the data is whole (a run that a person has accepted learns what is broken)")
    return " and ".join(when)


def _broken(loop: Loop) -> list[Trouble]:
    """Of each kind of data that are broken still, the newest first."""
    found = [trouble for one in loop.incidents if one.open for trouble in _broken_in(one)]
    return sorted(found, key=lambda one: one.windows[-1].at, reverse=True)


def _broken_in(incident: Incident) -> list[Trouble]:
    return [one for one in incident.troubles if one.end is None and one.broken_since is not None]


def _open(loop: Loop, incident: Incident) -> str:
    last = max(incident.decisions, key=lambda one: one.at, default=None)
    why = f" ({last.reason})" if last is not None and not incident.runs else ""
    return (
        f"open: incident {incident.number}, {title_of(incident)}, since {incident.began:%Y-%m-%d %H:%M}: "
        f"{outcome_of(incident)}{why}; millstream why {loop.name} {incident.number}"
    )


def _suggested(loop: Loop, incident: Incident, first: str) -> str:
    return (
        f"incident {incident.number}, {title_of(incident)}, is open and nothing runs for it: {outcome_of(incident)}; "
        f"ask for a run{first and ' ' + first}: millstream retrain {loop.name} --reason …"
    )


def _failed(loop: Loop, run: RunStory) -> str:
    end = run.finished
    assert end is not None
    return f"run {run.name} failed {end.at:%Y-%m-%d %H:%M}: {end.reason}; millstream why {loop.name} {run.name}"


def _ended(loop: Loop) -> list[RunStory]:
    """Its runs that came to an end, the oldest first."""
    runs = [run for one in loop.incidents for run in one.runs if run.finished is not None]
    return sorted(runs, key=lambda run: run.decisions[0].at)


def _failed_last(loop: Loop) -> RunStory | None:
    """The newest run that ended, where it failed: the next is likely to, as long as nobody looks."""
    ended = _ended(loop)
    return ended[-1] if ended and ended[-1].fate is Fate.FAILED else None


def _no_model(loop: Loop, now: datetime) -> str | None:
    """Why a loop without a model gets none by itself for now; None while one comes, or labels are still gathered."""
    runs = [run for one in loop.incidents for run in one.runs]
    decisions = [one for incident in loop.incidents for one in incident.decisions]
    if not decisions or waiting(loop, now) or any(run.fate in (Fate.TRAINING, Fate.ON_TRIAL) for run in runs):
        return None
    last = max(decisions, key=lambda one: one.at)
    end = next((run.finished for run in runs if run.name == last.run and run.finished is not None), None)
    return last.reason if end is None else f"run {end.run} {end.outcome.value}: {end.reason}"


def waiting(loop: Loop, now: datetime) -> list[RetrainDecided]:
    """What runs that wait for a person's word wait by."""
    asked = [run.waits for one in loop.incidents for run in one.runs if run.waits is not None]
    return [one for one in asked if one.expires is None or one.expires > now]


def rejected_in_a_row(loop: Loop) -> tuple[float, float]:
    """What the trainer counted at its last decision, and where it stops: an open circuit breaker has reached that."""
    decided = [
        one
        for incident in loop.incidents
        for one in incident.decisions
        if one.decision is not Decision.COALESCED and "rejected_in_a_row" in one.numbers
    ]
    numbers: Mapping[str, float] = max(decided, key=lambda one: one.at).numbers if decided else {}
    return numbers.get("rejected_in_a_row", 0.0), numbers.get("breaker", REJECTED_IN_A_ROW)
