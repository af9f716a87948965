"""Whatever Kafka, Valkey and the kernel do to drift: the same events give the same verdicts, each prediction in one window."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import httpx
import pytest

from millstream.contracts.events import ModelRef, WindowKind
from millstream.contracts.times import HOUR, to_datetime, to_rfc3339
from millstream.contracts.topics import LABELS, PREDICTIONS
from millstream.errors import RetryLater
from millstream.runtime.delivery import Rewind
from millstream.runtime.publisher import Outgoing
from millstream_drift.adapters.memory import MemorySnapshots
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, day, landing, loop, prediction, streams


@cache
def _week() -> World:
    world = World().hours(JUNE, 30)
    world.stretch = 3.0
    world.hours(JUNE + 30 * HOUR, 30)
    world.stretch, world.skill = 1.0, -1.0
    return world.hours(JUNE + 60 * HOUR, 30)


def week() -> Topics:
    """Four days with a storm and answers that get worse."""
    return Topics().add(_week().said)


@pytest.mark.parametrize("seed", range(6))
async def test_batches_and_interleavings_change_nothing(seed: int) -> None:
    topics = week()
    whole = await (await Desk(topics).start()).read_all()
    bits = await (await Desk(topics).start()).read_all(most=400, seed=seed)
    assert whole.speaker.said
    assert bits.speaker.said == whole.speaker.said


async def test_what_is_judged_anew_without_a_snapshot_has_ids_of_its_own() -> None:
    """Kafka has deleted the first hours meanwhile, so windows are counted from another one on: whoever answered window 1 is
    not to take the new window 1 for it."""
    said = _week().said
    whole = await (await Desk(Topics().add(said)).start()).read_all()
    rest = await (await Desk(Topics().add(one for one in said if one[2] >= JUNE + 22 * HOUR)).start()).read_all()
    assert {one.index for one in rest.verdicts} < {one.index for one in whole.verdicts}
    assert {one.id for one in rest.verdicts}.isdisjoint(one.id for one in whole.verdicts)


async def test_reading_along_says_the_same_as_reading_it_all_later() -> None:
    world = World().hours(JUNE, 50)
    later = await (await Desk(Topics().add(world.said)).start()).read_all()
    along = await Desk(Topics()).start()
    for said in sorted(world.said, key=lambda one: one[2]):
        along.topics.add([said])
        await along.read_all()
    assert along.speaker.said == later.speaker.said


async def test_a_window_is_judged_in_the_tick_that_closes_it() -> None:
    """A replay waits for the commit of a tick's last record; by then the verdict has to be out."""
    topics = Topics()
    desk = await Desk(topics).start()
    world = World()
    said_after = []
    for tick in range(12):
        known = len(world.said)
        world.hours(JUNE + tick * HOUR, 1, labels=False)
        topics.add(world.said[known:])
        await desk.read_all()
        said_after.append(len(desk.verdicts))
    # 40 an hour: full with the fifth tick's rows, closed by the sixth's.
    assert said_after == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]


async def test_each_prediction_is_in_exactly_one_inputs_window() -> None:
    topics = week()
    desk = await (await Desk(topics).start()).read_all(most=300, seed=3)
    asked = sum(len(log) for (topic, _), log in topics.records.items() if topic == PREDICTIONS.name)
    judged = sum(v.rows for v in desk.verdicts if v.kind is WindowKind.INPUTS)
    waiting = desk.judging._fold.loops[LOOP].windows.rows("1", WindowKind.INPUTS) + sum(
        one.order[1] == 0 for one in desk.judging._fold.loops[LOOP]._held
    )
    assert judged + waiting == asked
    indexes = [v.index for v in desk.verdicts if v.kind is WindowKind.INPUTS]
    assert indexes == list(range(len(indexes)))


