"""The replay's simulated clock: what is asked and what becomes known in each tick."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.project.duration import to_text
from millstream.project.stream import Stream
from millstream_cli.turns import Apart, turns

ENCODED_AT_ONCE = 20_000
"""Rows turned into JSON in one go: most of the cost is per call, and 20,000 rows are 6 MB."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Questions are asked at its start with what was known before it; events become known at its end."""

    start: int
    end: int
    questions: dict[str, list[bytes]] = field(default_factory=dict)
    """Stream → its events, each one JSON object."""
    events: dict[str, list[bytes]] = field(default_factory=dict)
    turns: dict[str, list[int]] = field(default_factory=dict)
    """Of streams whose questions take turns, that of each; all others' have the first."""

    @property
    def rounds(self) -> list[dict[str, list[bytes]]]:
        """The questions turn by turn; each is known a microsecond after the one before."""
        found: list[dict[str, list[bytes]]] = [{} for _ in range(1 + max(map(max, self.turns.values()), default=0))]
        for stream, lines in self.questions.items():
            for turn, line in zip(self.turns.get(stream) or [0] * len(lines), lines, strict=True):
                found[turn].setdefault(stream, []).append(line)
        return found

    @property
    def size(self) -> int:
        return sum(len(lines) for lines in (*self.questions.values(), *self.events.values()))


class _Lines:
    """The rows of one stream as JSON, encoded a block at a time. Read forwards."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._first = 0
        self._block: list[bytes] = []

    def between(self, first: int, last: int) -> list[bytes]:
        lines: list[bytes] = []
        while first < last:
            if not self._first <= first < self._first + len(self._block):
                self._first = first
                self._block = self._frame.slice(first, ENCODED_AT_ONCE).write_ndjson().encode().splitlines()
            part = self._block[first - self._first : last - self._first]
            lines += part
            first += len(part)
        return lines


class Ticks:
    """Every tick in which anything happens, in order. Empty ones cost nothing: they are not here."""

    def __init__(
        self,
        events: Mapping[str, pl.DataFrame],
        *,
        questions: Collection[str],
        tick: int,
        until: int | None,
        since: int | None = None,
        apart: Apart | None = None,
    ) -> None:
        """`events` are those of a recording, `questions` names the streams that ask, and those in `apart` take turns.

        `tick`, `until` and `since` are microseconds: what became known at `until` or later is left out (None: nothing is),
        as are ticks that ended at `since` or before.
        """
        self._tick = tick
        self._questions = set(questions)
        self._turns: dict[str, NDArray[np.int64]] = {}
        self._frames: dict[str, pl.DataFrame] = {}
        self._numbers: dict[str, NDArray[np.int64]] = {}
        """Of each stream, the tick of each row."""
        for stream, frame in events.items():
            known = frame["known_at"].to_numpy()
            last = len(known) if until is None else int(np.searchsorted(known, until, side="left"))
            first = 0 if since is None else int(np.searchsorted(known // tick, since // tick, side="left"))
            self._numbers[stream] = known[first:last] // tick
            self._frames[stream] = frame.slice(first, max(0, last - first)).drop("known_at")
            if stream in self._questions and apart and stream in apart:
                self._turns[stream] = turns(self._numbers[stream], self._frames[stream], apart[stream])
        found = [np.unique(numbers) for numbers in self._numbers.values()]
        self._ticks: NDArray[np.int64] = np.unique(np.concatenate(found)) if found else np.array([], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ticks)

    @property
    def events(self) -> int:
        """Questions and events in all ticks."""
        return sum(len(frame) for frame in self._frames.values())

    def sent(self, stream: str) -> pl.DataFrame:
        """All of one stream that the ticks hold."""
        return self._frames[stream]

    def known_at(self, stream: str) -> NDArray[np.int64]:
        """When each row of `sent(stream)` becomes known, by this clock."""
        known: NDArray[np.int64] = (self._numbers[stream] + (stream not in self._questions)) * self._tick
        return known + self._turns[stream] if stream in self._turns else known

    def late(self, streams: Mapping[str, Stream]) -> list[str]:
        """A line for each stream whose events this clock makes late."""
        return [
            f"{name}: events will be late and in no window: they become known at the end of a tick of {to_text(self._tick)}, "
            f"and lateness is {to_text(streams[name].lateness)}; write --tick {to_text(streams[name].lateness)}"
            for name, frame in self._frames.items()
            if name not in self._questions and len(frame) and streams[name].lateness < self._tick
        ]

    @property
    def span(self) -> tuple[int, int]:
        """Start of the first tick and end of the last one. Raises IndexError without any."""
        return int(self._ticks[0]) * self._tick, (int(self._ticks[-1]) + 1) * self._tick

    def __iter__(self) -> Iterator[Tick]:
        lines = {stream: _Lines(frame) for stream, frame in self._frames.items()}
        bounds = {
            stream: (np.searchsorted(n, self._ticks, side="left"), np.searchsorted(n, self._ticks, side="right"))
            for stream, n in self._numbers.items()
        }
        for index, number in enumerate(self._ticks):
            questions: dict[str, list[bytes]] = {}
            events: dict[str, list[bytes]] = {}
            taken: dict[str, list[int]] = {}
            for stream, (firsts, lasts) in bounds.items():
                first, last = int(firsts[index]), int(lasts[index])
                if first < last:
                    side = questions if stream in self._questions else events
                    side[stream] = lines[stream].between(first, last)
                    if stream in self._turns:
                        taken[stream] = self._turns[stream][first:last].tolist()
            start = int(number) * self._tick
            yield Tick(start=start, end=start + self._tick, questions=questions, events=events, turns=taken)
