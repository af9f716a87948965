"""One loop's events in stream-time order become matured counts and closed windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ChallengerJudged, LabelsMatured, WindowKind
from millstream.contracts.quiet import NEVER, Quiet
from millstream.contracts.tasks import Task
from millstream.contracts.times import DAY, MINUTE, to_datetime, to_rfc3339
from millstream_drift.domain.content import ContentWindow, Sample
from millstream_drift.domain.corrections import Closed, Correction, Corrections
from millstream_drift.domain.events import Heard, Label, Question
from millstream_drift.domain.join import LATE, Asked, Join, JoinState
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.trials import Trial, TrialRules, Trials
from millstream_drift.domain.windows import SLICES, Window, Windows

MOST_DAYS = 31
"""Days of one silence whose counts are published. After a longer one only its last: nobody needs the clock of a dead month."""

MOST_CONTENTS = 4
"""Windows of a loop whose content waits. Each is compared in a second or two; where windows close faster than that, some go
unseen: all of them have the same to tell."""
MOST_UNTRIED = 50
"""Events of a trial that are held although less than a minute of stream time has passed: some times what a guard needs."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something to publish as it is."""

    event: LabelsMatured | ChallengerJudged
    cause: str
    """Id of the last event that counts in it."""


Told = Fact | Window | Correction
"""What comes of settled events: to publish, to judge, to judge anew."""


class LoopState(msgspec.Struct, array_like=True):
    """Everything that is known of a loop, as a snapshot keeps it."""

    join: JoinState = msgspec.field(default_factory=JoinState)
    windows: list[Window] = []
    memory: Memory = msgspec.field(default_factory=Memory)
    boundary: int = 0
    """When the labels are to be counted next; 0 before the first event."""
    newest: int = 0
    """Largest stream time heard, settled or not."""
    cause: str = ""
    """Id of the last settled event."""
    held: list[Heard] = []
    """Heard and not settled yet, in any order."""
    trials: list[Trial] = []
    task: Task = Task.BINARY
    slices: list[str] = []
    """Task and `gate.slices` by which all this was read."""
    contents: list[ContentWindow] = []
    """Windows whose content waits to be compared, oldest first."""
    watched: list[str] = []
    """Texts and embeddings that the samples are of."""
    watched_from: int = 0
    """Questions that were asked earlier were read while others were watched."""
    closed: list[Closed] = []
    """Performance windows that late labels may still correct."""


