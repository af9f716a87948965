"""Which loops' models are in memory: by a budget, and the loops that were asked least recently give way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from millstream.contracts.events import ModelRef
from millstream.errors import RetryLater
from millstream_serving.domain.roster import Roster, Standing
from millstream_serving.errors import ModelRefused, ModelUnloaded
from millstream_serving.handlers.loaded import Loaded, Unloaded
from millstream_serving.metrics import ServingMetrics

log = logging.getLogger(__name__)

MIB = 2**20
PATIENCE = 2.0
"""Seconds that a question waits for its models to be loaded again, as for the online store: nearly always that takes a tenth
of it, and a loop that is asked once an hour would else begin each hour with a 503."""
STAY = 5.0
"""Seconds that models stay which were loaded for a question. Where more loops are asked at a time than fit they take turns:
without it they would be loaded for each question."""
REST = 5.0
"""Seconds until a package that could not be loaded again is tried once more."""


class Residents:
    """The one who unloads. `run` beside everything else where there is a budget; without one nothing is ever unloaded."""

    def __init__(
        self,
        roster: Roster[Loaded],
        metrics: ServingMetrics,
        *,
        budget: int | None = None,
        patience: float = PATIENCE,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget`: bytes of all models together, as `ports.Model.size` has them."""
        self._roster = roster
        self._metrics = metrics
        self._budget = budget
        self._patience = patience
        self._stopwatch = stopwatch
        self._asked = dict.fromkeys(roster.standings)
        """Loops, the one that was asked least recently first."""
        self._until: dict[str, float] = {}
        """Until when a loop stays that was loaded for a question."""
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._news = asyncio.Event()
        self._refused: dict[str, tuple[float, str]] = {}
        """Unloaded loops that could not be loaded again: until when nobody tries, and why."""

    async def standing(self, loop: str) -> Standing[Loaded]:
        """Who answers for `loop` now, loaded; still `unloaded` where its package can no longer be served (`why_not`).

        Raises ModelUnloaded: ask again. Raises KeyError for a loop that the project does not have.
        """
        if self._budget is not None:
            del self._asked[loop]
            self._asked[loop] = None
        standing = self._roster.standing(loop)
        if not standing.unloaded or self.why_not(loop):
            return standing
        wanted = self._wanted.get(loop)
        if wanted is None:
            wanted = self._wanted[loop] = asyncio.get_running_loop().create_future()
            wanted.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
            self._news.set()
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(wanted)
        except TimeoutError as error:
            raise ModelUnloaded(f"{loop}: its model is being loaded again; ask again in a moment") from error
        standing = self._roster.standing(loop)
        if standing.unloaded and not self.why_not(loop):
            raise ModelUnloaded(f"{loop}: its model was unloaded just now; ask again in a moment")
        return standing

    def why_not(self, loop: str) -> str:
        """Why the models of `loop`, which are unloaded, cannot be loaded again; empty where they can, or are there."""
        until, why = self._refused.get(loop, (0.0, ""))
        return why if until > self._stopwatch() and self._roster.standing(loop).unloaded else ""

    def check(self, *models: Loaded) -> None:
        """Whether `models`, all of one loop, would fit if nothing else were loaded. Raises ModelRefused("memory")."""
        size = sum(model.size for model in models)
        if self._budget is not None and size > self._budget:
            said = " and ".join(f"version {model.ref.version} ({_mib(model.size)})" for model in models)
            raise ModelRefused("memory", f"{said} do not fit into MILLSTREAM_MODEL_MEMORY, {_mib(self._budget)}")

    def settle(self, loop: str) -> None:
        """`loop` obeys a new state: its models stay, and whoever they leave no room for is unloaded."""
        self._refused.pop(loop, None)
        self._make_room(loop)

    async def run(self, load: Callable[[str, ModelRef], Awaitable[Loaded]]) -> None:
        """Load again what is asked for, one after the other, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            for loop, wanted in list(self._wanted.items()):
                try:
                    await self._load_again(loop, load)
                except ModelRefused as error:
                    self._refused[loop] = self._stopwatch() + REST, str(error)
                    self._metrics.refused.labels(loop, error.reason).inc()
                    log.error("a model that was unloaded cannot be loaded again: %s", error, extra={"loop": loop})
                except RetryLater as error:
                    log.warning("a model that was unloaded cannot be loaded yet: %s", error, extra={"loop": loop})
                    self._wanted.pop(loop).set_exception(ModelUnloaded(f"{loop}: {error}"))
                    continue
                self._wanted.pop(loop)
                wanted.set_result(None)

    async def _load_again(self, loop: str, load: Callable[[str, ModelRef], Awaitable[Loaded]]) -> None:
        before = self._roster.standing(loop)
        champion, other, missing = before.champion, before.other, before.missing
        if not before.unloaded or champion is None:
            return
        began = self._stopwatch()
        needed = sum(model.size for model in before.models.values())
        if self._who_leaves(loop, needed, hurry=False) is None:
            raise ModelUnloaded(
                f"its {_mib(needed)} do not fit beside what was loaded within {STAY:g} s; the loops that are asked at a time "
                "need more than MILLSTREAM_MODEL_MEMORY"
            )
        if not champion.is_here:
            champion = await load(loop, champion.ref)
        if other is not None and not other.is_here:
            try:
                other = await load(loop, other.ref)
            except ModelRefused as error:
                missing = f"{before.role} {other.ref.version}: {error}"
                log.error("nobody to score beside the champion: %s", missing, extra={"loop": loop})
                other = None
        if self._roster.standing(loop) is not before:
            return  # a newer state was obeyed meanwhile
        self._roster.load(loop, champion, other, missing)
        self._until[loop] = self._stopwatch() + STAY
        # Not before it is there: a package that cannot be loaded costs no other loop its models.
        self._make_room(loop)
        log.info("loaded again", extra={"loop": loop, "seconds": round(self._stopwatch() - began, 3)})

    def _make_room(self, loop: str) -> None:
        """Unload others until the models of `loop` fit. They do: `check` has seen to it."""
        for one in self._who_leaves(loop, self._size(loop), hurry=True) or ():
            self._unload(one, loop)
        self._show(loop)

    def _who_leaves(self, loop: str, needed: int, *, hurry: bool) -> list[str] | None:
        """Others whose leaving makes room for the `needed` bytes of `loop`; None where there are not enough. `hurry`: those
        too that were loaded for a question just now."""
        if self._budget is None:
            return []
        sizes = {one: self._size(one) for one in self._asked if one != loop}
        over = sum(sizes.values()) + needed - self._budget
        leaving: list[str] = []
        for one, size in sizes.items():
            if over <= 0:
                break
            if size and (hurry or self._until.get(one, 0.0) <= self._stopwatch()):
                leaving.append(one)
                over -= size
        return None if over > 0 else leaving

    def _unload(self, loop: str, for_whom: str) -> None:
        standing = self._roster.standing(loop)
        assert standing.champion is not None, "nothing is loaded for a loop without a champion"
        log.info("unloaded for want of memory", extra={"loop": loop, "for": for_whom, "bytes": self._size(loop)})
        self._roster.unload(loop, _without(standing.champion), standing.other and _without(standing.other))
        self._metrics.unloaded.labels(loop).inc()
        self._show(loop)

    def _size(self, loop: str) -> int:
        return sum(model.size for model in self._roster.standing(loop).models.values() if model.is_here)

    def _show(self, loop: str) -> None:
        self._metrics.model_bytes.labels(loop).set(self._size(loop))


def _without(loaded: Loaded) -> Loaded:
    """All of it but the model: whoever runs that now keeps it until it is done. One that runs elsewhere takes nothing and
    stays."""
    return replace(loaded, model=Unloaded(loaded.size)) if loaded.size else loaded


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
