"""Two processes of drift on a real Kafka and a real Valkey share two loops; one is killed, and the other goes on with both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, PredictionServed, WindowJudged, WindowKind
from millstream.contracts.times import HOUR
from millstream.contracts.topics import PREDICTIONS
from millstream_cli.offsets import Offsets

from .drift_kit import JUNE, Desk, Topics, World
from .drift_process import (
    Process,
    Verdicts,
    announce,
    announcement,
    drift,
    make_topics,
    save_package,
    write_project,
)

pytestmark = pytest.mark.connected


async def send(bootstrap: str, said: list[tuple[str, Any, int]], loops: list[str], name: str) -> None:
    """As the world sends it: nothing before all that was known earlier is in Kafka. Who reads meanwhile would take what is
    older, and comes later, for stragglers."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for _, tick in groupby(sorted(said, key=lambda one: one[2]), key=lambda one: one[2]):
            sent = [
                await producer.send(topic, value, key=key.encode(), headers=envelope.headers())
                for topic, key, value, envelope in records([*tick], loops, name)
            ]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


def records(said: list[tuple[str, Any, int]], loops: list[str], name: str) -> list[tuple[str, str, bytes, Envelope]]:
    """Every flight asks each loop; one landing is the label of all."""
    found = []
    for _, event, known_at in said:
        if isinstance(event, PredictionServed):
            for loop in loops:
                renamed = msgspec.structs.replace(event, loop=loop, id=f"{loop}-{event.id}")
                envelope = Envelope(id=renamed.id, type=renamed.type_name, source="test")
                found.append((PREDICTIONS.name, renamed.key, renamed.encode(), envelope))
        else:
            key = event["flight_id"]
            envelope = Envelope(id=f"landing-{key}", type="landed", source="test", known_at=known_at)
            found.append((f"{name}-landed", key, msgspec.json.encode(event), envelope))
    return found


def told(event: Event) -> dict[str, Any]:
    """An event without what names the loop."""
    return {name: value for name, value in msgspec.to_builtins(event).items() if name not in ("id", "loop", "report")}


async def judges(process: Process, loop: str) -> bool:
    try:
        text = (await process.http.get("/metrics")).text
    except httpx.TransportError:
        return False
    return f'millstream_drift_judges{{loop="{loop}"}} 1.0' in text


async def until_each_has_one(processes: list[Process], loops: list[str]) -> dict[str, Process]:
    """Who judges which loop, once each process judges one and nobody two."""
    async with asyncio.timeout(150):
        while True:
            found = [(loop, one) for loop in loops for one in processes if await judges(one, loop)]
            if len(found) == len(loops) == len({id(one) for _, one in found}) == len(dict(found)):
                return dict(found)
            await asyncio.sleep(0.1)


@pytest.mark.timeout(300)  # two processes start on cores that others have too
async def test_two_replicas_judge_a_loop_each_and_one_that_is_killed_is_stood_in_for(
    kafka: Any, valkey_url: str, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique_name("delay")
    loops = [name, f"{name}-early"]
    write_project(tmp_path / "project", name, loops=loops)
    await make_topics(kafka.bootstrap, name)
    for version in loops:
        await announce(kafka.bootstrap, announcement(version, save_package(tmp_path / "packages", "1")))
    world = World().hours(JUNE, 40)
    half = len(world.said)
    world.stretch = 3.0
    world.hours(JUNE + 40 * HOUR, 20)
    expected = (await (await Desk(Topics().add(world.said)).start()).read_all()).speaker.said
    halfway = (await (await Desk(Topics().add(world.said[:half])).start()).read_all()).speaker.said
    settings = {
        "kafka": kafka.bootstrap,
        "valkey": valkey_url,
        "namespace": name,
        "project": tmp_path / "project",
        "packages": tmp_path / "packages",
        "shares": 2,
        "snapshot_every": 0.2,
    }
    verdicts = {loop: Verdicts(kafka.bootstrap, loop) for loop in loops}
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(drift(**settings, data=tmp_path / n)) for n in ("one", "two")]
        owners = await until_each_has_one(both, loops)
        await send(kafka.bootstrap, world.said[:half], loops, name)
        for loop in loops:
            await verdicts[loop].until(len(halfway), within=100)
        for process in both:
            await process.ready()
        owners = await until_each_has_one(
            both, loops
        )  # anew: who was not heard for six seconds has lost its own meanwhile
        gone, left = owners[loops[0]], owners[loops[1]]
        refused = await left.http.get(f"/v1/loops/{loops[0]}/windows")
        assert (refused.status_code, refused.json()["error"]) == (503, "elsewhere")
        offsets = Offsets(kafka.bootstrap)
        await offsets.start()
        stack.push_async_callback(offsets.stop)
        shares = [one for one in await offsets.shares("drift") if one != "drift"]  # of others' tests, of one replica
        assert shares == ["drift-1", "drift-2"], "who waits for drift waits for both"

        await gone.kill()
        await send(kafka.bootstrap, world.said[half:], loops, name)
        for loop in loops:
            await verdicts[loop].until(len(expected), within=100)
        assert await judges(left, loops[0])
        assert await judges(left, loops[1])
        for loop in loops:
            last = next(event for event in reversed(verdicts[loop].all) if isinstance(event, WindowJudged))
            await left.shows(f"/v1/loops/{loop}/windows", last.id)
        assert await left.stop() == 0

    for loop in loops:
        found = list(verdicts[loop].effective.values())
        assert [told(event) for event in found] == [told(event) for event in expected], "none is lost, none is another"
        again = [event for event in verdicts[loop].all if verdicts[loop].effective[event.id] != event]  # type: ignore[attr-defined]
        assert not again, "what is said again, by the one that stood in, is word for word the same"
        windows = [one for one in found if isinstance(one, WindowJudged) and one.kind is WindowKind.INPUTS]
        assert [one.index for one in windows] == list(range(len(windows)))
