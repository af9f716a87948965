"""Sends a tick's events to ingest, again and again until each was accepted; event ids make a repeat harmless."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence

import aiohttp

from millstream.client.requests import KEY_VARIABLE
from millstream.contracts.times import to_rfc3339
from millstream_cli.errors import CommandFailed, Stuck

PAUSE = 0.5
"""Seconds before the next try."""
LARGEST = 5_000
"""Events of one request; ingest takes 10,000."""


class IngestClient:
    """One connection to ingest. `start` before the first send, `close` at the end. MILLSTREAM_KEY has its key."""

    def __init__(self, url: str, *, patience: float = 180.0) -> None:
        self._url = url
        self._patience = patience
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else None
        self._http = aiohttp.ClientSession(self._url, headers=headers, timeout=aiohttp.ClientTimeout(total=30.0))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def send(self, stream: str, lines: Sequence[bytes], known_at: int) -> None:
        """Send events (JSON, one each) and return when all are in Kafka.

        Raises CommandFailed (ingest refused one), Stuck (ingest or Kafka were away for too long).
        """
        for first in range(0, len(lines), LARGEST):
            await self._post(stream, b"\n".join(lines[first : first + LARGEST]), known_at)

    async def _post(self, stream: str, body: bytes, known_at: int) -> None:
        assert self._http is not None, "start() comes first"
        headers = {"content-type": "application/x-ndjson", "ce-knownat": to_rfc3339(known_at)}
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                async with self._http.post(f"/v1/streams/{stream}/batch", data=body, headers=headers) as response:
                    text = await response.text()  # read in any case: an unread answer costs the connection
                    if response.status == 202:
                        return
            except (aiohttp.ClientError, TimeoutError) as error:
                why, pause = f"{type(error).__name__}: {error}", PAUSE
            else:
                if response.status == 401:
                    raise CommandFailed(f"ingest wants a key; give it in {KEY_VARIABLE}: {_refusals(text)[:600]}")
                if response.status not in (429, 503):
                    raise CommandFailed(f"ingest refused events of {stream}: {response.status} {_refusals(text)[:600]}")
                asked = response.headers.get("retry-after", "")
                # A replay is alone, and Kafka is often back before the 5 s that a 503 says.
                pause = float(asked) if response.status == 429 and asked.isdecimal() else PAUSE
                why = text[:300]
            if clock() - began > self._patience:
                raise Stuck(f"ingest at {self._url} took no events for {self._patience:.0f} s: {why}")
            await asyncio.sleep(pause)


def _refusals(text: str) -> str:
    """Of a batch's answer what was refused; any other as it is."""
    try:
        results = json.loads(text)["results"]
        refused = [one for one in results if one["status"] != "accepted"]
        return json.dumps(refused[:3]) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
    except (ValueError, KeyError, TypeError):
        return text
