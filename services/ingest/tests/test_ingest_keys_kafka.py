"""Keys from the command line to every replica: made, shown once, used, revoked within a second, and on record."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from millstream.client import NotAuthorised
from millstream.client.asynchronous import AsyncClient
from millstream.contracts.api_keys import digest_of, id_of
from millstream.contracts.envelope import envelope_of
from millstream.contracts.topics import AUDIT, KEYS
from millstream.project import Stream
from millstream.runtime.topic_admin import ensure_topics, our_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port

from .conftest import departure
from .test_ingest_client import Ingest
from .test_ingest_kafka import departures, ingest, ready, topic_of

pytestmark = pytest.mark.connected


async def millstream(kafka: EmbeddedKafka | str, *args: str) -> subprocess.CompletedProcess[str]:
    bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
    command = [sys.executable, "-m", "millstream_cli.main", "keys", *args, "--kafka", bootstrap]
    environment = {**os.environ, "COLUMNS": "200"}
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )


async def made(kafka: EmbeddedKafka, *args: str) -> dict[str, Any]:
    done = await millstream(kafka, "create", "--json", *args)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
async def stream(kafka: EmbeddedKafka) -> Stream:
    found = departures()
    await topic_of(kafka, found)
    await ensure_topics(kafka.bootstrap, our_topics([KEYS, AUDIT]))
    return found


@pytest.fixture
async def replicas(kafka: EmbeddedKafka, stream: Stream) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(ingest(kafka.bootstrap, stream, auth="keys")) for _ in range(2)]
        for one in both:
            await ready(one)
        yield both


async def status(replica: httpx.AsyncClient, stream: Stream, key: str) -> int:
    body = json.dumps(departure()).encode()
    headers = {"content-type": "application/json", "x-api-key": key}
    return (await replica.post(f"/v1/streams/{stream.name}/events", content=body, headers=headers)).status_code


async def until(replicas: list[httpx.AsyncClient], stream: Stream, key: str, wanted: int) -> float:
    """Seconds until all of them answer so."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        while [await status(one, stream, key) for one in replicas] != [wanted] * len(replicas):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def all_of(kafka: EmbeddedKafka, topic: str) -> list[Any]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[Any] = []
        ends = await consumer.end_offsets(list(consumer.assignment()))
        async with asyncio.timeout(30):
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
        return found
    finally:
        await consumer.stop()


async def test_a_key_is_made_used_and_revoked_at_every_replica_within_a_second(
    kafka: EmbeddedKafka, stream: Stream, replicas: list[httpx.AsyncClient]
) -> None:
    elsewhere = (await made(kafka, "--name", "tower", "--streams", "flights-landed"))["key"]
    await until(replicas, stream, elsewhere, 403)

    # A machine that stands still may take longer than the promise, once or twice; replicas that do not follow always do.
    for _ in range(3):
        key = await made(kafka, "--name", "billing", "--streams", stream.name, "--events", "1000/s", "--as", "ada")
        assert key["id"] == id_of(key["key"])
        await until(replicas, stream, key["key"], 202)
        # The command itself starts for a second, so what counts is how long both replicas go on after it has ended.
        done = await millstream(kafka, "revoke", key["id"], "--as", "bob")
        took = await until(replicas, stream, key["key"], 401)
        print(f"revoked {took:.3f} s after the command")
        assert done.stdout == f"key {key['id']} of billing is revoked\n"
        if took < 1.0:
            break
    assert took < 1.0

    again = await millstream(kafka, "revoke", key["id"])
    assert (again.returncode, again.stdout) == (0, f"key {key['id']} of billing was already revoked\n")
    listed = json.loads((await millstream(kafka, "list", "--json")).stdout)
    [billing] = [one for one in listed if one["id"] == key["id"]]
    assert (billing["name"], billing["state"], billing["events_per_second"]) == ("billing", "revoked", 1000.0)
    shown = await millstream(kafka, "list")
    assert [line.split()[3] for line in shown.stdout.splitlines() if line.startswith(key["id"])] == ["revoked"]

    audit = [json.loads(r.value) for r in await all_of(kafka, AUDIT.name) if r.key == key["id"].encode()]
    assert [(one["action"], one["by"]) for one in audit] == [("created", "ada"), ("revoked", "bob")]
    assert audit[0]["limits"] == {"events_per_second": 1000.0}
    kept = [record for topic in (AUDIT.name, KEYS.name) for record in await all_of(kafka, topic)]
    assert all(envelope_of(record.headers).source == "millstream/cli" for record in kept)
    secret = key["key"].rpartition("_")[2].encode()
    assert not any(secret in record.value for record in kept), "the secret is nowhere"
    assert not any(digest_of(key["key"]).hex() in json.dumps(one) for one in audit), "nor is its hash where people read"


