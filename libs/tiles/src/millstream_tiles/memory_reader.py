"""Reads windows from a MemoryTileStore, by the same arithmetic as from Valkey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from millstream_tiles.definition import View
from millstream_tiles.held import Course, Gone, gone_of, without
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Floats, Ints
from millstream_tiles.memory_tiles import MemoryTileStore
from millstream_tiles.read_plan import Request
from millstream_tiles.tiling import Tiling, tilings_of
from millstream_tiles.windows import Coarse, Values, window_values


class MemoryWindowReader:
    """`WindowReader.read` for tests and for trying a view out."""

    def __init__(self, store: MemoryTileStore, views: Mapping[str, View]) -> None:
        self.store = store
        self.views = views
        self._stand_ins: set[View] = set()

    def stand_in(self, view: View, original: View) -> None:
        """`WindowReader.stand_in`."""
        self._stand_ins.add(view)

    def read(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """For each request the view's features: arrays with one value a row."""
        return [self._read(self.views[name], columns, as_of) for name, columns in requests]

    async def read_async(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """`read`; nothing is waited for."""
        return self.read(requests, as_of)

    def has_tiles(self, name: str, columns: Mapping[str, Sequence[object]]) -> bool:
        """`WindowReader.has_tiles`."""
        view = self.views[name]
        entities = [entity_text(row) for row in zip(*(columns[k] for k in view.keys), strict=True)]
        return any(self._held(level, entities)[1].any() for tiling in tilings_of(view) for level in tiling.levels)

    def stream_times(self) -> dict[str, dict[int, int]]:
        """Stream -> partition -> the largest known-at applied (microseconds)."""
        times: dict[str, dict[int, int]] = {view.stream: {} for view in self.views.values()}
        for (stream, partition), time in self.store.clock.items():
            times.setdefault(stream, {})[partition] = time
        return times

    def _read(self, view: View, columns: Mapping[str, Sequence[object]], as_of: int | Ints) -> Values:
        entities = [entity_text(row) for row in zip(*(columns[k] for k in view.keys), strict=True)]
        times = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(entities))
        values: Values = {}
        gone: Gone = {}
        keyed = np.array([entity is not None for entity in entities], dtype=bool)
        times_of = self.stream_times().get(view.stream, {})
        newest = 0 if view in self._stand_ins else max(times_of.values(), default=0)
        for tiling in tilings_of(view):
            rows, counts = self._held(tiling, entities)
            coarse = None
            if tiling.coarse is not None:
                long_rows, long_counts = self._held(tiling.coarse, entities)
                coarse = Coarse(many=tiling.coarse.layout.coarse, rows=long_rows, counts=long_counts)
            every = np.arange(len(entities))
            found = window_values(tiling.aggregates, tiling.layout, rows, counts, every, times, coarse)
            values |= {a.name: column for a, column in zip(tiling.aggregates, found, strict=True)}
            gone |= gone_of(tiling, times, keyed, Course(newest=newest))
        return without({a.name: values[a.name] for a in view.aggregates}, gone)

    def _held(self, tiling: Tiling, entities: Sequence[str | None]) -> tuple[Floats, Ints]:
        """The rows of all entities, and how many each has."""
        name = tiling.view.name, tiling.slide, tiling.layout.mark
        tiles = [self.store.tiles.get((*name, e), {}) if e is not None else {} for e in entities]
        rows = [row for held in tiles for row in held.values()]
        counts = np.array([len(held) for held in tiles], dtype=np.int64)
        return np.array(rows).reshape(-1, tiling.layout.width), counts
