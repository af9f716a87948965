"""A person's word to the trainer of a mill, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from millstream.contracts.events import Decision, RetrainDecided, RolloutMoved
from millstream_cli.errors import CommandFailed
from millstream_cli.journal import Told, row_of, told_in
from millstream_cli.mill import MillState
from millstream_cli.steps import moved

ANSWERED_WITHIN = 15.0
"""Seconds for the trainer's 202: it waits for Kafka's acks, which may take 12 while a broker goes away."""
AGAIN = 0.1
"""Seconds between two looks for the answer: it takes some milliseconds, and a person notices no tenth."""
GRACE = 1.0
"""Seconds after a step for another of the same request: a rollback ends a trial that stands in its way first."""


@dataclass(frozen=True, kw_only=True)
class Office:
    """Where a person's word goes."""

    trainer: str
    waits: bool
    """Whether somebody waits for the answer."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request."""

    request: str
    decided: tuple[Told, ...]
    """A decision, or steps of the rollout; none: nobody waited, or it is not decided yet."""

    @property
    def refused(self) -> bool:
        """Whether the policy said no."""
        no = (Decision.DECLINED, Decision.EXPIRED)
        return any(isinstance(one.event, RetrainDecided) and one.event.decision in no for one in self.decided)

    @property
    def words(self) -> str:
        """In a line for each."""
        return "\n".join(map(_words, self.decided)) or f"request {self.request} was taken"

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"request": self.request, "refused": self.refused, "decided": [row_of(one) for one in self.decided]}


def _words(told: Told) -> str:
    event = told.event
    if isinstance(event, RetrainDecided):
        run = f", run {event.run}" if event.run is not None else ""
        return f"{event.decision.value}{run}: {event.reason}"
    assert isinstance(event, RolloutMoved), "nothing else is heard"
    state = event.led_to
    said = [moved(event)]
    if state is not None and state.champion is not None and state.champion.version != event.version:
        said.append(f"version {state.champion.version} answers")
    if state is not None:
        said += [f"frozen by {state.frozen}"] if state.frozen else []
        said += [f"pinned to version {state.pinned}"] if state.pinned else []
    # Who freezes a loop is told with the reason, which is the step's own.
    told_already = state is not None and state.frozen.endswith(f": {event.reason}")
    return ", ".join(said) + ("" if told_already else f" ({event.reason})")


def office_of(root: Path, *, trainer: str | None, wait: bool) -> Office:
    """The mill that is named, else the one that runs in `root`. Raises CommandFailed."""
    if trainer is not None:
        return Office(trainer=trainer.rstrip("/"), waits=wait)
    try:
        state = MillState.load(root)
    except CommandFailed as error:
        raise CommandFailed(f"{error}; or name a trainer elsewhere: --trainer") from error
    return Office(trainer=state.services["trainer"], waits=wait)


def me() -> str:
    """The login name, for who says nothing else. Raises CommandFailed where the machine knows none."""
    try:
        return getuser()
    except (OSError, KeyError) as error:  # KeyError before Python 3.13
        raise CommandFailed("this machine does not say who you are; write it: --by NAME") from error


async def ask(office: Office, loop: str, path: str, body: Mapping[str, Any], within: float) -> Answer:
    """Send a word and wait for what comes of it, up to `within` seconds. Raises CommandFailed for a refusal."""
    url = f"{office.trainer}/v1/loops/{quote(loop, safe='')}"
    async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as http:
        request = await _send(http, "POST", f"{url}/{path}", "request", json=dict(body))
        decided = await _hear(http, f"{url}/requests/{request}", within) if office.waits else ()
    return Answer(request=request, decided=decided)


async def give(office: Office, loop: str, graph: bytes) -> str:
    """Send a graph that was made elsewhere; its sha256. Raises CommandFailed."""
    url = f"{office.trainer}/v1/loops/{quote(loop, safe='')}/given"
    async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as http:
        return await _send(http, "PUT", url, "model", content=graph)


async def _send(http: httpx.AsyncClient, method: str, url: str, wanted: str, **what: Any) -> str:
    headers = {"content-type": "application/octet-stream"} if "content" in what else None
    try:
        response = await http.request(method, url, headers=headers, **what)
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
        raise CommandFailed(f"the trainer does not answer at {url} ({said}); look with: millstream status") from error
    try:
        said = response.json()
        if response.is_success:
            return str(said[wanted])
        message = f"{said['message']}"
    except (ValueError, KeyError, TypeError):
        message = response.text[:500] or "without a word"
    raise CommandFailed(f"the trainer refused ({response.status_code}): {message}")


async def _hear(http: httpx.AsyncClient, url: str, within: float) -> tuple[Told, ...]:
    """The decision, or the steps, once there are any. A trainer that is away for a moment is asked again."""
    clock = asyncio.get_running_loop().time
    until = clock() + within
    told: tuple[Told, ...] = ()
    while clock() < until:
        try:
            response = await http.get(url)
            rows = response.json()["decided"] if response.status_code == 200 else []
            found = tuple(map(told_in, rows))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            found = ()
        if any(isinstance(one.event, RetrainDecided) for one in found):
            return found
        if found and not told:
            until = clock() + GRACE
        told = found or told
        await asyncio.sleep(AGAIN)
    return told
