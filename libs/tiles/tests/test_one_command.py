"""A command sent without the client's own machinery: what goes wrong on its connection is nobody else's business."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio
from redis.exceptions import NoScriptError, TimeoutError

from millstream_tiles.one_command import Direct, send_async

ECHO = ("EVAL", "return ARGV[1]", 0)


@pytest.mark.connected
def test_a_dead_connection_is_made_anew(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client, redis.Redis.from_url(valkey_url) as other:
        direct = Direct(client)
        assert direct.send((*ECHO, "first")) == b"first"
        other.client_kill_filter(_type="normal", skipme=True)
        assert direct.send((*ECHO, "second")) == b"second"
        assert direct.send((*ECHO, "third")) == b"third"


@pytest.mark.connected
def test_an_error_of_the_server_leaves_the_connection_alone(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        direct = Direct(client)
        before = direct.send(("CLIENT", "ID"))
        with pytest.raises(NoScriptError):
            direct.send(("EVALSHA", "0" * 40, 0))
        assert direct.send(("CLIENT", "ID")) == before


@pytest.mark.connected
def test_a_reply_that_came_too_late_is_not_read_as_the_next_one(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url, socket_timeout=0.05) as client, redis.Redis.from_url(valkey_url) as other:
        direct = Direct(client)
        with pytest.raises(TimeoutError):
            direct.send(("BLPOP", "letters", 0))
        [dropped] = client.connection_pool._available_connections
        dropped.socket_timeout = 30  # when it is made anew
        other.rpush("letters", "late")
        assert direct.send((*ECHO, "next")) == b"next"


@pytest.mark.connected
def test_threads_that_ask_at_once_have_each_a_connection(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url, client_name="threads") as client, ThreadPoolExecutor(8) as pool:
        direct = Direct(client)
        texts = [str(n) for n in range(2_000)]
        assert list(pool.map(lambda text: direct.send((*ECHO, text)), texts)) == [text.encode() for text in texts]
        ours = [one for one in client.client_list() if one["name"] == "threads"]
        assert 0 < len(ours) <= 9, "they are kept, not made for every command"


@pytest.mark.connected
def test_whoever_closes_the_client_closes_what_was_kept(valkey_url: str) -> None:
    client = redis.Redis.from_url(valkey_url)
    direct = Direct(client)
    kept = direct.send(("CLIENT", "ID"))
    client.close()
    with redis.Redis.from_url(valkey_url) as other:
        while kept in {int(one["id"]) for one in other.client_list()}:
            pass  # the server sees it a moment later


@pytest.mark.connected
def test_a_forked_child_leaves_its_parents_connection_alone(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        direct = Direct(client)
        parents = direct.send(("CLIENT", "ID"))
        monkeypatch.setattr(os, "getpid", lambda: 1)
        childs = direct.send(("CLIENT", "ID"))
        assert childs != parents
        assert direct.send(("CLIENT", "ID")) == childs


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