class LoopFold:
    """The fold of one loop. What it gives depends on the set of events alone, not on how they were batched."""

    def __init__(
        self,
        loop: str,
        *,
        within: int,
        window: int,
        trials: TrialRules,
        content: Collection[str] = (),
        span: int = 0,
        quiet: Quiet = NEVER,
        state: LoopState | None = None,
    ) -> None:
        """`content`: names of the texts and embeddings that are watched. `quiet`: labels are counted at the end of these hours,
        and of every day."""
        state = _still_readable(state, trials, sorted(content)) if state is not None else LoopState()
        self.loop = loop
        self._size = window
        self._quiet = quiet
        self.join = Join(within, state.join)
        self.windows = Windows(window, span, state.windows)
        self.memory = state.memory
        self._boundary, self._newest, self._cause = state.boundary, state.newest, state.cause
        self._held = state.held
        self._held_rows: Counter[str] = Counter(
            one.version for one in state.held if isinstance(one, Question) and one.version is not None
        )
        self._held_labels = sum(isinstance(one, Label) for one in state.held)
        self._held_both = sum(isinstance(one, Question) and one.other is not None for one in state.held)
        self._rules, self._within = trials, within
        self.trials = Trials(loop, trials, state.trials, self.memory.broken)
        self.corrections = Corrections(state.closed)
        self._watched, self._watched_from = sorted(content), state.watched_from
        self.contents = state.contents
        self.unseen = 0
        """Windows whose content was given up because newer ones came."""
        self._looked = 0
        """Newest stream time when the loop was last settled."""
        self._out: list[Told] = []

    def state(self) -> LoopState:
        return LoopState(
            self.join.state(),
            self.windows.state(),
            self.memory,
            self._boundary,
            self._newest,
            self._cause,
            list(self._held),
            self.trials.state(),
            self._rules.task,
            list(self._rules.slices),
            list(self.contents),
            self._watched,
            self._watched_from,
            self.corrections.state(),
        )

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def versions(self) -> set[str]:
        """Versions with rows that wait to be judged, or may get some."""
        waiting = {window.version for window in self.contents}
        waiting |= self.corrections.versions
        return self.windows.versions | self.join.versions | set(self._held_rows) | waiting

    def forget(self, version: str) -> None:
        """No reference for this version can be had: its rows are in no window, its questions still have labels."""
        self.windows.drop(version)
        self._held_rows.pop(version, None)
        self._held = [
            msgspec.structs.replace(one, version=None) if isinstance(one, Question) and one.version == version else one
            for one in self._held
        ]
        self.join.disown(version)
        self.corrections.forget(version)

    def wait(self, window: ContentWindow) -> list[ContentWindow]:
        """A window's content is to be compared. The first in line may be under way already; of the others the oldest goes,
        and is returned."""
        self.contents.append(window)
        if len(self.contents) <= MOST_CONTENTS:
            return []
        self.unseen += 1
        return [self.contents.pop(1)]

    def hear(self, event: Heard) -> None:
        """Hold an event until its time is settled."""
        self._held.append(event)
        self._newest = max(self._newest, event.time)
        if not self._boundary or not self._cause:
            # Nothing is settled yet, so an earlier event may still come and begin the loop on an earlier day.
            first = self._next_count(event.time)
            self._boundary = min(self._boundary, first) if self._boundary else first
        if isinstance(event, Label):
            self._held_labels += 1
            return
        self._held_both += event.other is not None
        if event.version is not None:
            self._held_rows[event.version] += 1

    def is_due(self) -> bool:
        """Whether settling could publish something: labels are to be counted, or a window may be full or over."""
        if (self._boundary and self._newest >= self._boundary) or self.windows.may_close(self._newest):
            return True
        if self._is_trial_due():
            return True
        if any(self.windows.rows(v, WindowKind.INPUTS) + rows >= self._size for v, rows in self._held_rows.items()):
            return True
        return any(
            self.windows.rows(version, WindowKind.INPUTS) >= self._size
            or self.windows.rows(version, WindowKind.PERFORMANCE) + self._held_labels >= self._size
            for version in self.windows.versions
        )

    def is_behind(self, settled: int) -> bool:
        """Whether something was heard of that time or later since this loop was settled last."""
        return self._looked < settled <= self._newest

    def _is_trial_due(self) -> bool:
        """A trial is looked at every minute of stream time: a bad model is not to answer until the day ends."""
        held = self._held_both
        if self._held_labels and self.trials.is_awaiting(self._newest - self._within):
            held += self._held_labels
        return held > MOST_UNTRIED or (held > 0 and self._newest - self._looked >= MINUTE)

    def settle(self, settled: int) -> Iterator[Told]:
        """Everything below `settled` has been heard: what follows from it, in order of its stream time.

        Take all of it, and judge each window before the next one: whether its inputs are broken decides what a trial counts.
        """
        ready = sorted((one for one in self._held if one.time < settled), key=lambda one: one.order)
        self._held = [one for one in self._held if one.time >= settled]
        self._looked = self._newest
        for event in ready:
            self._close(event.time)
            if self._out:
                yield from self._told()
            self._count(event.time)
            self._cause = event.id
            if isinstance(event, Question):
                self._ask(event)
            else:
                self._tell(event)
        self._close(settled, by_time=False)
        if any(one.time == settled for one in self._held):
            # Of the time after the last event only its next event may decide: else a count in a silence would be
            # published or not as the other loops happen to be read.
            self._close(settled)
            yield from self._told()
            self._count(settled)
        yield from self._told()

    def _ask(self, question: Question) -> None:
        version = question.version
        self._held_both -= question.other is not None
        if version is not None:
            self._held_rows[version] -= 1
            if not self._held_rows[version]:
                del self._held_rows[version]
        asked, label = self.join.ask(question)
        if asked is None:
            return
        if version is not None:
            row = (question.output, question.producer, *question.row)
            watched = self._watched and question.time >= self._watched_from
            contents = question.contents if watched else None
            self.windows.add(version, WindowKind.INPUTS, question.time, question.id, row, contents)
        self._compared(self.trials.ask(question), question.id)
        if label is not None:
            self._score(asked, label, max(label.time, question.time))

    def _tell(self, label: Label) -> None:
        self._held_labels -= 1
        for asked in self.join.tell(label):
            self._score(asked, label, label.time)

    def _score(self, asked: Asked, label: Label, time: int) -> None:
        """One question found its label; both were known at `time`."""
        if asked.version is not None and label.value is not None:
            if not self._corrects(asked, label, asked.version):
                row = asked.output, label.value, asked.time, *asked.slices
                self.windows.add(asked.version, WindowKind.PERFORMANCE, time, label.id, row)
            self._compared(self.trials.pair(asked, label.value, time), label.id)

    def _corrects(self, asked: Asked, label: Label, version: str) -> bool:
        """Whether a label came too late for a window that is judged, and it is told when that is corrected."""
        if asked.state != LATE or label.value is None:
            return False
        row = asked.output, label.value, asked.time, *asked.slices
        if not self.corrections.take(version, asked.time + self._within, row, label.id):
            return False
        if self.corrections.are_many(version):
            self._out += self.corrections.due(label.time, version)
        return True

    def _close(self, now: int, by_time: bool = True) -> None:
        """Hand over the windows that end, behind what was still to say of their versions' earlier ones."""
        for window in self.windows.close(now, by_time):
            if window.kind is WindowKind.PERFORMANCE:
                self._out += self.corrections.due(window.end, window.version)
                self.corrections.closed(window)
            self._out.append(window)

    def _compared(self, verdicts: list[ChallengerJudged], cause: str) -> None:
        self._out += [Fact(event=verdict, cause=cause) for verdict in verdicts]

    def _told(self) -> list[Told]:
        out, self._out = self._out, []
        return out

    def _count(self, now: int) -> None:
        """Count the labels at every end of a day and of quiet hours up to `now`."""
        while self._boundary <= now:
            if now - self._boundary >= MOST_DAYS * DAY:
                self._boundary = _day(now)
            self.join.advance(self._boundary)
            self._out.append(self._matured(self._boundary))
            if self._boundary == _day(self._boundary):
                self._out += self.corrections.due(self._boundary)
                self._compared(self.trials.turn(self._boundary), self._cause)
            self._boundary = self._next_count(self._boundary)
        self.join.advance(now)

    def _next_count(self, time: int) -> int:
        """The first end of a day or of quiet hours after `time`."""
        day, rested = _day(time) + DAY, self._quiet.next_end(time)
        return day if rested is None else min(day, rested)

    def _matured(self, boundary: int) -> Fact:
        counts = self.join.counts
        event = LabelsMatured(
            id=derived_id(self.loop, "matured", to_rfc3339(boundary)),
            loop=self.loop,
            at=to_datetime(boundary),
            matured=counts.matured,
            pending=self.join.pending,
            expired=counts.expired,
            late=counts.late,
            orphaned=counts.orphaned,
            duplicated=counts.duplicated,
        )
        return Fact(event=event, cause=self._cause)


