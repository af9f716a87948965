"""An incident in words: one timeline from the first suspicion to what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from millstream.contracts.events import (
    BrokenField,
    Cause,
    ChallengerJudged,
    Decision,
    Finding,
    GivenModel,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    TrainingFinished,
    TrialFinding,
    WindowJudged,
    WindowKind,
)
from millstream_cli.effects import before_and_after
from millstream_cli.incidents import Fate, Incident, RunStory
from millstream_cli.loop_events import Loop, request_of
from millstream_cli.steps import held, moved
from millstream_cli.troubles import FINE, WORDS, Trouble

MOST_COLUMNS = 5
CANDIDATE = "validation_loss_"
"""How a run's metrics begin that say how a candidate did."""


LOOKED_BACK = 3
"""Windows before a trouble whose corrections are part of it: `drift.confirm` looks at three by default."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One line of the timeline, and what stands under it."""

    at: datetime
    what: str
    """drift, asked, decision, training, trial, rollout or outcome."""
    text: str
    id: str
    caused_by: str | None = None
    details: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def title_of(incident: Incident) -> str:
    """What it was about, in a line."""
    if incident.troubles:
        whats = dict.fromkeys(_what(one) for one in incident.troubles)
        began = {run.decisions[0].request for run in incident.runs}
        asked = "".join(f"; {_asked(one)}" for one in incident.requests if one.id in began)
        return f"{' and '.join(whats)} of version {incident.troubles[0].version}{asked}"
    if incident.requests:
        return _asked(incident.requests[0])
    cause = incident.decisions[0].cause if incident.decisions else None
    return {
        Cause.FIRST_MODEL: "the first model",
        Cause.SCHEDULE: "a retrain by schedule",
        Cause.LABELS: "a retrain for new labels",
    }.get(cause or Cause.MANUAL, f"a request whose event is gone ({cause})")


def _what(trouble: Trouble) -> str:
    """Data that broke after something else was wrong with them are dated: the incident began before. So is the end of a break,
    where whole windows are not fine either."""
    what, until = _shown(trouble.kind), trouble.broken_until
    if not trouble.breaks:
        return what
    if not any(one.finding not in (Finding.SUSPECTED, Finding.BROKEN_DATA) for one in trouble.windows):
        return _shown(trouble.kind, broken=True)
    is_over = until is not None and trouble.went_on
    if len(trouble.breaks) > 1 or not trouble.began_broken:
        spans = [f"from {since:%Y-%m-%d %H:%M} until {end:%Y-%m-%d %H:%M}" for since, end in trouble.breaks]
        spans[-1] = spans[-1] if is_over else spans[-1].partition(" until")[0]
        return f"{what} (broken data {' and '.join(spans)})"
    if is_over:
        return f"broken data until {until:%Y-%m-%d %H:%M}, then {what}"
    return _shown(trouble.kind, broken=True)


def _shown(kind: WindowKind, *, broken: bool = False) -> str:
    if broken:
        return f"broken data in the {WORDS[kind]}"
    drop = {WindowKind.PERFORMANCE: "a performance drop", WindowKind.ESTIMATED: "an estimated performance drop"}
    return drop.get(kind, f"drift in the {WORDS[kind]}")


def outcome_of(incident: Incident) -> str:
    """What came of it, in a line: the fate, and what became of its troubles."""
    version = incident.runs[-1].version if incident.runs else None
    fate = incident.fate.value + (f" (version {version})" if version is not None else "")
    if not incident.troubles:
        return fate
    said = _ended(incident)
    if incident.fate is Fate.OVER:
        return said
    return f"{fate}; {said}"


def _ended(incident: Incident) -> str:
    cure, last = incident.cure, incident.troubles[-1]
    if cure is None:
        if not incident.open:
            return f"{_taken_back(incident)}no word on version {incident.answers_now} yet"
        after = [one for one in incident.troubles if one.end is None and one.broken_until is not None]
        suspected = " and ".join(_shown(one.kind) for one in after if not one.went_on)
        return f"the data is whole again, {suspected} suspected; not over yet" if suspected else "not over yet"
    if incident.cured == "not cleared":
        ended = [one for one in incident.troubles if one.matters]
        shown = [one.end for one in ended if one.end is not None and one.end.finding not in FINE]
        whats = dict.fromkeys(_shown(one.kind, broken=one.finding is Finding.BROKEN_DATA) for one in shown)
        what = "it" if len(shown) == len(ended) else " and ".join(whats)
        return f"{_taken_back(incident)}not cleared: version {cure.version} shows {what} too"
    if cure.version != last.version:
        return f"{_taken_back(incident)}cleared with version {cure.version}"
    return "the data is whole again" if last.broken and not last.went_on else "cleared by itself"


