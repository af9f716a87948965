"""Sorts what was told of a loop into incidents, by the ids that each event names as its cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from millstream.contracts.events import (
    ChallengerJudged,
    Decision,
    Finding,
    LabelsMatured,
    ModelRef,
    ModelState,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    Step,
    TrainingFinished,
    TrainingStarted,
    WindowCorrected,
    WindowJudged,
)
from millstream_cli.answering import Answering
from millstream_cli.incidents import Incident, RunStory
from millstream_cli.journal import Told
from millstream_cli.losses import Loss, loss_of
from millstream_cli.troubles import FINE, Trouble, troubles_of

T = TypeVar("T")


@dataclass
class Loop:
    """Everything that was told of one loop, sorted by what it is and in stream time."""

    name: str
    told: dict[str, Told]
    windows: list[WindowJudged]
    corrections: list[WindowCorrected]
    labels: list[LabelsMatured]
    states: list[ModelState]
    """By revision, as far as the compacted topic still has them or the journal says where a step led to."""
    incidents: list[Incident]

    @cached_property
    def corrected(self) -> dict[str, WindowCorrected]:
        """The last correction of each window, by the id of its verdict."""
        return {one.corrects: one for one in self.corrections}

    def losses(self, windows: Iterable[WindowJudged]) -> list[Loss]:
        """What each of them says now, with the labels that came late; those without labels are left out."""
        return [loss for one in windows if (loss := loss_of(one, self.corrected.get(one.id))) is not None]

    def causer_of(self, id: str) -> Told | None:
        """The event that led to the one named."""
        told = self.told.get(id)
        return None if told is None or told.caused_by is None else self.told.get(told.caused_by)

    @property
    def champions(self) -> list[tuple[datetime, ModelRef]]:
        """Who answered, each from when on; a rollback brings an old one again."""
        changes: list[tuple[datetime, ModelRef]] = []
        for at, ref in ((state.at, state.champion) for state in self.states if state.champion is not None):
            if not changes or changes[-1][1].version != ref.version:
                changes.append((at, ref))
        return changes


def loop_of(told: Iterable[Told], name: str) -> Loop:
    """Sort what was told of loop `name`, in the order in which it was said, into incidents by their numbers."""
    mine = {one.id: one for one in told if one.loop == name}
    windows = sorted(_all(mine, WindowJudged), key=lambda one: (one.at, one.index))
    states = _states(mine)
    moves = {move.revision: move for move in _all(mine, RolloutMoved)}
    answering = Answering(states)
    incidents = _Sorter(mine, windows, answering).incidents()
    for incident in incidents:
        for run in incident.runs:
            run.brought_back = _brought_back(run, states, moves)
            run.pinned_away = _pinned_away(run, states, moves)
            run.held = _held(run, states, moves)
            run.gave_way = _gave_way(run, states)
        incident.runs.sort(key=lambda one: one.began)
        incident.cure = _cure(incident)
        incident.taken_back = _taken_back(incident, mine)
        incident.answers_now = answering.now
        incident.open = any(
            one.end is None and answering.answers(one.version) for one in incident.troubles if one.matters
        )
    return Loop(
        name=name,
        told=mine,
        windows=windows,
        corrections=sorted(_all(mine, WindowCorrected), key=lambda one: (one.at, one.labels)),
        labels=sorted(_all(mine, LabelsMatured), key=lambda one: one.at),
        states=states,
        incidents=incidents,
    )


def _all(told: dict[str, Told], kind: type[T]) -> list[T]:
    return [one.event for one in told.values() if isinstance(one.event, kind)]


def _states(told: dict[str, Told]) -> list[ModelState]:
    found = {move.revision: move.led_to for move in _all(told, RolloutMoved) if move.led_to is not None}
    found |= {state.revision: state for state in _all(told, ModelState)}
    return [state for _, state in sorted(found.items())]


def _cure(incident: Incident) -> WindowJudged | None:
    """The last word once each of its troubles has one; that a later version shows one of them too is enough by itself."""
    ends = [one.end for one in incident.troubles if one.matters]
    known = [one for one in ends if one is not None]
    bad = [one for one in known if one.finding not in FINE]
    if bad:
        return max(bad, key=lambda one: one.at)
    return max(known, key=lambda one: one.at) if known and len(known) == len(ends) else None


def _taken_back(incident: Incident, told: dict[str, Told]) -> list[RolloutMoved]:
    began = {one.version: one.windows[0].at for one in incident.troubles if one.matters}
    own = {run.name for run in incident.runs}
    return [
        move
        for move in _all(told, RolloutMoved)
        if move.step is Step.ROLLED_BACK
        and move.run not in own
        and move.version in began
        and began[move.version] <= move.at <= (incident.cure.at if incident.cure is not None else move.at)
    ]


def _brought_back(run: RunStory, states: Sequence[ModelState], moves: Mapping[int, RolloutMoved]) -> list[RolloutMoved]:
    """The first step after each rollback of its model that has it answer again: it is another version's, or a pin."""
    taken = [move.revision for move in run.moves if move.step is Step.ROLLED_BACK]
    answers = [
        state.revision
        for state in states
        if state.champion is not None and state.champion.version == run.version and state.revision in moves
    ]
    again = dict.fromkeys(min((one for one in answers if one > since), default=0) for since in taken)
    return [moves[revision] for revision in again if revision]


