"""Reads bodies as they stream in: counted, unpacked where they are packed, and with an end to all patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Receive

from millstream.errors import Refusal
from millstream_ingest.api.gate import Load
from millstream_ingest.domain.unpacking import Packed, Plain, Unpacker


async def pieces(receive: Receive, encoding: str, patience: float) -> AsyncIterator[bytes]:
    """The body, unpacked, in pieces as they come; `patience` (s) is for each message of the client.

    Raises Refusal(`body_timeout`, `client_gone`, `bad_encoding`, `compression_ratio`).
    """
    unpacker: Unpacker = Packed(encoding) if encoding else Plain()
    more = True
    while more:
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError as error:
            raise _too_slow(patience) from error
        if message["type"] == "http.disconnect":
            raise Refusal("client_gone", "the client left before its body was complete")
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            for piece in unpacker.feed(chunk):
                yield piece
    unpacker.end()


async def whole(
    receive: Receive, encoding: str, *, length: int | None, limit: int, patience: float, load: Load
) -> bytes:
    """The whole body, at most `limit` bytes, within `patience` seconds; `load` holds what has come.

    Raises Refusal as `pieces` does, `body_too_large`, and `busy` where the load has no room, or gives way to others'.
    """
    if length is not None and length > limit:
        raise _too_large(limit)
    found, size = [], 0
    try:
        async with load.coming(patience):
            async for piece in pieces(receive, encoding, patience):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                load.add(len(piece))
                found.append(piece)
    except TimeoutError as error:
        raise _too_slow(patience) from error
    return b"".join(found)


async def small(receive: Receive, *, length: int | None, limit: int, patience: float, load: Load) -> bytes:
    """`whole` for a plain body, most of which come in one message."""
    if length is not None and length > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(patience):
            message = await receive()
    except TimeoutError as error:
        raise _too_slow(patience) from error
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        load.add(len(body))
        return body

    first = [message]

    async def rest() -> object:
        return first.pop() if first else await receive()

    return await whole(rest, "", length=None, limit=limit, patience=patience, load=load)  # type: ignore[arg-type]


def _too_large(limit: int) -> Refusal:
    return Refusal(
        "body_too_large",
        f"the body is larger than {limit} bytes; send less at once, or lines as application/x-ndjson to the "
        "stream's /events, which takes any length",
    )


def _too_slow(patience: float) -> Refusal:
    return Refusal("body_timeout", f"the body did not arrive within {patience:g} s; send all that content-length says")
