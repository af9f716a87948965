"""Sends a tick's events to ingest, again and again until each was accepted; event ids make a repeat harmless."""

from __future__ import annotations

import asyncio
import io

import httpx
import polars as pl

from millstream.contracts.times import to_rfc3339
from millstream_cli.errors import CommandFailed, Stuck

LARGEST = 5_000
"""Events of one request; ingest takes 10,000."""


class IngestClient:
    """One connection to ingest. Use as an async context manager."""

    def __init__(self, url: str, *, patience: float = 180.0) -> None:
        self._url = url
        self._patience = patience
        self._http = httpx.AsyncClient(base_url=url, timeout=30.0)

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, stream: str, events: pl.DataFrame, known_at: int) -> None:
        """Send and return when all are in Kafka. Raises CommandFailed (refused), Stuck (ingest or Kafka away too long)."""
        for part in events.iter_slices(LARGEST):
            buffer = io.BytesIO()
            part.write_ndjson(buffer)
            await self._post(stream, buffer.getvalue(), known_at)

    async def _post(self, stream: str, body: bytes, known_at: int) -> None:
        headers = {"content-type": "application/x-ndjson", "ce-knownat": to_rfc3339(known_at)}
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                response = await self._http.post(f"/v1/streams/{stream}/batch", content=body, headers=headers)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 202:
                    return
                if response.status_code != 503:
                    raise CommandFailed(
                        f"ingest refused events of {stream}: {response.status_code} {response.text[:600]}"
                    )
                why = response.text[:300]
            if clock() - began > self._patience:
                raise Stuck(f"ingest at {self._url} took no events for {self._patience:.0f} s: {why}")
            await asyncio.sleep(0.5)