def _taken_back(incident: Incident) -> str:
    versions = dict.fromkeys(move.version for move in incident.taken_back)
    return "".join(f"version {version} was rolled back; " for version in versions)


def timeline(loop: Loop, incident: Incident) -> list[Moment]:
    """Everything that belongs to the incident, in the order in which it happened."""
    found: list[Moment] = []
    for trouble in incident.troubles:
        found += [*_troubled(loop, trouble, incident), *_corrected(loop, trouble)]
    for request in incident.requests:
        at = next((one.at for one in incident.decisions if one.request == request.id), incident.began)
        cause = loop.told[request.id].caused_by
        found.append(Moment(at=at, what="asked", text=_asked(request), id=request.id, caused_by=cause))
    told = {window.id: window.reason for trouble in incident.troubles for window in trouble.windows}
    told |= {request.id: _asked(request) for request in incident.requests}
    found += [_decision(loop, one, told) for one in incident.decisions]
    for run in incident.runs:
        found += _run(loop, run)
    found += [_move(loop, one, None) for one in incident.taken_back]
    place = {id: n for n, id in enumerate(loop.told)}
    # A run ends when its model's first step is said: it is told where it began.
    began = {run.finished.id: run.started[0].id for run in incident.runs if run.finished is not None and run.started}
    found.sort(key=lambda one: (one.at, place[began.get(one.id, one.id)]))
    return [*found, *_outcome(loop, incident)]


def _asked(request: RetrainRequested | RolloutRequested | RunApproved) -> str:
    if isinstance(request, RunApproved):
        return f"{request.by} approved run {request.run}" + (f": {request.reason}" if request.reason else "")
    if isinstance(request, RolloutRequested):
        to = f" to version {request.to}" if request.to is not None else ""
        return f"{request.by} asked: {request.action.value}{to}: {request.reason}"
    who = {Cause.ALERT: "an alert", Cause.SYSTEM: f"another system ({request.by})"}.get(request.cause, request.by)
    return f"{who} asked: {request.reason}"


def _troubled(loop: Loop, trouble: Trouble, incident: Incident) -> list[Moment]:
    """The first suspicion and each change of the finding; windows that say the same again are counted."""
    answered = {one.request for one in incident.decisions}
    found: list[Moment] = []
    before: Finding | None = None
    for window in trouble.windows:
        if window.finding is before and window.id not in answered:
            continue
        before = window.finding
        found.append(
            Moment(
                at=window.at,
                what="drift",
                text=f"{window.finding.value.replace('_', ' ')} in the {WORDS[window.kind]} of version {window.version}: "
                f"{window.reason}",
                id=window.id,
                caused_by=loop.told[window.id].caused_by,
                details=[f"{one.column}: {one.detail} ({broken_at(one)})" for one in window.broken],
                numbers={"effect": window.effect, "rows": float(window.rows)} | window.metrics,
            )
        )
    return found


def _corrected(loop: Loop, trouble: Trouble) -> list[Moment]:
    """What late labels made of its windows, where they made something else of them; of those just before it too, for a window
    that turned out bad has a say in what follows."""
    if trouble.kind is not WindowKind.PERFORMANCE:
        return []
    of = range(trouble.windows[0].index - LOOKED_BACK, trouble.windows[-1].index + 1)
    return [
        Moment(
            at=one.at,
            what="drift",
            text=f"corrected the {WORDS[trouble.kind]} of version {one.version}: {one.reason}",
            id=one.id,
            caused_by=loop.told[one.id].caused_by,
            numbers={"rows": float(one.rows), "late": float(one.labels)} | one.after,
        )
        for one in loop.corrections
        if one.version == trouble.version and one.index in of and one.finding is not one.was
    ]