def _pinned_away(run: RunStory, states: Sequence[ModelState], moves: Mapping[int, RolloutMoved]) -> list[RolloutMoved]:
    champions = [(state.revision, state.champion.version) for state in states if state.champion is not None]
    lost = [revision for (_, before), (revision, now) in pairwise(champions) if before == run.version != now]
    return [moves[one] for one in lost if one in moves and is_held(moves[one]) and moves[one].run != run.name]


def _held(run: RunStory, states: Sequence[ModelState], moves: Mapping[int, RolloutMoved]) -> list[RolloutMoved]:
    on_trial = [one.revision for one in states if one.challenger is not None and one.challenger.run == run.name]
    return [moves[one] for one in on_trial if one in moves and is_held(moves[one])]


def _gave_way(run: RunStory, states: Sequence[ModelState]) -> list[RolloutMoved]:
    """Its rollbacks to a version that came to answer after it did, and was rolled back itself in between."""
    answers = {state.revision: state.champion.version for state in states if state.champion is not None}
    first = {version: revision for revision, version in sorted(answers.items(), reverse=True)}
    own = first.get(run.version or "")
    rollbacks = [move for move in run.moves if move.step is Step.ROLLED_BACK and move.revision in answers]
    return [] if own is None else [move for move in rollbacks if first[answers[move.revision]] > own]


