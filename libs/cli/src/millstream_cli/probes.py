"""What the services say of themselves, asked again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

EVERY = 1.0
"""Seconds between two looks."""


async def missing_of(http: httpx.AsyncClient, url: str) -> list[str]:
    """What the service at `url` waits for; nothing when it is ready."""
    try:
        answer = (await http.get(f"{url}/readyz")).json()
        return [f"{what}: {why}" for what, why in answer["missing"].items()]
    except (httpx.TransportError, ValueError, KeyError) as error:
        return [f"does not answer ({type(error).__name__})"]


class Probes:
    """The state of each service in one word, for who shows it."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = dict(urls)
        self.states = dict.fromkeys(urls, "…")

    async def run(self) -> None:
        """Look until cancelled."""
        async with httpx.AsyncClient(timeout=5.0) as http:
            while True:
                found = await asyncio.gather(*(missing_of(http, url) for url in self._urls.values()))
                for name, missing in zip(self._urls, found, strict=True):
                    self.states[name] = "not ready" if missing else "ready"
                await asyncio.sleep(EVERY)
