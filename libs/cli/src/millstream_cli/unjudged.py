"""Versions that answer and that drift can judge nothing by: no event says so, the packages and drift itself do."""

from __future__ import annotations

import httpx

from millstream.contracts.package import REFERENCE_FILE, BadPackage
from millstream.errors import RetryLater
from millstream.runtime.packages import PackageStore
from millstream_cli.loop_events import Loop
from millstream_cli.mill import MillState
from millstream_cli.samples import samples

COUNTER = "millstream_drift_predictions_unjudged_total"


async def unjudged(loop: Loop, state: MillState) -> list[str]:
    """What a person has to see to, of the models in a running mill that answer or are on trial. Nothing where all is well. Of a
    drift that does not answer `millstream status` tells."""
    found = unreadable(loop, PackageStore(state.packages))
    async with httpx.AsyncClient(timeout=5.0) as http:
        counts = await samples(http, state.services["drift"], COUNTER)
    lost = sum(value for labels, value in counts if labels.get("loop") == loop.name)
    counted = f"{lost:,.0f} answers are in no window since drift started" if lost else ""
    mend = f"bring the package back and restart drift, or train another: millstream retrain {loop.name} --reason …"
    if found:
        return [f"no window is judged of {'; '.join(found)}; {f'{counted}; ' if counted else ''}{mend}"]
    return (
        [f"{counted}, because the reference of their version could not be read: see drift's log; {mend}"]
        if lost
        else []
    )


def unreadable(loop: Loop, packages: PackageStore) -> list[str]:
    """`version 2: reference.json …` of each that answers or is on trial."""
    state = loop.states[-1] if loop.states else None
    refs = [] if state is None else [ref for ref in (state.champion, state.challenger) if ref is not None]
    found = []
    for ref in refs:
        try:
            packages.file(ref, packages.manifest(ref), REFERENCE_FILE)
        except (BadPackage, RetryLater) as error:
            found.append(f"version {ref.version}: {error}")
    return found