class _Sorter:
    """Puts each event where it belongs. Decisions come in stream time, so a run is there before who joins it."""

    def __init__(self, told: dict[str, Told], windows: Sequence[WindowJudged], answering: Answering) -> None:
        self._told = told
        self._trouble = {window.id: one for one in troubles_of(windows, answering) for window in one.windows}
        self._place = {id: n for n, id in enumerate(told)}
        self._at: dict[str, Incident] = {}
        """By the id of a trouble, a request or a run."""
        self._known: dict[Incident, tuple[datetime, int]] = {}
        """When each became an incident: stream time, place in the journal. What joined another later is among them."""
        self._joins: dict[Incident, Incident] = {}
        self._runs: dict[str, RunStory] = {}
        self._moves: dict[str, list[RolloutMoved]] = {}
        for move in sorted(_all(told, RolloutMoved), key=lambda one: one.revision):
            if not is_held(move):
                self._moves.setdefault(move.run, []).append(move)

    def incidents(self) -> list[Incident]:
        for trouble in dict.fromkeys(self._trouble.values()):
            if trouble.matters:
                first = next(one for one in trouble.windows if one.finding is not Finding.SUSPECTED)
                self._becomes(self._incident(trouble.id, trouble=trouble), first)
        for decided in sorted(_all(self._told, RetrainDecided), key=lambda one: one.at):
            self._decided(decided)
        self._ran()
        return self._numbered()

    def _becomes(self, incident: Incident, by: WindowJudged | RetrainDecided) -> None:
        known = (by.at, self._place[by.id])
        self._known[incident] = min(known, self._known.get(incident, known))

    def _numbered(self) -> list[Incident]:
        """By number. What joined another later on keeps its number, and is found there by it."""
        for number, incident in enumerate(sorted(self._known, key=lambda one: self._known[one]), 1):
            incident.number = number
        for joined in self._joins:
            told = joined
            while told in self._joins:
                told = self._joins[told]
            told.others.append(joined.number)
        return sorted(dict.fromkeys(self._at.values()), key=lambda one: one.number)

    def _incident(self, key: str, trouble: Trouble | None = None) -> Incident:
        if key not in self._at:
            self._at[key] = Incident(id=key, troubles=[trouble] if trouble is not None else [])
        return self._at[key]

    def _decided(self, decided: RetrainDecided) -> None:
        incident = self._asked(decided)
        run = self._runs.get(decided.run or "")
        if run is not None:  # the later word on a run that was pending
            incident = self._join(self._at[run.name], incident, decided.at)
            run.decisions.append(decided)
        elif decided.run is not None and decided.decision in (Decision.ACCEPTED, Decision.PENDING):
            run = self._runs[decided.run] = RunStory(name=decided.run, decisions=[decided])
            incident.runs.append(run)
            self._at[decided.run] = incident
        elif decided.decision is Decision.COALESCED:
            joined = self._joined(decided)
            if joined is not None:
                incident = self._join(self._at[joined.name], incident, decided.at)
        incident.decisions.append(decided)
        self._becomes(incident, decided)

    def _joined(self, decided: RetrainDecided) -> RunStory | None:
        """The run that a request joined: the one that the reason names, else the one whose model was on trial then."""
        for run in reversed(self._runs.values()):
            moves = self._moves.get(run.name, [])
            over = [one.at for one in moves if one.step not in (Step.SHADOW, Step.CANARY)]
            on_trial = bool(moves) and moves[0].at <= decided.at and (not over or decided.at <= over[0])
            if run.name in decided.reason or on_trial:
                return run
        return None

    def _asked(self, decided: RetrainDecided) -> Incident:
        trouble = self._trouble.get(decided.request)
        if trouble is not None:
            return self._incident(trouble.id, trouble=trouble)
        known = decided.request in self._at
        told = self._told.get(decided.request)
        asked = told.event if told is not None else None
        if isinstance(asked, RunApproved) and asked.run in self._at:
            return self._at[asked.run]
        incident = self._incident(decided.request)
        if not known and isinstance(asked, RetrainRequested | RolloutRequested | RunApproved):
            incident.requests.append(asked)
        elif not known and isinstance(asked, LabelsMatured):
            incident.clock.append(asked)
        return incident

    def _join(self, one: Incident, other: Incident, at: datetime) -> Incident:
        if one is other:
            return one
        if other in self._known and self._known[other][0] < at:
            self._joins[other] = one
        else:  # it was never an incident by itself: it needs no number
            self._known.pop(other, None)
        one.troubles += other.troubles
        one.requests += other.requests
        one.clock += other.clock
        one.decisions += other.decisions
        one.runs += other.runs
        for key, incident in self._at.items():
            if incident is other:
                self._at[key] = one
        return one

    def _ran(self) -> None:
        for told in self._told.values():
            event = told.event
            run = self._runs.get(getattr(event, "run", None) or "")
            if run is None:
                continue
            if isinstance(event, RunApproved):
                run.approvals.append(event)
            elif isinstance(event, TrainingStarted):
                run.started.append(event)
            elif isinstance(event, TrainingFinished):
                run.finished = event
        for run in self._runs.values():
            run.moves = self._moves.get(run.name, [])
            run.started.sort(key=lambda one: one.attempt)
        by_version = {run.version: run for run in self._runs.values() if run.version is not None}
        for judged in sorted(_all(self._told, ChallengerJudged), key=lambda one: (one.at, one.pairs)):
            if judged.version in by_version:
                by_version[judged.version].judged.append(judged)


def is_held(move: RolloutMoved) -> bool:
    """Whether a person had a model answer, or stay: a freeze or a pin, of a model whose own story was told long ago."""
    return bool(move.by) and move.step is Step.CHAMPION and move.before in (Step.CHAMPION, Step.ROLLED_BACK)


def request_of(loop: Loop, move: RolloutMoved) -> RolloutRequested | None:
    """The person's word that led to a step, if one did."""
    told = loop.causer_of(move.id)
    return told.event if told is not None and isinstance(told.event, RolloutRequested) else None
