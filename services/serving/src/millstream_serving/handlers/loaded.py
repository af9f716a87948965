"""A loaded model, and how it scores questions: whole batches, and one by one where a batch fails."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef
from millstream.contracts.package import Manifest
from millstream.contracts.tasks import Task
from millstream_serving.domain.columns import Columns
from millstream_serving.domain.scores import LATE, NOT_FINITE, RAISED, Output, Scores, outputs_of, shape_of
from millstream_serving.domain.tensor_rows import TablePlan, table_plan
from millstream_serving.errors import ModelAway, ModelFailed
from millstream_serving.handlers.guard import Guard
from millstream_serving.ports import Features, Model, RemoteModel

log = logging.getLogger(__name__)

INLINE_ROWS = 128
"""A run up to here stays on the event loop: 2 ms at most, while a hop to a thread and back costs 0.1 ms and more."""


@dataclass(frozen=True)
class Unloaded:
    """In the place of a model that is not in memory. Nobody runs it: `Residents.standing` brings the model back first."""

    size: int
    """What the model takes once it is loaded again."""

    def run(self, columns: Columns) -> NDArray[np.float32]:
        raise ModelFailed("it was unloaded just now; ask again")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with everything that it needs to answer."""

    ref: ModelRef
    manifest: Manifest
    task: Task
    model: Model | RemoteModel
    features: Features
    guard: Guard = field(default_factory=Guard)

    @cached_property
    def reads(self) -> bool:
        """Whether it wants features at all: a model that was trained elsewhere may take all of it from the question."""
        return any(column.source == "feature" for column in self.manifest.inputs)

    @cached_property
    def inputs(self) -> list[str]:
        """Fields of the question that it takes."""
        return [column.name for column in self.manifest.inputs if column.source == "input"]

    @cached_property
    def table(self) -> TablePlan | None:
        """How one tensor holds all that it takes; None where that cannot be."""
        return table_plan(self.manifest.inputs)

    @property
    def size(self) -> int:
        """Bytes that the model takes, or took; 0 where it runs elsewhere."""
        return 0 if isinstance(self.model, RemoteModel) else self.model.size

    @property
    def is_here(self) -> bool:
        """Whether it is loaded."""
        return not isinstance(self.model, Unloaded)

    @cached_property
    def remote(self) -> RemoteModel | None:
        """The model, where it runs elsewhere."""
        return self.model if isinstance(self.model, RemoteModel) else None

    async def score(self, columns: Columns, rows: int) -> Scores:
        """For the model that is trusted: waited for as long as it takes."""
        if self.remote is not None:
            return await self._asked(self.remote, columns, rows)
        return await asyncio.to_thread(self.run, columns, rows) if rows > INLINE_ROWS else self.run(columns, rows)

    async def score_within(self, deadline: float, columns: Columns, rows: int) -> Scores:
        """For the model that is not: no longer than `deadline` seconds, whatever it does. Raises nothing."""
        try:
            if self.remote is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(deadline):
                        return await self._asked(self.remote, columns, rows)
                return Scores.none(rows, LATE)
            found = await self.guard.call(lambda: self.run(columns, rows), deadline)
        except Exception as error:  # whatever a package can make a library do, the other model answers
            said = {"loop": self.manifest.loop, "version": self.ref.version}
            log.error("a model on trial failed in a way of its own", exc_info=error, extra=said)
            return Scores.none(rows, RAISED)
        return Scores.none(rows, LATE) if found is None else found

    def run(self, columns: Columns, rows: int) -> Scores:
        """Blocks. Where a run fails as a whole each row runs alone: one question that the graph cannot bear costs no other."""
        began = time.perf_counter()
        failures = [""] * rows
        try:
            outputs = self._run(columns, rows)
        except ModelFailed:
            outputs = []
            for row in range(rows):
                try:
                    alone = {name: values[row : row + 1] for name, values in columns.items()}
                    outputs += self._run(alone, 1)
                except ModelFailed:
                    outputs.append(None)
                    failures[row] = RAISED
        for row, output in enumerate(outputs):
            if output is None:
                failures[row] = failures[row] or NOT_FINITE
        return Scores(outputs=outputs, failures=failures, ms=(time.perf_counter() - began) * 1000.0 / max(rows, 1))

    async def _asked(self, remote: RemoteModel, columns: Columns, rows: int) -> Scores:
        """As `run`, but that nobody is asked row by row who does not answer."""
        began = time.perf_counter()
        outputs: list[Output | None] = [None] * rows
        failures = [""] * rows
        away = False
        try:
            outputs = self._outputs(await remote.ask(columns), rows)
        except ModelAway:
            failures, away = [RAISED] * rows, True
        except ModelFailed:
            failures = [RAISED] * rows
            if rows > 1:
                alone = [{name: values[row : row + 1] for name, values in columns.items()} for row in range(rows)]
                found = await asyncio.gather(*(self._asked(remote, one, 1) for one in alone))
                outputs, failures = [one.outputs[0] for one in found], [one.failures[0] for one in found]
                away = any(one.away for one in found)
        for row, output in enumerate(outputs):
            if output is None:
                failures[row] = failures[row] or NOT_FINITE
        ms = (time.perf_counter() - began) * 1000.0 / max(rows, 1)
        return Scores(outputs=outputs, failures=failures, ms=ms, away=away)

    def _run(self, columns: Columns, rows: int) -> list[Output | None]:
        return self._outputs(self.model.run(columns), rows)

    def _outputs(self, found: NDArray[np.float32], rows: int) -> list[Output | None]:
        wanted = shape_of(self.task, self.manifest.classes, rows)
        if found.shape != wanted:
            raise ModelFailed(f"{rows} rows in: shape {found.shape} out, not {wanted}")
        return outputs_of(self.task, self.manifest.classes, found)
