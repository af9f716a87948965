"""`millstream status`: how a running mill gets on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millstream_cli.loop_lines import lines_of
from millstream_cli.meters import Meters
from millstream_cli.mill import MillState
from millstream_cli.probes import missing_of
from millstream_cli.samples import samples


async def status(root: Path, console: Console, as_json: bool) -> None:
    """Ask every service and Kafka. Raises CommandFailed when no mill runs in `root`."""
    state = MillState.load(root)
    async with httpx.AsyncClient(timeout=5.0) as http:
        ready = await asyncio.gather(*(missing_of(http, url) for url in state.services.values()))
        loops, views = await asyncio.gather(_loops(http, state), _views(http, state))
        phases = await phases_of(http, state.services["trainer"]) if any(one.get("running") for one in loops) else {}
    loops = [with_phase(loop, phases) for loop in loops]
    unfilled = await _unfilled(state)
    meters = Meters(state.kafka, list(_streams(state)))
    await meters.once()
    services: dict[str, dict[str, Any]] = {
        name: {"url": url, "ready": missing == [], "missing": missing, "lag": meters.readings[name].lag}
        for (name, url), missing in zip(state.services.items(), ready, strict=True)
    }
    if as_json:
        print(
            json.dumps(
                {
                    "services": services,
                    "views": views,
                    "unfilled": unfilled,
                    "loops": loops,
                    "kafka": state.kafka,
                    "mlflow": state.mlflow,
                },
                indent=2,
            )
        )
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("service", "state", "lag", "address"):
        table.add_column(column, justify="right" if column == "lag" else "left")
    for name, found in services.items():
        says = "ready" if found["ready"] else "; ".join(found["missing"])
        table.add_row(name, says, f"{found['lag']:,}", found["url"])
    console.print(table)
    if views:
        console.print(_freshness(views))
    for loop in loops:
        for line in lines_of(loop):
            console.print(Text(line), soft_wrap=True)
    for name in unfilled:
        console.print(_remedy(name, views), soft_wrap=True)


def _remedy(name: str, views: list[dict[str, Any]]) -> str:
    """What to do about a view without tiles; features, where it answers, says which are defined."""
    if views and name not in [view["view"] for view in views]:
        return f"view {name} is not defined any more: millstream features forget {name}"
    return f"view {name} cannot be read: millstream features rebuild --view {name}"


def _streams(state: MillState) -> list[str]:
    from millstream.project import load_project

    return list(load_project(state.project).streams)


async def _loops(http: httpx.AsyncClient, state: MillState) -> list[dict[str, Any]]:
    """What the trainer says of each loop; nothing when it does not answer, which the table says."""
    try:
        response = await http.get(f"{state.services['trainer']}/v1/loops")
        return list(response.raise_for_status().json()["loops"])
    except (httpx.HTTPError, ValueError, KeyError):
        return []


async def phases_of(http: httpx.AsyncClient, trainer: str) -> dict[str, str]:
    """Loop → the phase that its run is in."""
    found = await samples(http, trainer, "millstream_training_phase")
    return {labels["loop"]: labels["phase"] for labels, value in found if value}


def with_phase(loop: dict[str, Any], phases: Mapping[str, str]) -> dict[str, Any]:
    """The loop as the trainer says it, and in what phase its run is, which only its metrics know."""
    running = loop.get("running")
    return loop | {"running": running | {"phase": phases.get(loop["loop"])}} if running else loop


async def _views(http: httpx.AsyncClient, state: MillState) -> list[dict[str, Any]]:
    """What features says of each view; nothing when it does not answer, which the table says."""
    try:
        response = await http.get(f"{state.services['features']}/v1/views")
        return list(response.raise_for_status().json()["views"])
    except (httpx.HTTPError, ValueError, KeyError):
        return []


def _freshness(views: list[dict[str, Any]]) -> Table:
    """Each view, the newest event in it, and whether one waits."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("view", "newest event", "freshness"):
        table.add_column(column)
    for view in views:
        waits = view["waits_since"]
        says = f"behind: an event of {waits} waits" if waits else "has all of its stream"
        if not view["filled"]:
            says = "not filled, cannot be read"
        table.add_row(view["view"], view["stream_time"] or "none yet", says)
    return table


async def _unfilled(state: MillState) -> list[str]:
    """The windowed views without tiles that could be read; none when Valkey does not answer."""
    from millstream_tiles.errors import StoreUnavailable
    from millstream_tiles.generations import Generations
    from millstream_tiles.tile_store import ValkeyTileStore

    store = ValkeyTileStore(state.valkey, "millstream", timeout=5.0)
    try:
        table = await Generations(store, "features-tiles").read()
        return sorted(name for name, one in table.views.items() if not one.live)
    except StoreUnavailable:
        return []
    finally:
        await store.close()