async def test_a_replica_that_starts_later_knows_what_was_revoked(kafka: EmbeddedKafka, stream: Stream) -> None:
    good, gone = [await made(kafka, "--name", "gate", "--streams", "*") for _ in range(2)]
    await millstream(kafka, "revoke", gone["id"])
    async with ingest(kafka.bootstrap, stream, auth="keys") as late:
        await ready(late)
        assert await status(late, stream, gone["key"]) == 401
        assert await status(late, stream, good["key"]) == 202


async def test_a_record_that_cannot_be_read_and_one_that_is_deleted_close_their_keys(
    kafka: EmbeddedKafka, stream: Stream, replicas: list[httpx.AsyncClient]
) -> None:
    broken, deleted = [await made(kafka, "--name", "gate", "--streams", "*") for _ in range(2)]
    for key in (broken, deleted):
        await until(replicas, stream, key["key"], 202)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(KEYS.name, b"{", key=broken["id"].encode())
    await producer.send_and_wait(KEYS.name, None, key=deleted["id"].encode())
    await producer.stop()
    for key in (broken, deleted):
        await until(replicas, stream, key["key"], 401)


async def test_the_client_sends_its_key_and_says_what_is_wrong_with_it(
    kafka: EmbeddedKafka, stream: Stream, replicas: list[httpx.AsyncClient]
) -> None:
    key = (await made(kafka, "--name", "gate", "--streams", stream.name))["key"]
    await until(replicas, stream, key, 202)
    sent = await AsyncClient("http://ingest", key=key, http=replicas[0]).send(stream.name, departure(flight_id="x"))
    assert sent.id == "x"
    with pytest.raises(NotAuthorised, match="say who you are: send an API key") as refused:
        await AsyncClient("http://ingest", http=replicas[0]).send(stream.name, departure())
    assert (refused.value.code, refused.value.status) == ("unauthorized", 401)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("create", "--name", "a", "--streams", "Flights!"), "is no stream's name"),
        (("create", "--name", "a", "--streams", ","), "name the streams that it may write"),
        (("create", "--name", " ", "--streams", "a"), "write whose key it is"),
        (("create", "--name", "a", "--streams", "a", "--expires", "soon"), "is no duration"),
        (("create", "--name", "a", "--streams", "a", "--expires", "0s"), "a key is good for some time"),
        (("create", "--name", "a", "--streams", "a", "--events", "many"), "is no rate; write it like 1000/s"),
        (
            ("create", "--name", "a", "--streams", "flights-left", "-p", "examples/flights"),
            "has no stream flights-left",
        ),
        (("revoke", "nobody"), "there is no key 'nobody'"),
    ],
)
async def test_a_slip_of_the_keyboard_makes_no_key(
    kafka: EmbeddedKafka, stream: Stream, args: tuple[str, ...], said: str
) -> None:
    done = await millstream(kafka, *args)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.replace("│", " ").split())


async def test_without_the_topics_or_kafka_the_command_says_what_to_do() -> None:
    done = await millstream(f"127.0.0.1:{free_port()}", "list")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_process_that_tells_everything_tells_no_secret(
    kafka: EmbeddedKafka, stream: Stream, tmp_path: Path
) -> None:
    """At DEBUG, with the server and all libraries at hand: keys in headers stay there."""
    process = Ingest(tmp_path, kafka, stream.name)
    process._env |= {"MILLSTREAM_AUTH": "keys", "MILLSTREAM_LOG_LEVEL": "DEBUG"}
    key = (await made(kafka, "--name", "gate", "--streams", stream.name))["key"]
    wrong = key[:-8] + "deadbeef"
    try:
        await asyncio.to_thread(process.start)
        async with httpx.AsyncClient(base_url=process.url, timeout=20) as client:
            assert await status(client, stream, key) == 202
            assert await status(client, stream, wrong) == 401
            # Nobody reads a stranger's body, and the connection is good for the next request all the same.
            large = await client.post(f"/v1/streams/{stream.name}/batch", content=b"[" * 3_000_000)
            assert (large.status_code, large.json()["error"]) == (401, "unauthorized")
            assert await status(client, stream, key) == 202
    finally:
        await asyncio.to_thread(process.terminate)
    told = process.log.read_text()
    assert '"started"' in told
    for secret in (key, wrong):
        assert secret.split("_")[2] not in told


def test_open_to_the_network_ingest_does_not_start_until_it_is_said_who_may_write(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    process = Ingest(tmp_path, kafka, "flights-departed")
    process._env |= {"MILLSTREAM_HOST": "0.0.0.0"}
    process.launch()
    assert process.wait(60) == 2
    [line] = process.log_text().splitlines()
    assert line.startswith("millstream: MILLSTREAM_HOST=0.0.0.0 is open to the network")
