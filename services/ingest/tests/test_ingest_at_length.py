"""Long bodies and many requests, to ingest as a process on a real Kafka: its memory stays where it is, and nothing fails.

The short forms run with the other tests; `make prove` sends a body of 5 GB, and five million events.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from millstream.testing.kafka import EmbeddedKafka

from .test_ingest_client import Ingest

pytestmark = pytest.mark.connected
GROWTH = 16 * 2**20
"""Bytes, from the first fifth on. A body of 64 MB that is kept shows, and so do 250 bytes an event of the shortest soak."""
LINE = 3_000
BLOCK = 500
"""Events that are made once; the next blocks differ in their ids alone, so that sending costs next to nothing."""
CONNECTIONS = 4
SINGLES, OTHERS, STREAMED = 10_000_000, 20_000_000, 30_000_000
"""No event of one kind has the id of another's."""
ROUND = 4_520
"""Events that one round of a producer brings, in 24 requests."""
LONG = [pytest.mark.prove, pytest.mark.timeout(7200)]


@pytest.fixture
async def ingest(kafka: EmbeddedKafka, tmp_path: Path, unique_name: Callable[[str], str]) -> Ingest:
    """Not started yet. Kafka may drop what is older than some segments: nobody reads it."""
    name = unique_name("departures")
    short = {"retention.bytes": str(64 * 2**20), "segment.bytes": str(32 * 2**20)}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 3, 1, topic_configs=short)])
    await admin.close()
    # Few ids are remembered, so that this memory is full from the beginning and none of it is growth.
    return Ingest(tmp_path, kafka, name, MILLSTREAM_DEDUPE_EVENTS="2000")


def block(count: int, size: int = 0) -> bytes:
    """Lines; `@@@@@@@@` stands for what `told` makes of them."""
    made = []
    for number in range(count):
        event = {"flight_id": f"@@@@@@@@-{number:05}", "tailnum": f"N{number % 97}"}
        event |= {"departed_at": "2013-01-01T10:17:00Z", "remark": ""}
        event["remark"] = "x" * (size - len(json.dumps(event)) - 1)
        made.append(json.dumps(event).encode() + b"\n")
    return b"".join(made)


def told(lines: bytes, number: int) -> bytes:
    return lines.replace(b"@@@@@@@@", b"%08d" % number)


class Watch(threading.Thread):
    """Looks at the memory of `ingest` ten times a second."""

    def __init__(self, ingest: Ingest) -> None:
        super().__init__(daemon=True)
        self._ingest, self._over = ingest, threading.Event()
        self.seen: list[int] = []

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.seen.append(self._ingest.resident_bytes())

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.join()

    def grown(self) -> int:
        """From the most of the first fifth to the most of all."""
        return max(self.seen) - max(self.seen[: max(1, len(self.seen) // 5)])


@pytest.mark.parametrize("size", [64_000_000, pytest.param(5_000_000_000, marks=LONG)])
async def test_a_body_of_any_length_leaves_memory_where_it_is(ingest: Ingest, size: int) -> None:
    await asyncio.to_thread(_stream, ingest, size)


def _stream(ingest: Ingest, size: int) -> None:
    blocks = size // (BLOCK * LINE)
    ingest.start()
    try:
        with Watch(ingest) as watch, socket.create_connection(ingest.url.removeprefix("http://").split(":")) as sock:
            lines = block(BLOCK, LINE)
            head = (
                f"POST /v1/streams/{ingest.stream}/events HTTP/1.1\r\nhost: h\r\ncontent-type: application/x-ndjson\r\n"
            )

            def send() -> None:
                sock.sendall(f"{head}content-length: {len(lines) * blocks}\r\n\r\n".encode())
                for number in range(blocks):
                    sock.sendall(told(lines, number))

            sender = threading.Thread(target=send, daemon=True)
            began = time.monotonic()
            sender.start()
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            results, last = 0, b""
            while piece := answer.read1(1 << 18):
                results += piece.count(b"\n")
                last = (last + piece)[-4096:]
            sender.join()
        print(f"{size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s; grown by {watch.grown() / 2**20:.1f} MiB")
        counts = {"accepted": blocks * BLOCK, "rejected": 0, "not_accepted": 0, "unknown": 0}
        assert (answer.status, json.loads(last.splitlines()[-1])) == (200, counts)
        assert results == blocks * BLOCK + 1, "a line for each, and the counts"
        assert watch.grown() < GROWTH
    finally:
        ingest.terminate()


@pytest.mark.parametrize("events", [100_000, pytest.param(5_000_000, marks=LONG)])
async def test_many_requests_leave_memory_where_it_is_and_none_fails(ingest: Ingest, events: int) -> None:
    """Every way in at once: one by one, lines, arrays, packed, streams, what is wrong and what is said again."""
    await asyncio.to_thread(_soak, ingest, events)


def _soak(ingest: Ingest, events: int) -> None:
    rounds = -(-events // ROUND)
    ingest.start()
    try:
        began = time.monotonic()
        with Watch(ingest) as watch, ThreadPoolExecutor(CONNECTIONS) as producers:
            shares = [range(first, rounds, CONNECTIONS) for first in range(CONNECTIONS)]
            met = sum(producers.map(lambda share: _produce(ingest, share), shares), Counter[int]())
        print(f"{dict(met)} in {time.monotonic() - began:.0f} s; grown by {watch.grown() / 2**20:.1f} MiB")
        assert met == {200: rounds, 202: 24 * rounds, 404: rounds, 422: rounds}
        assert watch.grown() < GROWTH
    finally:
        ingest.terminate()


def _produce(ingest: Ingest, rounds: range) -> Counter[int]:
    """The statuses that one producer, on one connection, met."""
    with closing(http.client.HTTPConnection(ingest.url.removeprefix("http://"), timeout=60)) as connection:
        return _rounds(ingest, connection, rounds)


def _rounds(ingest: Ingest, connection: http.client.HTTPConnection, rounds: range) -> Counter[int]:
    met: Counter[int] = Counter()

    def post(path: str, body: bytes, kind: str = "application/x-ndjson", **headers: str) -> bytes:
        connection.request("POST", f"/v1/streams/{path}", body, {"content-type": kind} | headers)
        answer = connection.getresponse()
        met[answer.status] += 1
        return answer.read()

    lines = block(2_000, 300)
    singles, half = lines.splitlines()[:20], lines[: lines.index(b"-01000")].rpartition(b"\n")[0]
    for number in rounds:
        for one in singles:
            last = told(one, SINGLES + number)
            post(f"{ingest.stream}/events", last, "application/json")
        post(f"{ingest.stream}/events", last, "application/json")  # said again
        post(f"{ingest.stream}/batch", told(lines, number))
        some = told(lines, OTHERS + number).splitlines()
        post(f"{ingest.stream}/batch", b"[" + b",".join(some[:500]) + b"]", "application/json")
        packed = gzip.compress(b"\n".join(some[500:1_500]), 1)
        post(f"{ingest.stream}/batch", packed, **{"content-encoding": "gzip"})
        said = post(
            f"{ingest.stream}/events?results=rejected",
            told(half, STREAMED + number),
        )
        assert json.loads(said)["accepted"] == 1_000
        post(f"{ingest.stream}/events", b'{"flight_id": 1}', "application/json")
        post("nobody/events", b"{}", "application/json")
    return met
