"""What drift cannot use: it goes to the dead letters, with its reason, however often Kafka refuses them."""

from __future__ import annotations

from millstream.contracts.events import WindowKind
from millstream.contracts.times import HOUR
from millstream.contracts.topics import PREDICTIONS
from millstream.runtime.delivery import Batch

from .drift_kit import JUNE, LANDED, Desk, KafkaRecord, Topics, World, prediction


async def test_junk_goes_to_the_dead_letters_with_its_reason_and_its_neighbours_are_judged() -> None:
    topics = Topics().add(World().hours(JUNE, 6).said)
    kind = [("ce_type", b"millstream.prediction.served.v1")]
    good = prediction("x", JUNE).encode()

    def junk(value: bytes, headers: list[tuple[str, bytes]] = kind, topic: str = PREDICTIONS.name) -> KafkaRecord:
        return topics.raw(topic, "junk", value, headers)

    junk(good, [])
    junk(b"{broken")
    junk(b"\xff\xfe")
    junk(b"[" * 100_000)
    junk(b'{"id": 5}')
    junk(good.replace(b"probability", b"score"))
    junk(good.replace(b"Z", b""))
    future = topics.raw(PREDICTIONS.name, "junk", prediction("y", JUNE + 200_000 * HOUR).encode(), kind)
    future.timestamp = JUNE // 1000
    junk(b"{broken", [], LANDED)
    junk(b"{}", [], LANDED)
    junk(b"[]", [("ce_knownat", b"yesterday")], LANDED)
    topics.raw(PREDICTIONS.name, "other", prediction("z", JUNE, loop="another-loop").encode(), kind)
    topics.raw(PREDICTIONS.name, "other", b"{}", [("ce_type", b"millstream.prediction.served.v9")])
    desk = await Desk(topics).start()
    bad = [one.error.reason for place in sorted(topics.records) for one in await desk.read(place)]
    broken = ["not_our_event", "bad_json", "bad_json", "bad_event", "bad_event", "no_answer", "bad_event"]
    assert sorted(bad) == sorted([*broken, "known_in_future", "bad_json", "schema", "bad_headers"])
    assert desk.metrics.unknown_loop._value.get() == 1
    assert desk.metrics.unknown_type._value.get() == 1
    assert [v.rows for v in desk.verdicts if v.kind is WindowKind.INPUTS] == [200]


async def test_a_dead_letter_that_kafka_does_not_take_is_named_again_and_no_snapshot_covers_its_record() -> None:
    """The runtime tries the batch again, whose good events are folded already."""
    topics = Topics().add(World().hours(JUNE, 1).said)
    place = PREDICTIONS.name, 0
    topics.raw(PREDICTIONS.name, "junk", b"{broken", [("ce_type", b"millstream.prediction.served.v1")])
    desk = await Desk(topics).start()
    records = topics.records[place]
    batch = Batch(*place, 0, records[-1].offset, records)
    for _ in range(2):
        [bad] = await desk.judging(batch)
        assert bad.error.reason == "bad_json"
        await desk.judging.save()
        assert not desk.snapshots.kept
    desk.log.done[place] = records[-1].offset + 1
    await desk.judging.save()
    assert desk.snapshots.kept, "also when nothing comes behind it"
    assert not await desk.judging(batch)
