"""Drift as a process on a real Kafka and a real Valkey: killed in the middle, it misses nothing and judges nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from millstream.contracts.dead_letters import DeadLetter, letter_of
from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, Finding, LabelTold, PredictionServed, WindowJudged, WindowKind
from millstream.contracts.times import HOUR
from millstream.contracts.topics import LABELS, PREDICTIONS, dead_letter_topic

from .content_kit import saying, with_content
from .drift_kit import JUNE, Desk, Topics, World
from .drift_process import Verdicts, announce, announcement, drift, make_topics, save_package, send, write_project

pytestmark = [
    pytest.mark.connected,
    pytest.mark.timeout(300),
]  # up to three processes one after the other, and classifiers


@pytest.fixture
def loop(unique_name: Callable[[str], str]) -> str:
    return unique_name("delay")


@pytest.fixture
def settings(kafka: Any, valkey_url: str, loop: str, tmp_path: Path) -> dict[str, Any]:
    """Of a drift that has Kafka and Valkey in common with others, and nothing else."""
    return {
        "kafka": kafka.bootstrap,
        "valkey": valkey_url,
        "namespace": loop,
        "project": tmp_path / "project",
        "packages": tmp_path / "packages",
        "data": tmp_path / "data",
    }


def records(said: list[tuple[str, Any, int]], loop: str) -> list[tuple[str, str, bytes, Envelope]]:
    """The kit's flights as another loop's records, so that tests on one Kafka do not meet."""
    found = []
    for _, event, known_at in said:
        if isinstance(event, PredictionServed):
            renamed = msgspec.structs.replace(event, loop=loop)
            envelope = Envelope(id=renamed.id, type=renamed.type_name, source="test")
            found.append((PREDICTIONS.name, renamed.key, renamed.encode(), envelope))
        else:
            key = event["flight_id"]
            envelope = Envelope(id=f"landing-{key}", type="landed", source="test", known_at=known_at)
            found.append((f"{loop}-landed", key, msgspec.json.encode(event), envelope))
    return found


def told(event: Event) -> dict[str, Any]:
    """An event without what names the loop."""
    fields = msgspec.to_builtins(event)
    return {name: value for name, value in fields.items() if name not in ("id", "loop", "report")}


async def test_killed_in_the_middle_it_says_exactly_what_it_would_have_said(
    kafka: Any, loop: str, settings: dict[str, Any]
) -> None:
    write_project(settings["project"], loop)
    await make_topics(kafka.bootstrap, loop)
    await announce(kafka.bootstrap, announcement(loop, save_package(settings["packages"], "1")))
    world = World().hours(JUNE, 40)
    half = len(world.said)
    world.stretch = 3.0
    world.hours(JUNE + 40 * HOUR, 20)
    expected = (await (await Desk(Topics().add(world.said)).start()).read_all()).speaker.said
    halfway = (await (await Desk(Topics().add(world.said[:half])).start()).read_all()).speaker.said
    settings["snapshot_every"] = 0.2
    verdicts = Verdicts(kafka.bootstrap, loop)
    async with drift(**settings) as first:
        await send(kafka.bootstrap, records(world.said[:half], loop))
        await first.ready()
        await verdicts.until(len(halfway))
        await first.kill()
    await send(kafka.bootstrap, records(world.said[half:], loop))
    async with drift(**settings) as second:
        await verdicts.until(len(expected))
        last = next(event for event in reversed(verdicts.all) if isinstance(event, WindowJudged))
        await second.shows(f"/v1/loops/{loop}/windows", last.id)
        assert await second.metric("millstream_windows_judged_total") > 0
        assert await second.metric("millstream_drift_judges") == 1
        assert await second.stop() == 0
    found = list(verdicts.effective.values())
    assert [told(event) for event in found] == [told(event) for event in expected]
    judged = [event for event in found if isinstance(event, WindowJudged) and event.kind is WindowKind.INPUTS]
    assert [event.index for event in judged] == list(range(len(judged)))
    assert len({event.id for event in judged}) == len(judged)

    # A stop in peace keeps everything: nothing is said again.
    said = len(verdicts.all)
    async with drift(**settings) as third:
        await third.ready()
        more = World(flights=50_000).hours(JUNE + 90 * HOUR, 1)
        await send(kafka.bootstrap, records(more.said, loop))
        await verdicts.until(len(expected) + 1)
    repeated = len(verdicts.all) - len(verdicts.effective)
    assert repeated == said - len(expected)


async def test_labels_of_a_transactional_producer_hold_no_verdict_back(
    kafka: Any, loop: str, settings: dict[str, Any]
) -> None:
    """Each partition of the label stream ends with a commit marker, hours before the last prediction."""
    write_project(settings["project"], loop)
    await make_topics(kafka.bootstrap, loop)
    await announce(kafka.bootstrap, announcement(loop, save_package(settings["packages"], "1")))
    world = World().hours(JUNE, 10).hours(JUNE + 10 * HOUR, 20, labels=False)
    expected = (await (await Desk(Topics().add(world.said)).start()).read_all()).speaker.said
    sent = records(world.said, loop)
    await send(kafka.bootstrap, [one for one in sent if one[0] == PREDICTIONS.name])
    await send(kafka.bootstrap, [one for one in sent if one[0] != PREDICTIONS.name], transaction=loop)
    verdicts = Verdicts(kafka.bootstrap, loop)
    async with drift(**settings):
        await verdicts.until(len(expected))
    assert [told(event) for event in verdicts.effective.values()] == [told(event) for event in expected]


async def test_what_a_direct_producer_breaks_is_a_letter_and_the_verdicts_are_as_without_it(
    kafka: Any, loop: str, settings: dict[str, Any]
) -> None:
    """Labels that break their schema, a label by an id that is none, and an answer that is none of the task."""
    write_project(settings["project"], loop)
    await make_topics(kafka.bootstrap, loop)
    await announce(kafka.bootstrap, announcement(loop, save_package(settings["packages"], "1")))
    world = World().hours(JUNE, 20)
    expected = (await (await Desk(Topics().add(world.said)).start()).read_all()).speaker.said
    good = records(world.said, loop)
    landed = Envelope(id="junk", type="landed", source="/gates/jfk", known_at=JUNE + HOUR)
    label = Envelope(id="junk", type=LabelTold.type_name, source="/gates/jfk")
    answered = next(envelope for topic, _, _, envelope in good if topic == PREDICTIONS.name)
    an_answer = next(value for topic, _, value, _ in good if topic == PREDICTIONS.name)
    bad = [
        (f"{loop}-landed", loop, b'{"flight_id": 7, "landed_at": "2013-06-01T10:00:00Z"}', landed),
        (
            f"{loop}-landed",
            loop,
            b'{"flight_id": "f", "landed_at": "2013-06-01T10:00:00Z", "arr_delay": "late"}',
            landed,
        ),
        (LABELS.name, loop, b"{}", label),
        (PREDICTIONS.name, loop, an_answer.replace(b"probability", b"score"), answered),
    ]
    await send(kafka.bootstrap, good[:100] + bad + good[100:])
    verdicts = Verdicts(kafka.bootstrap, loop)
    async with drift(**settings):
        await verdicts.until(len(expected))
        found = [
            await letters(kafka.bootstrap, topic, loop, bad)
            for topic in (f"{loop}-landed", LABELS.name, PREDICTIONS.name)
        ]

    assert [told(event) for event in verdicts.effective.values()] == [told(event) for event in expected]
    [[number, late], [nothing], [no_answer]] = found
    assert (number.reason, number.detail) == ("schema", '/flight_id: 7 is not of type "string"')
    assert (late.reason, late.detail, late.producer) == (
        "schema",
        '/arr_delay: "late" is not of types "null", "number"',
        "/gates/jfk",
    )
    assert (nothing.reason, no_answer.reason) == ("bad_event", "no_answer")
    assert {one.group for topic in found for one in topic} == {"drift"}


async def letters(bootstrap: str, topic: str, key: str, bad: list[Any]) -> list[DeadLetter]:
    """Those of `topic` with this key, as many as were sent."""
    consumer = AIOKafkaConsumer(
        dead_letter_topic(topic, "drift"), bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[DeadLetter] = []
    try:
        async with asyncio.timeout(60):
            while len(found) < sum(one[0] == topic for one in bad):
                letter = letter_of(await consumer.getone())
                found += [letter] if letter is not None and letter.key == key.encode() else []
    finally:
        await consumer.stop()
    return found


async def test_new_remarks_and_a_turned_echo_are_detected_by_a_real_classifier(
    kafka: Any, loop: str, settings: dict[str, Any]
) -> None:
    """Two calm windows, two in which guests write of refunds and the embedding is turned; no input of the model moved."""
    write_project(settings["project"], loop, drift=", text: [remark], embedding: [echo]")
    await make_topics(kafka.bootstrap, loop)
    await announce(kafka.bootstrap, announcement(loop, save_package(settings["packages"], "1", with_content())))
    world = World().hours(JUNE, 10, labels=False)
    calm = saying(world.said)
    known = len(world.said)
    stirred = saying(world.hours(JUNE + 10 * HOUR, 11, labels=False).said[known:], 3, news=0.5, degrees=45.0)
    await send(kafka.bootstrap, records([*calm, *stirred], loop))
    verdicts = Verdicts(kafka.bootstrap, loop)
    settings["report_timeout"] = 240.0  # classifiers give way to whatever else runs here
    async with drift(**settings) as process:
        await verdicts.until(8, within=240)
        assert await process.metric("millstream_drift_contents_total") == 4
        assert await process.stop() == 0
    judged = [event for event in verdicts.effective.values() if isinstance(event, WindowJudged)]
    inputs = [one for one in judged if one.kind is WindowKind.INPUTS]
    content = [one for one in judged if one.kind is WindowKind.CONTENT]
    assert {one.finding for one in inputs} == {Finding.HEALTHY}
    assert [one.index for one in content] == [0, 1, 2, 3]
    assert [one.finding for one in content] == [
        Finding.HEALTHY,
        Finding.HEALTHY,
        Finding.SUSPECTED,
        Finding.DETECTED,
    ]
    detected = content[-1]
    assert {column.column for column in detected.columns if (column.auc_low or 0) >= 0.55} == {"remark", "echo"}
    assert "'refund'" in detected.reason


async def test_valkey_away_at_the_start_is_named_and_waited_for(
    kafka: Any, valkey: Any, loop: str, settings: dict[str, Any]
) -> None:
    write_project(settings["project"], loop)
    await make_topics(kafka.bootstrap, loop)
    valkey.stop()
    started = False
    try:
        async with drift(**settings) as process:
            await process.shows("/readyz", "Valkey does not answer, check MILLSTREAM_VALKEY")
            valkey.start()
            started = True
            await process.ready()
            assert await process.stop() == 0
    finally:
        if not started:
            valkey.start()