def broken_at(broken: BrokenField) -> str:
    """Where the one who mends it has to look."""
    return f"field {broken.field} of {broken.stream}" + (f", sent by {broken.producer}" if broken.producer else "")


def _decision(loop: Loop, decided: RetrainDecided, told: Mapping[str, str]) -> Moment:
    """A reason that is the request's own stands one line above."""
    reason = "" if told.get(decided.request) == decided.reason else f": {decided.reason}"
    run = f", run {decided.run}" if decided.run is not None and decided.decision is Decision.ACCEPTED else ""
    until = f" until {decided.expires:%Y-%m-%d %H:%M}" if decided.expires is not None else ""
    details = []
    if decided.decision is Decision.PENDING and decided.run is not None:
        details.append(f"a person decides: millstream approve {decided.loop} {decided.run}")
    if decided.decision is Decision.COALESCED and decided.run is not None:
        details.append(f"the approval came to nothing: run {decided.run} waits on")
    return Moment(
        at=decided.at,
        what="decision",
        text=f"{decided.decision.value}{until} ({decided.cause.value.replace('_', ' ')}{run}){reason}",
        id=decided.id,
        caused_by=loop.told[decided.id].caused_by,
        details=details,
        numbers=decided.numbers,
    )


def _run(loop: Loop, run: RunStory) -> list[Moment]:
    found: list[Moment] = []
    for word in run.approvals:
        at = next((one.at for one in run.decisions if one.request == word.id), run.decisions[-1].at)
        found.append(Moment(at=at, what="asked", text=_asked(word), id=word.id, caused_by=loop.told[word.id].caused_by))
    if run.finished is not None:
        given = next((one.given for one in run.decisions if one.given is not None), None)
        found.append(_training(loop, run.finished, given))
    elif run.started:
        last = run.started[-1]
        text = f"run {run.name} is under way, attempt {last.attempt}"
        found.append(Moment(at=last.at, what="training", text=text, id=last.id, caused_by=loop.told[last.id].caused_by))
    for looks in (run.trial, run.watch):
        found += [_judged(loop, one, run) for one in _turns(looks)]
    found += [_move(loop, one, run) for one in run.moves]
    found += [_move(loop, one, None) for one in run.held]
    return found + [_again(loop, one, run) for one in (*run.brought_back, *run.pinned_away)]


def _training(loop: Loop, end: TrainingFinished, given: GivenModel | None) -> Moment:
    """A model that was made elsewhere is judged by a run, and learns nothing in it."""
    version = f"version {end.version} " if end.version is not None else ""
    outcome = {"rejected": "rejected by the gate", "on_trial": "passed the gate"}.get(
        end.outcome.value, end.outcome.value
    )
    checks = [f"gate {one.name}: FAILED; {one.detail}" for one in end.gate if not one.passed]
    passed = ", ".join(one.name for one in end.gate if one.passed)
    checks += [f"gate passed: {passed}"] if passed else []
    checks += [f"candidates by validation loss: {candidates}"] if (candidates := candidates_of(end)) else []
    if given is None:
        rows = f" on {end.rows:,} rows in {end.seconds:.1f} s" if end.rows else ""
        did = f"trained{rows} up to {end.at:%Y-%m-%d %H:%M}"
    else:
        where = f"runs at {given.remote}" if given.remote else "was given as a graph"
        did = f"{where}, had learned until {given.learned_until:%Y-%m-%d %H:%M}, judged in {end.seconds:.1f} s"
    return Moment(
        at=end.at,
        what="training",
        text=f"{version}{did}, {outcome}: {end.reason}",
        id=end.id,
        caused_by=loop.told[end.id].caused_by,
        details=checks,
        numbers={"rows": float(end.rows), "seconds": end.seconds} | end.metrics,
    )


def candidates_of(end: TrainingFinished) -> str:
    """What competed in a run, the best first; empty where nothing did."""
    losses = {name.removeprefix(CANDIDATE): loss for name, loss in end.metrics.items() if name.startswith(CANDIDATE)}
    ranked = sorted(losses.items(), key=lambda one: (one[1], one[0]))
    return ", ".join(f"{name} {loss:.4f}" for name, loss in ranked)