async def test_a_restart_from_a_snapshot_goes_on_as_if_nothing_had_happened() -> None:
    topics = week()
    whole = await (await Desk(topics).start()).read_all(most=250)
    store = MemorySnapshots()
    first = await Desk(topics, store).start()
    for place in sorted(topics.records):
        await first.read(place, 700)
    await first.judging.save()
    second = await (await Desk(topics, store).start()).read_all(most=250)
    assert second.next == whole.next
    assert first.speaker.said + second.speaker.said == whole.speaker.said
    assert second.judging.lately(LOOP) == whole.judging.lately(LOOP)


async def test_a_kill_between_publish_and_snapshot_says_the_same_again() -> None:
    topics = week()
    store = MemorySnapshots()
    first = await Desk(topics, store).start()
    for place in sorted(topics.records):
        await first.read(place, 300)
    await first.judging.save()
    before = len(first.speaker.said)
    await first.read_all()
    # kill -9 here: everything since the snapshot was said, nothing of it kept
    second = await (await Desk(topics, store).start()).read_all(most=170, seed=1)
    assert second.speaker.said == first.speaker.said[before:]


async def test_kafka_not_confirming_repeats_ids_and_folds_nothing_twice() -> None:
    topics = week()
    whole = await (await Desk(topics).start()).read_all()
    desk = await Desk(topics).start()
    desk.speaker.away = True
    places = sorted(topics.records)
    for place in places:
        try:
            await desk.read(place)
        except RetryLater:
            with pytest.raises(RetryLater):
                await desk.read(place)
            desk.speaker.away = False
            await desk.read(place)
    assert desk.speaker.said == whole.speaker.said
    assert desk.judging._fold.loops[LOOP].join.counts == whole.judging._fold.loops[LOOP].join.counts


async def test_no_snapshot_while_something_is_unsaid_or_unburied() -> None:
    topics = week()
    desk = await Desk(topics).start()
    await desk.judging.save()
    desk.speaker.away = True
    with pytest.raises(RetryLater):
        await desk.read_all()
    await desk.judging.save()
    assert not desk.snapshots.kept
    desk.speaker.away = False
    await desk.read_all()
    topics.raw(LANDED, "junk", b"{", [])
    await desk.read_all()
    buried = desk.log.done.pop((LANDED, 0))
    topics.add([(PREDICTIONS.name, prediction("next", day(9)), 0)])
    await desk.read_all()
    await desk.judging.save()
    assert not desk.snapshots.kept, "the dead letter is not confirmed"
    desk.log.done[LANDED, 0] = buried
    await desk.judging.save()
    assert desk.snapshots.kept


async def test_valkey_away_keeps_judging_and_saves_later() -> None:
    desk = await Desk(week()).start()
    desk.snapshots.away = True
    await desk.read_all()
    assert desk.verdicts
    await desk.judging.save()
    assert desk.metrics.snapshot_failures._value.get() == 1
    desk.snapshots.away = False
    await desk.judging.save()
    assert desk.snapshots.kept


async def test_valkey_away_at_the_start_is_waited_for() -> None:
    desk = Desk(week())
    desk.snapshots.away = True
    with pytest.raises(RetryLater):
        await desk.start()


async def test_a_prediction_that_overtook_its_models_announcement_waits_and_changes_nothing() -> None:
    topics = Topics().add(World(version="2").hours(JUNE, 6).said)
    desk = await Desk(topics).start()
    place = PREDICTIONS.name, 0
    with pytest.raises(RetryLater, match="version 2 of flight-delay answered, but is not announced yet"):
        await desk.read(place)
    assert desk.judging._fold.loops[LOOP].held == 0
    desk.models.known[LOOP, "2"] = desk.models.known[LOOP, "1"]
    await desk.read_all()
    assert [v.rows for v in desk.verdicts if v.kind is WindowKind.INPUTS] == [200]


