"""Records what a release writes, for the tests of those that follow: python -m tests.contracts.record_release 0.1.0

Five real processes replay four days of flights. Kept are one record of each type as it lies in its topic, the trainer's whole
journal, drift's snapshot, the online store of some entities with what is read from it, a model's package, the project and the
published schemas. Done once a release, when its version is set; what lies there is never edited.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console
from tests.e2e.small_mill import small_project

from millstream.contracts import generate
from millstream.contracts.times import HOUR, from_rfc3339
from millstream.contracts.topics import MODELS, TOPICS, TRAINING
from millstream.runtime.kafka_clients import Consumer
from millstream_cli.mill import Mill, MillState
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.running import run_replay
from millstream_cli.ticks import Ticks
from millstream_tiles.reader import WindowReader
from millstream_tiles.registry import describe

RELEASES = Path(__file__).parent / "releases"
UNTIL = "2013-01-05T00:00:00Z"
ENTITIES = {"origin": ["JFK", "EWR"], "carrier": ["UA", "9E"]}
"""Whose tiles are kept."""
NAMESPACE = "millstream"


def store_of(redis: Any) -> dict[str, list[Any]]:
    """Keys as (type, value), bytes in base64: no more of Valkey's own format than clients see."""
    kept: dict[str, list[Any]] = {}
    endings = tuple(f":{value}".encode() for values in ENTITIES.values() for value in values)
    for key in sorted(redis.scan_iter(f"*{NAMESPACE}*", count=1000)):
        if b":ids:" in key or (b":tile:" in key and not key.endswith(endings)):
            continue
        kind = redis.type(key).decode()
        read = {"string": redis.get, "hash": redis.hgetall, "zset": lambda k: redis.zrange(k, 0, -1, withscores=True)}
        kept[_text(key)] = [kind, _plain(read[kind](key))]
    return kept


def restore(redis: Any, kept: dict[str, list[Any]]) -> None:
    """The opposite, as if it had been recorded just now: tiles expire by the store's clock, and a release grows old."""
    for key, (kind, value) in kept.items():
        name = _bytes(key)
        if kind == "string":
            redis.set(name, _bytes(value))
        elif kind == "hash":
            redis.hset(name, mapping={_bytes(k): _bytes(v) for k, v in value})
        else:
            redis.zadd(name, {_bytes(member): score for member, score in value})
    seconds, micros = redis.time()
    for name in list(redis.scan_iter("*:course:*")):
        behind, stood_at, before = map(int, redis.get(name).split())
        newest = max(map(int, redis.hvals(name.replace(b":course:", b":clock:"))))
        since = seconds * 1_000_000 + micros - newest - behind
        redis.set(name, f"{behind + since} {stood_at} {before + since}")


def windows_of(url: str, project: Path, as_of: int) -> dict[str, dict[str, list[float | None]]]:
    """View → feature → a value for each of `ENTITIES`, as the online store answers."""
    views = dict(describe(project / "features").views)
    reader = WindowReader(url, NAMESPACE, views)
    found = {}
    for name, view in sorted(views.items()):
        [key] = view.keys if len(view.keys) == 1 else [""]
        if key in ENTITIES:
            [values] = reader.read([(name, {key: ENTITIES[key]})], as_of)
            found[name] = {
                feature: [None if value != value else float(value) for value in column]
                for feature, column in sorted(values.items())
            }
    return found


async def records_of(kafka: str, topic: str) -> list[dict[str, Any]]:
    consumer = Consumer(kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found = []
    try:
        await consumer._client.force_metadata_update()
        from aiokafka import TopicPartition

        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    headers = [[name, value.decode()] for name, value in record.headers]
                    key, value = (None if part is None else part.decode() for part in (record.key, record.value))
                    found.append({"topic": topic, "key": key, "headers": headers, "value": value})
    finally:
        await consumer.stop()
    return found


async def record(name: str) -> None:
    to = RELEASES / name
    assert not to.exists(), f"{to} is there already: a release is recorded once"
    with tempfile.TemporaryDirectory() as folder:
        project = small_project(Path(folder) / "project", partitions=1)
        recording = load_recording(project)
        ticks = Ticks(recording.events, questions={"flights-scheduled"}, tick=HOUR, until=from_rfc3339(UNTIL))
        console = Console(file=StringIO(), width=160)
        mill = Mill(
            project=project, root=Path(folder) / "mill", fresh=True, fixed_ports=False, say=print,
            environment={"MILLSTREAM_SNAPSHOT_EVERY": "2"},
        )  # fmt: skip
        try:
            state = await mill.start()
            await run_replay(
                project=project,
                ticks=ticks,
                addresses=Addresses(
                    kafka=state.kafka, ingest=state.services["ingest"], serving=state.services["serving"]
                ),
                console=console,
                states=lambda: {},
                beside=mill.supervise,
            )
            await asyncio.sleep(5)  # the snapshot comes every other second
            kept = await _said(state.kafka)
            _keep(kept, state, to, Path(folder) / "project")
        finally:
            await asyncio.to_thread(mill.stop)


async def _said(kafka: str) -> list[dict[str, Any]]:
    """One record of each type and topic; of the trainer's own topics every one."""
    kept: list[dict[str, Any]] = []
    for topic in [*(topic.name for topic in TOPICS), "flights-scheduled", "flights-departed", "flights-landed"]:
        every = await records_of(kafka, topic)
        of_type: dict[str, dict[str, Any]] = {}
        for one in every:
            of_type.setdefault(dict(one["headers"]).get("ce_type", ""), one)
        kept += every if topic in (TRAINING.name, MODELS.name) else of_type.values()
    return kept


def _keep(kept: list[dict[str, Any]], state: MillState, to: Path, project: Path) -> None:
    to.mkdir(parents=True)
    shutil.copytree(generate.CONTRACTS, to / "schemas")
    shutil.copytree(project, to / "project", ignore=shutil.ignore_patterns("__pycache__", "data", "README.md"))
    lines = "".join(json.dumps(one) + "\n" for one in kept)
    (to / "records.jsonl").write_text(lines.replace(Path(state.packages).parent.as_uri(), "file:///mill"))
    redis = Redis.from_url(state.valkey)
    store = store_of(redis)
    (to / "valkey.json").write_text(json.dumps(store, indent=0) + "\n")
    windows = windows_of(state.valkey, project, from_rfc3339(UNTIL))
    (to / "windows.json").write_text(json.dumps(windows, indent=1) + "\n")
    redis.close()
    [package] = sorted(Path(state.packages).glob("*/*/"))[:1]
    shutil.copytree(package, to / "package")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, dict):
        return [[_text(k), _text(v)] for k, v in sorted(value.items())]
    return [[_text(member), score] for member, score in value]


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