def _turns(looks: Sequence[ChallengerJudged]) -> list[ChallengerJudged]:
    """Where the finding changed, and the last word: the chart has the others."""
    return [one for n, one in enumerate(looks) if n in (0, len(looks) - 1) or looks[n - 1].finding is not one.finding]


def _judged(loop: Loop, one: ChallengerJudged, run: RunStory) -> Moment:
    """While nothing is decided the chart has the numbers; of a trial under way the last word says what is missing."""
    last = run.fate is Fate.ON_TRIAL and one is run.judged[-1]
    place = "on watch" if one.watch else "on trial"
    seen = f"after {one.pairs:,} pairs" if one.pairs else f"after {one.questions:,} questions, no label yet"
    reason = f": {one.reason}" if last or one.finding is not TrialFinding.UNDECIDED else ""
    return Moment(
        at=one.at,
        what="trial",
        text=f"version {one.version} {place} against version {one.against}: {one.finding.value} {seen}{reason}",
        id=one.id,
        caused_by=loop.told[one.id].caused_by,
        details=[f"{check.name}: FAILED; {check.detail}" for check in one.checks if not check.passed],
        numbers={
            "pairs": float(one.pairs),
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "loss": one.loss,
            "questions": float(one.questions),
            "answered": float(one.answered),
        },
    )


def compared(one: ChallengerJudged) -> str:
    """The comparison in numbers."""
    if not one.pairs:
        return f"{one.questions:,} questions, no label yet"
    return (
        f"{one.pairs:,} pairs, loss {one.difference:+.5f} ({one.low:+.5f} to {one.high:+.5f}) against {one.loss:.4f} of "
        f"version {one.against}"
    )


def _move(loop: Loop, move: RolloutMoved, run: RunStory | None) -> Moment:
    """A reason that is the run's own stands one line above."""
    said = run is not None and run.finished is not None and run.finished.reason == move.reason
    reason = "" if said else f": {move.reason}"
    return Moment(
        at=move.at,
        what="rollout",
        text=f"{moved(move)}{held(move)}{_asker(loop, move)}{reason}",
        id=move.id,
        caused_by=loop.told[move.id].caused_by,
        numbers=move.numbers,
    )


def _again(loop: Loop, move: RolloutMoved, run: RunStory) -> Moment:
    """Its model answers again, or no more: of the step by which it does, another version's story tells the rest."""
    does = "answers no more" if move in run.pinned_away else "answers again"
    return Moment(
        at=move.at,
        what="rollout",
        text=f"version {run.version} {does}{_asker(loop, move)}: {moved(move)}{held(move)}",
        id=move.id,
        caused_by=loop.told[move.id].caused_by,
    )


def _asker(loop: Loop, move: RolloutMoved) -> str:
    """Whose word a step was, and why, in brackets; empty for one that no person asked for."""
    request = request_of(loop, move)
    return f" ({move.by}: {request.reason})" if request is not None else f" ({move.by})" if move.by else ""


def _outcome(loop: Loop, incident: Incident) -> list[Moment]:
    details = []
    for run in incident.runs:
        effect = before_and_after(loop, run)
        if effect is not None:
            details.append(effect.words)
    cure = incident.cure
    if cure is not None and incident.troubles:
        window = f"window of {cure.start:%Y-%m-%d} to {cure.end:%Y-%m-%d %H:%M}"
        details.insert(0, f"{window}, version {cure.version}: {cure.reason}")
    return [
        Moment(
            at=incident.ended,
            what="outcome",
            text=outcome_of(incident),
            id=incident.id if cure is None else cure.id,
            caused_by=None if cure is None else loop.told[cure.id].caused_by,
            details=details,
        )
    ]


def moved_columns(window: WindowJudged) -> list[tuple[str, float, float]]:
    """(column, PSI, importance) of those that make up the effect, the largest share first; texts have neither."""
    if window.kind is WindowKind.CONTENT:
        return []
    ranked = sorted(window.columns, key=lambda one: (-one.psi * one.importance, -one.psi, one.column))
    return [(one.column, one.psi, one.importance) for one in ranked[:MOST_COLUMNS]]