async def test_a_version_nobody_ever_announces_stops_nobody_for_ever() -> None:
    desk = await Desk(Topics().add(World(version="ghost").hours(JUNE, 30).said)).start()
    with pytest.raises(RetryLater):
        await desk.read_all()
    desk.clock = 61.0
    await desk.read_all()
    assert not desk.verdicts
    assert desk.matured[-1].matured > 0, "its questions still have labels"


async def test_waiting_rows_of_a_version_without_reference_after_a_restart_are_dropped_not_fatal() -> None:
    topics = Topics().add(World().hours(JUNE, 30).said)
    store = MemorySnapshots()
    first = await (await Desk(topics, store).start()).read_all()
    await first.judging.save()
    second = Desk(topics, store)
    second.models.known.clear()
    second.models.lost.add((LOOP, "1"))
    await second.start()
    topics.add(World(flights=10_000).hours(JUNE + 40 * HOUR, 30).said)
    await second.read_all()
    assert not second.verdicts
    assert second.matured


async def test_snapshots_remember_where_the_packages_of_waiting_versions_are() -> None:
    topics = Topics().add(World().hours(JUNE, 3).said)
    store = MemorySnapshots()
    first = await Desk(topics, store).start()
    ref = ModelRef(version="1", run="r", uri="file:///p", sha256="0", at=to_datetime(JUNE))
    first.models.refs[LOOP, "1"] = ref
    await first.read_all()
    await first.judging.save()
    second = await Desk(topics, store).start()
    assert second.models.refs == {(LOOP, "1"): ref}


async def test_a_replica_with_some_of_the_partitions_judges_nothing_and_says_why() -> None:
    topics = week()
    desk = Desk(topics)
    await desk.judging.assigned(sorted(topics.records)[:7])
    assert "2 of 9 partitions are not assigned" in desk.health.not_ready()["all partitions of drift"]
    desk.next = dict.fromkeys(topics.records, 0)
    with pytest.raises(RetryLater, match="2 of 9 partitions"):
        await desk.read_all()
    await desk.start()
    await desk.read_all()
    assert desk.verdicts
    assert desk.health.not_ready() == {}


async def test_topics_made_anew_are_read_from_their_start() -> None:
    store = MemorySnapshots()
    old = await (await Desk(week(), store).start()).read_all()
    await old.judging.save()
    young = Topics().add(World().hours(JUNE, 10).said)
    desk = await (await Desk(young, store).start()).read_all()
    fresh = await (await Desk(young).start()).read_all()
    assert desk.speaker.said == fresh.speaker.said


async def test_a_snapshot_of_another_release_begins_from_the_topics() -> None:
    store = MemorySnapshots()
    store.kept[LOOP] = b"drift9 something else"
    desk = await (await Desk(week(), store).start()).read_all()
    assert desk.verdicts


async def test_a_batch_beyond_the_position_is_read_again_and_only_then_given_up() -> None:
    topics = Topics().add(World().hours(JUNE, 10).said)
    desk = await Desk(topics).start()
    place = PREDICTIONS.name, 0
    desk.next[place] = 5
    with pytest.raises(Rewind) as back:
        await desk.read(place)
    assert back.value.offset == 0
    await desk.read(place)  # Kafka has nothing below 5 any more: the same batch comes again
    assert desk.metrics.lost._value.get() == 5


async def test_a_label_that_is_read_before_its_question_still_finds_it() -> None:
    topics = Topics().add(
        [
            (LANDED, landing("swift", day(1) + HOUR), day(1) + HOUR),
            (PREDICTIONS.name, prediction("swift", day(1)), 0),
            (PREDICTIONS.name, prediction("next", day(2)), 0),
        ]
    )
    desk = await Desk(topics).start()
    for place in sorted(topics.records, reverse=True):
        await desk.read(place)
    assert [clock.matured for clock in desk.matured] == [1]


