"""The replay's simulated clock: what is asked and what becomes known in each tick."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from millstream_cli.recording import Recording


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Questions are asked at its start with what was known before it; events become known at its end."""

    start: int
    end: int
    questions: dict[str, pl.DataFrame] = field(default_factory=dict)
    events: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(f) for f in (*self.questions.values(), *self.events.values()))


class Ticks:
    """Every tick in which anything happens, in order. Empty ones cost nothing: they are not here."""

    def __init__(self, recording: Recording, *, questions: Collection[str], tick: int, until: int | None) -> None:
        """`questions` names the streams that ask; `tick` and `until` are microseconds (until: excluded, None: all)."""
        self._tick = tick
        self._questions = set(questions)
        self._frames: dict[str, pl.DataFrame] = {}
        self._bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        indices = []
        for stream, frame in recording.items():
            known = frame["known_at"].to_numpy()
            count = len(known) if until is None else int(np.searchsorted(known, until, side="left"))
            index = known[:count] // tick
            indices.append(np.unique(index))
            self._bounds[stream] = (index, known[:count])
            self._frames[stream] = frame.head(count).drop("known_at")
        self.indices: np.ndarray = np.unique(np.concatenate(indices)) if indices else np.array([], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def events(self) -> int:
        """Questions and events in all ticks."""
        return sum(len(frame) for frame in self._frames.values())

    def sent(self, stream: str) -> pl.DataFrame:
        """All of one stream that the ticks hold."""
        return self._frames[stream]

    def __iter__(self) -> Iterator[Tick]:
        for index in self.indices:
            questions: dict[str, pl.DataFrame] = {}
            events: dict[str, pl.DataFrame] = {}
            for stream, frame in self._frames.items():
                of, _ = self._bounds[stream]
                first, last = np.searchsorted(of, [index, index + 1], side="left")
                if first < last:
                    side = questions if stream in self._questions else events
                    side[stream] = frame.slice(int(first), int(last - first))
            start = int(index) * self._tick
            yield Tick(start=start, end=start + self._tick, questions=questions, events=events)
