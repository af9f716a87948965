"""A command sent without the client's own machinery: what goes wrong on its connection is nobody else's business."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio
from redis.exceptions import NoScriptError, TimeoutError

from millstream_tiles.one_command import send, send_async

ECHO = ("EVAL", "return ARGV[1]", 0)


@pytest.mark.connected
def test_a_dead_connection_is_made_anew(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client, redis.Redis.from_url(valkey_url) as other:
        assert send(client, (*ECHO, "first")) == b"first"
        other.client_kill_filter(_type="normal", skipme=True)
        assert send(client, (*ECHO, "second")) == b"second"


@pytest.mark.connected
def test_an_error_of_the_server_leaves_the_connection_alone(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        before = send(client, ("CLIENT", "ID"))
        with pytest.raises(NoScriptError):
            send(client, ("EVALSHA", "0" * 40, 0))
        assert send(client, ("CLIENT", "ID")) == before


@pytest.mark.connected
def test_a_reply_that_came_too_late_is_not_read_as_the_next_one(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url, socket_timeout=0.05) as client, redis.Redis.from_url(valkey_url) as other:
        with pytest.raises(TimeoutError):
            send(client, ("BLPOP", "letters", 0))
        other.rpush("letters", "late")
        assert send(client, (*ECHO, "next")) == b"next"


@pytest.mark.connected
async def test_whoever_is_cancelled_leaves_no_reply_behind(valkey_url: str) -> None:
    client, other = redis.asyncio.Redis.from_url(valkey_url), redis.asyncio.Redis.from_url(valkey_url)
    assert await send_async(client, (*ECHO, "first")) == b"first"
    await other.client_kill_filter(_type="normal", skipme=True)
    assert await send_async(client, (*ECHO, "second")) == b"second", "a dead connection is made anew"
    waiting = asyncio.ensure_future(send_async(client, ("BLPOP", "letters", 0)))
    while not (await other.info("clients"))["blocked_clients"]:
        pass  # each question lets the other task go on
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await other.rpush("letters", "late")
    assert await send_async(client, (*ECHO, "next")) == b"next"
    await client.aclose()
    await other.aclose()
