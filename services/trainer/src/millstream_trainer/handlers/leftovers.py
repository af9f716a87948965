"""Sweeps away the packages of runs that were killed while they saved, or before they could say so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from millstream_trainer.domain.package import is_unclaimed
from millstream_trainer.domain.state import LoopState
from millstream_trainer.ports import Packages

log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two looks; the first is at the start. An attempt at a run leaves one at most, of some megabytes."""


async def sweep_leftovers(packages: Packages, older_than: float, states: Callable[[], Mapping[str, LoopState]]) -> None:
    """Until cancelled. `older_than` is in seconds and at least what a run may take: then nobody still writes what is old."""
    while True:
        known = dict(states())

        def unclaimed(loop: str, name: str, known: Mapping[str, LoopState] = known) -> bool:
            return loop in known and is_unclaimed(known[loop], name)

        try:
            swept = await asyncio.to_thread(packages.sweep, older_than, unclaimed)
        except OSError as error:
            log.warning("packages that nobody asks for cannot be swept: %s", error)
        else:
            if swept:
                log.info("packages that nobody asks for are swept", extra={"packages": swept})
        await asyncio.sleep(EVERY)
