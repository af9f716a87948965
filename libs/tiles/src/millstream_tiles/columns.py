"""The columns of an event batch as arrays, each made once however many views ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import LARGEST, View
from millstream_tiles.events import EventBatch
from millstream_tiles.filters import filter_of, filtered
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Floats, Ints
from millstream_tiles.sketches import distinct_entries, spread_slots


def columns_read(views: Iterable[View]) -> tuple[str, ...]:
    """The columns of events that `views` read: keys, what is aggregated, and what their filters look at."""
    wanted: set[str] = set()
    for view in views:
        wanted |= {*view.keys, *(aggregate.column for aggregate in view.aggregates)}
        wanted |= set(filter_of(view.where).fields) if view.where is not None else set()
    return tuple(sorted(wanted - {"", "*"}))


class Columns:
    """The columns of `batch`."""

    def __init__(self, batch: EventBatch) -> None:
        self.batch = batch
        self._numbers: dict[str, Floats] = {}
        self._slots: dict[tuple[str, str], tuple[Ints, Floats]] = {}
        self._filtered: dict[str, NDArray[np.bool_]] = {}
        self._entities: dict[tuple[str, ...], tuple[list[str], Ints]] = {}

    def numbers(self, name: str) -> Floats:
        """Column `name` as float64, NaN where the value is no number (see `definition`)."""
        if name not in self._numbers:
            self._numbers[name] = _numbers(self._raw(name))
        return self._numbers[name]

    def present(self, name: str) -> Floats:
        """1.0 where column `name` is not null, else 0.0."""
        values = self._raw(name)
        return np.array([v is not None and v == v for v in values], dtype=np.float64)

    def entries(self, sketch: str, name: str) -> tuple[Ints, Floats]:
        """What every event says in the sketch ("distinct" or "spread") of column `name`: its slot (-1: nothing) and value."""
        if (sketch, name) not in self._slots:
            if sketch == "distinct":
                found = distinct_entries(self._raw(name))
            else:
                found = spread_slots(self.numbers(name)), np.ones(len(self.batch))
            self._slots[sketch, name] = found
        return self._slots[sketch, name]

    def passing(self, where: str) -> NDArray[np.bool_]:
        """Which events the filter `where` lets through."""
        if where not in self._filtered:
            fields = [self._raw(name) for name in filter_of(where).fields]
            self._filtered[where] = filtered(where, zip(*fields, strict=True), len(self.batch))
        return self._filtered[where]

    def entities(self, keys: tuple[str, ...]) -> tuple[list[str], Ints]:
        """The distinct entities, and for every event the index of its own; -1: it has none."""
        if keys not in self._entities:
            index: dict[str, int] = {}
            texts: dict[Any, int] = {}
            codes = []
            raw = [self._raw(k) for k in keys]
            for row in raw[0] if len(keys) == 1 else zip(*raw, strict=True):
                # Typed, because 1 == True == 1.0 as dictionary keys; str is nearly always what comes.
                typed = row if type(row) is str else (_types(row), row)
                try:
                    code = texts.get(typed)
                except TypeError:  # a list or an object names no entity
                    code = -1
                if code is None:
                    text = entity_text((row,) if len(keys) == 1 else row)
                    code = -1 if text is None else index.setdefault(text, len(index))
                    texts[typed] = code
                codes.append(code)
            self._entities[keys] = (list(index), np.array(codes, dtype=np.int64))
        return self._entities[keys]

    def _raw(self, name: str) -> list[Any]:
        return self.batch.columns.get(name) or [None] * len(self.batch)


def _types(row: Any) -> Any:
    return tuple(map(type, row)) if isinstance(row, tuple) else type(row)


def _numbers(values: list[Any]) -> Floats:
    if set(map(type, values)) <= {float, int, bool}:
        clean: list[Any] = values
    else:
        clean = [v if isinstance(v, (int, float)) else np.nan for v in values]
    try:
        numbers = np.array(clean, dtype=np.float64)
    except OverflowError:  # an int that no double can hold
        numbers = np.array([v if abs(v) <= LARGEST else np.nan for v in clean], dtype=np.float64)
    size = np.abs(numbers)
    numbers[~(size <= LARGEST)] = np.nan
    for i in np.flatnonzero(size == LARGEST).tolist():  # 2**53 + 1 is the same double, and one too many
        if abs(clean[i]) > LARGEST:
            numbers[i] = np.nan
    return numbers