async def test_a_question_answered_a_day_late_still_meets_its_held_label() -> None:
    """Serving was down while flights landed: its answers come with yesterday's time."""
    topics = Topics()
    desk = await Desk(topics).start()
    topics.add([(LANDED, landing("patient", day(1) + 23 * HOUR), day(1) + 23 * HOUR)])
    topics.add([(LANDED, landing("other", day(2) + HOUR), day(2) + HOUR)])
    await desk.read_all()
    topics.add([(PREDICTIONS.name, prediction("patient", day(1) + 20 * HOUR), 0)])
    topics.add([(LANDED, landing("last", day(3)), day(3))])
    await desk.read_all()
    assert [clock.matured for clock in desk.matured] == [0, 1]


async def test_a_transaction_marker_at_the_end_of_an_idle_partition_holds_no_verdict_back() -> None:
    topics = week()
    place = LANDED, 1
    del topics.records[place][500:]
    whole = await (await Desk(topics).start()).read_all()
    desk = await Desk(topics).start()
    # Its last offset is a marker's: no record has it.
    bounds = topics.bounds()
    bounds[place] = 0, bounds[place][1] + 1
    topics.bounds = lambda: bounds  # type: ignore[method-assign]
    await desk.read_all()
    assert len(desk.speaker.said) < len(whole.speaker.said)
    desk.log.read = {place: after for place, (_, after) in bounds.items()}
    await desk.judging.settle_when_quiet()
    await desk.judging.settle_when_quiet()
    assert desk.speaker.said == whole.speaker.said


async def told_to_ingest(labels: dict[int, list[dict[str, object]]]) -> list[Outgoing]:
    """What ingest makes of labels, by when they became known."""
    log = MemoryLog()
    service = create_app(IngestSettings(trust_known_at=True), streams=streams(), loops={LOOP: loop()}, log=log)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest") as http:
        for known_at, some in labels.items():
            said = {"ce-knownat": to_rfc3339(known_at)}
            answer = await http.post(f"/v1/loops/{LOOP}/labels", json=some, headers=said)
            assert answer.status_code == 202, answer.text
    return log.entries


async def test_labels_by_prediction_id_judge_as_those_of_the_stream_do() -> None:
    """The same truths, by the landings of flights, and told to ingest by who only kept the ids of answers."""
    world = World().hours(JUNE, 30)
    world.skill = -1.0
    world.hours(JUNE + 30 * HOUR, 30)
    told, labels = Topics(), defaultdict[int, list[dict[str, object]]](list)
    for topic, event, known_at in world.said:
        if isinstance(event, dict):
            truth = {"prediction_id": f"prediction-{event['flight_id']}", "value": event["arr_delay"] >= 15}
            labels[known_at].append(truth | {"at": to_rfc3339(known_at - HOUR // 2)})
        else:
            told.add([(topic, event, known_at)])
    for entry in await told_to_ingest(labels):
        assert entry.topic == LABELS.name
        told.raw(entry.topic, (entry.key or b"").decode(), entry.value, entry.headers)

    by_key = await (await Desk(Topics().add(world.said)).start()).read_all()
    by_prediction = await (await Desk(told).start()).read_all(most=300, seed=2)

    judged = [
        [(v.index, v.finding, v.rows, round(v.effect, 9)) for v in desk.verdicts if v.kind is WindowKind.PERFORMANCE]
        for desk in (by_key, by_prediction)
    ]
    assert judged[0]
    assert judged[0] == judged[1]


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"{", [("ce_type", b"millstream.label.told.v1")], "bad_json"),
        (b"{}", [("ce_type", b"millstream.label.told.v1")], "bad_event"),
        (b"{}", [], "not_our_event"),
    ],
)
async def test_a_label_that_is_none_of_ours_is_a_dead_letter(
    value: bytes, headers: list[tuple[str, bytes]], reason: str
) -> None:
    topics = Topics()
    topics.raw(LABELS.name, "junk", value, headers)
    desk = await Desk(topics).start()
    [bad] = [one for place in sorted(topics.records) for one in await desk.read(place)]
    assert bad.error.reason == reason