def _day(time: int) -> int:
    """When its day began."""
    return time // DAY * DAY


def _still_readable(state: LoopState, rules: TrialRules, watched: list[str]) -> LoopState:
    """What of a snapshot still means what it meant: the loop's file may have changed since.

    Answers of another task compare with nothing, so the loop begins empty. Values of other slices belong to no slice. Of a text
    that nobody watched yet a window would seem to have none: the next one is the first that is compared.
    """
    if state.task is not rules.task:
        return LoopState()
    if tuple(state.slices) != rules.slices:
        for asked in (*state.join.waiting, *state.join.remembered):
            asked.slices = ()
        for window in state.windows:
            if window.kind is WindowKind.PERFORMANCE:
                window.rows = [row[:SLICES] for row in window.rows]
        for closed in state.closed:
            closed.late = [row[:SLICES] for row in closed.late]
        for judged in (one for some in state.memory.judged.values() for one in some):
            judged.summary.slices = []
        for losses in (one for trial in state.trials for one in (trial.losses, trial.kept.losses)):
            losses.slices = {one: pairs for one, pairs in losses.slices.items() if one[0] in rules.slices}
        state.held = [
            msgspec.structs.replace(one, slices=()) if isinstance(one, Question) else one for one in state.held
        ]
    if state.watched != watched:
        for window in state.windows:
            window.content = Sample()
        state.contents = []
        state.watched_from = max(
            (one.time + 1 for one in state.held if isinstance(one, Question)), default=state.watched_from
        )
    return state
