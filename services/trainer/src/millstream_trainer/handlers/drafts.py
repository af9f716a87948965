"""Sweeps away the half-written packages of runs that were killed while they saved."""

from __future__ import annotations

import asyncio
import logging

from millstream_trainer.ports import Packages

log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two looks; the first is at the start. A run leaves one draft at most, of some megabytes."""


async def sweep_drafts(packages: Packages, older_than: float) -> None:
    """Until cancelled. `older_than` is in seconds and at least what a run may take: then no draft of a run under way is old."""
    while True:
        try:
            swept = await asyncio.to_thread(packages.sweep, older_than)
        except OSError as error:
            log.warning("drafts of packages cannot be swept: %s", error)
        else:
            if swept:
                log.info("drafts of packages swept", extra={"drafts": swept})
        await asyncio.sleep(EVERY)
