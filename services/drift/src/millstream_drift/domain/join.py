"""Questions wait for their labels: matured in time, late, expired, orphaned, each counted once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from millstream.contracts.tasks import Truth
from millstream_drift.domain.events import Cell, Label, Other, Question, by_prediction, prediction_of

CAPACITY = 1_000_000
"""Questions and labels remembered per loop, about 650 bytes each, 900 with two answers: under a gigabyte. Beyond it the oldest
are forgotten and counted."""


class Counts(msgspec.Struct, array_like=True):
    """How it went, since the stream began."""

    questions: int = 0
    matured: int = 0
    expired: int = 0
    late: int = 0
    orphaned: int = 0
    duplicated: int = 0
    """Labels that came again."""
    unlabelled: int = 0
    """Events of the label stream that carry no label."""
    repeated: int = 0
    """Questions that came again."""
    evicted: int = 0


WAITING, MATURED, EXPIRED, LATE = 0, 1, 2, 3


class Asked(msgspec.Struct, array_like=True, gc=False):
    """A question while its label may come, and as long again to tell a late label from an orphaned one."""

    id: str
    key: str
    time: int
    version: str | None
    output: dict[str, float]
    until: int
    """Last moment at which a label is in time for the clock (microseconds)."""
    slices: tuple[Cell, ...] = ()
    other: Other | None = None
    """The second answer, where there is one: label and both answers are a pair."""
    state: int = WAITING


class Told(msgspec.Struct, array_like=True, gc=False):
    """A label that is remembered: to know its duplicates, and for a question that is delivered after it."""

    id: str
    key: str
    time: int
    value: Truth
    until: int
    used: bool
    """A question had it (or it came too late for one): it is no orphan."""


class JoinState(msgspec.Struct, array_like=True):
    """Everything a join remembers, as a snapshot keeps it."""

    clock: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)
    waiting: list[Asked] = []
    remembered: list[Asked] = []
    told: list[Told] = []


class Join:
    """Joins one loop's questions with its labels. Feed it in stream-time order; a straggler is taken as it comes.

    A label is in time when asked_at <= known-at <= asked_at + within. One label matures every waiting question of its key; one
    that names a prediction matures the question of that alone.
    """

    def __init__(self, within: int, state: JoinState | None = None, capacity: int = CAPACITY) -> None:
        self._within = within
        self._capacity = capacity
        state = state or JoinState()
        self.clock = state.clock
        self.counts = state.counts
        self._waiting = deque(state.waiting)
        """In order of `until`; matured ones stay in their place."""
        self._remembered = deque(state.remembered)
        """Past their time, in order of `until`."""
        self._told_order = deque(state.told)
        self._asked: dict[str, list[Asked]] = {}
        for one in (*state.remembered, *state.waiting):
            self._asked.setdefault(one.key, []).append(one)
        self._answered = {one.id: one for some in self._asked.values() for one in some}
        """By prediction."""
        self._told = {one.key: one for one in state.told}
        self.pending = sum(one.state == WAITING for one in state.waiting)
        """Questions still inside their time."""

    def state(self) -> JoinState:
        return JoinState(self.clock, self.counts, list(self._waiting), list(self._remembered), list(self._told_order))

    def advance(self, now: int) -> None:
        """Move the clock to `now`: what no label can reach any more expires."""
        self.clock = max(self.clock, now)
        waiting, remembered, told = self._waiting, self._remembered, self._told_order
        while waiting and waiting[0].until < self.clock:
            asked = waiting.popleft()
            if asked.state == WAITING:
                asked.state = EXPIRED
                self.pending -= 1
                self.counts.expired += 1
            remembered.append(asked)
        while remembered and remembered[0].until + self._within < self.clock:
            self._forget(remembered.popleft())
        while told and told[0].until < self.clock:
            self._forget_label(told.popleft())

    def ask(self, question: Question) -> tuple[Asked | None, Label | None]:
        """Take a question: (None where it is a repeat, the label that was already there)."""
        known = self._asked.get(question.key)
        if known is not None and any(asked.id == question.id for asked in known):
            self.counts.repeated += 1
            return None, None
        self.counts.questions += 1
        asked = Asked(
            question.id,
            question.key,
            question.time,
            question.version,
            question.output,
            max(question.time, self.clock) + self._within,
            question.slices,
            question.other if question.other is not None and not question.other.failure else None,
        )
        self._asked.setdefault(question.key, []).append(asked)
        self._answered[asked.id] = asked
        self._waiting.append(asked)
        self.pending += 1
        for key in (question.key, by_prediction(question.id)):
            told = self._told.get(key)
            if told is not None and self._in_time(asked, told.time):
                told.used = True
                self._mature(asked)
                return asked, Label(told.time, told.id, told.key, told.value)
        self._bound()
        return asked, None

    def tell(self, label: Label) -> list[Asked]:
        """Take a label: the questions that it matured, or that it came too late for (LATE) and still says the truth of."""
        if label.value is None:
            self.counts.unlabelled += 1
            return []
        asked = self._named(label.key)
        matured = [one for one in asked if one.state == WAITING and self._in_time(one, label.time)]
        for one in matured:
            self._mature(one)
        if not matured:
            # Of a key's questions one may have been told by its prediction id; what is left hears of the key's label.
            left = any(one.state == EXPIRED and one.time <= label.time for one in asked)
            if label.key in self._told or (any(one.state == MATURED for one in asked) and not left):
                self.counts.duplicated += 1
                return []
            if asked:
                self.counts.late += 1
        late = [] if matured else [one for one in asked if one.state == EXPIRED]
        for one in late:
            one.state = LATE
        told = Told(
            label.id, label.key, label.time, label.value, max(label.time, self.clock) + self._within, used=bool(asked)
        )
        self._told[label.key] = told
        self._told_order.append(told)
        self._bound()
        return matured or late

    @property
    def versions(self) -> set[str]:
        """Versions whose answers may still find a label, in time or late."""
        both = (self._waiting, self._remembered)
        return {asked.version for some in both for asked in some if asked.version is not None}

    def disown(self, version: str) -> None:
        """Questions of this version keep their labels, but nothing is scored for it."""
        for asked in (*self._waiting, *self._remembered):
            if asked.version == version:
                asked.version = None

    def _named(self, key: str) -> Sequence[Asked]:
        """The questions that a label of `key` is about."""
        id = prediction_of(key)
        if id is None:
            return self._asked.get(key, ())
        return (self._answered[id],) if id in self._answered else ()

    def _in_time(self, asked: Asked, known_at: int) -> bool:
        return asked.time <= known_at <= asked.time + self._within

    def _mature(self, asked: Asked) -> None:
        asked.state = MATURED
        self.pending -= 1
        self.counts.matured += 1

    def _forget(self, asked: Asked) -> None:
        if self._answered.get(asked.id) is asked:
            del self._answered[asked.id]
        left = self._asked[asked.key]
        left.remove(asked)
        if not left:
            del self._asked[asked.key]

    def _forget_label(self, told: Told) -> None:
        if not told.used:
            self.counts.orphaned += 1
        if self._told.get(told.key) is told:
            del self._told[told.key]

    def _bound(self) -> None:
        """Beyond the capacity the oldest goes, whatever it waits for."""
        while len(self._waiting) + len(self._remembered) + len(self._told_order) > self._capacity:
            self.counts.evicted += 1
            if self._remembered:
                self._forget(self._remembered.popleft())
            elif len(self._waiting) >= len(self._told_order):
                asked = self._waiting.popleft()
                self.pending -= asked.state == WAITING
                self._forget(asked)
            else:
                self._forget_label(self._told_order.popleft())
