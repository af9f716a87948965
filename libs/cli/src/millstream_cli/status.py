"""`millstream status`: how a running mill gets on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from millstream_cli.meters import Meters
from millstream_cli.mill import MillState


async def status(root: Path, console: Console, as_json: bool) -> None:
    """Ask every service and Kafka. Raises CommandFailed when no mill runs in `root`."""
    state = MillState.load(root)
    async with httpx.AsyncClient(timeout=5.0) as http:
        ready = await asyncio.gather(*(_ready(http, url) for url in state.services.values()))
        loops = await _loops(http, state)
    meters = Meters(state.kafka, list(_streams(state)))
    await meters.once()
    services: dict[str, dict[str, Any]] = {
        name: {"url": url, "ready": missing == [], "missing": missing, "lag": meters.readings[name].lag}
        for (name, url), missing in zip(state.services.items(), ready, strict=True)
    }
    if as_json:
        print(
            json.dumps({"services": services, "loops": loops, "kafka": state.kafka, "mlflow": state.mlflow}, indent=2)
        )
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("service", "state", "lag", "address"):
        table.add_column(column, justify="right" if column == "lag" else "left")
    for name, found in services.items():
        says = "ready" if found["ready"] else "; ".join(found["missing"])
        table.add_row(name, says, f"{found['lag']:,}", found["url"])
    console.print(table)
    for name, loop in loops.items():
        console.print(f"{name}: {loop}")


def _streams(state: MillState) -> list[str]:
    from millstream.project import load_project

    return list(load_project(state.project).streams)


async def _ready(http: httpx.AsyncClient, url: str) -> list[str]:
    try:
        answer = (await http.get(f"{url}/readyz")).json()
    except (httpx.TransportError, ValueError) as error:
        return [f"does not answer ({type(error).__name__})"]
    return [f"{what}: {why}" for what, why in answer["missing"].items()]


async def _loops(http: httpx.AsyncClient, state: MillState) -> dict[str, Any]:
    try:
        response = await http.get(f"{state.services['trainer']}/v1/loops")
        found = response.json()
    except (httpx.TransportError, ValueError) as error:
        return {"trainer": f"does not answer ({type(error).__name__})"}
    loops = found.get("loops", found) if isinstance(found, dict) else {"loops": found}
    return dict(loops) if isinstance(loops, dict) else {"loops": loops}
