"""Several replicas: each judges whole loops, and what one has begun another goes on with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.contracts.events import PredictionServed
from millstream.contracts.times import HOUR
from millstream.contracts.topics import PREDICTIONS
from millstream.errors import RejectEvent
from millstream.runtime.whole_group import whole_to_one
from millstream_drift.adapters.kafka_events import KafkaEvents
from millstream_drift.adapters.memory import MemoryModels, MemorySnapshots
from millstream_drift.app import rules_of
from millstream_drift.domain.events import Question
from millstream_drift.domain.fold import Fold
from millstream_drift.domain.merge import Merge, further, resumed
from millstream_drift.metrics import DriftMetrics
from millstream_drift.subscribers import shares

from .drift_kit import JUNE, LANDED, LOOP, Desk, KafkaRecord, Topics, World, baseline, landing, loop, streams

TWO = ("bikes-early", LOOP)
"""Two loops that learn from the same landings."""


def asked_by_both(hours: int = 30) -> Topics:
    """Every flight asks both loops; one landing is the label of both."""
    said: list[Any] = []
    for topic, event, known_at in World().hours(JUNE, hours).said:
        said.append((topic, event, known_at))
        if isinstance(event, PredictionServed):
            other = msgspec.structs.replace(event, id=f"early-{event.id}", loop=TWO[0])
            said.append((topic, other, known_at))
    return Topics().add(said)


class Share(Desk):
    """A process that judges some of the two loops."""

    def __init__(self, topics: Topics, snapshots: MemorySnapshots, mine: tuple[str, ...]) -> None:
        super().__init__(topics, snapshots)
        self.loops = {name: loop().model_copy(update={"loop": name}) for name in TWO}
        self.models.known |= {(name, "1"): baseline() for name in TWO}
        rules = {name: rules_of(self.loops[name]) for name in mine}
        self.judging.__init__(  # type: ignore[misc]
            rules=rules,
            reader=reader(mine, self.models, self.metrics),
            models=self.models,
            snapshots=snapshots,
            speaker=self.speaker,
            reports=self.reports,
            comparisons=self.comparisons,
            health=self.health,
            metrics=self.metrics,
        )
        self.judging.log = self.log


def reader(
    mine: tuple[str, ...], models: MemoryModels | None = None, metrics: DriftMetrics | None = None
) -> KafkaEvents:
    return KafkaEvents(
        loops={name: loop().model_copy(update={"loop": name}) for name in TWO},
        streams=streams(),
        codecs=dict.fromkeys(streams(), JSON),
        models=models or MemoryModels(),
        metrics=metrics or DriftMetrics(CollectorRegistry()),
        clock=lambda: 0.0,
        patience=60.0,
        mine=mine,
    )


def test_loops_that_ask_at_one_time_close_their_windows_then_though_one_is_heard_later() -> None:
    """Else a comparison of the first one's texts would come before or after the second one's verdict, as it happens."""
    fold = Fold({name: rules_of(loop(window="6h").model_copy(update={"loop": name})) for name in TWO})
    places = {name: (PREDICTIONS.name, turn) for turn, name in enumerate(TWO)}
    row = baseline().row({"distance": 500, "carrier": "UA"}, {"origin__mean_1h": 500.0})

    def asks(name: str, number: int, time: int) -> None:
        one = Question(time, f"{name}-{number}", f"{number}", "1", {"probability": 0.3}, row)
        fold.hear(places[name], number + 1, [(name, one)], time)

    def closed() -> list[str]:
        fold.merge.ended(dict(fold.merge.next))
        return [said.event.loop for said in fold.settle(lambda loop, version: baseline())]

    for number in range(200):
        for name in TWO:
            asks(name, number, JUNE + number)
    assert closed() == []
    asks(TWO[0], 200, JUNE + 6 * HOUR)
    assert closed() == [TWO[0]]
    asks(TWO[1], 200, JUNE + 6 * HOUR)
    assert closed() == [TWO[1]]
    assert closed() == []


def of(name: str, *desks: Desk) -> dict[str, Any]:
    """What was said of a loop, each verdict once."""
    return {event.id: event for desk in desks for event in desk.speaker.said if event.loop == name}  # type: ignore[attr-defined]


async def test_two_shares_say_what_one_process_says() -> None:
    topics = asked_by_both()
    whole = await (await Share(topics, MemorySnapshots(), TWO).start()).read_all()
    first, second = [await (await Share(topics, MemorySnapshots(), (name,)).start()).read_all(130, 3) for name in TWO]
    assert of(TWO[0], first) == of(TWO[0], whole)
    assert of(TWO[1], second) == of(TWO[1], whole)
    assert not of(TWO[1], first)
    assert len(of(TWO[0], first)) > 5


@pytest.mark.parametrize("seed", range(4))
async def test_loops_that_were_apart_come_together_again_and_no_record_counts_twice(seed: int) -> None:
    """One share becomes two that read at their own pace, one of them is killed; then one process has both, killed too."""
    topics, store = asked_by_both(), MemorySnapshots()
    whole = await (await Share(topics, MemorySnapshots(), TWO).start()).read_all()
    both = await Share(topics, store, TWO).start()
    for place in sorted(topics.records):
        await both.read(place, 150)
    await both.judging.save()
    slow, quick = await Share(topics, store, TWO[:1]).start(), await Share(topics, store, TWO[1:]).start()
    await slow.read((LANDED, seed % 3), 90)
    await slow.judging.save()
    await slow.read((PREDICTIONS.name, 1), 400)  # and is killed before it saves
    for place in sorted(topics.records)[seed:]:
        await quick.read(place, 300)
    await quick.judging.save()
    again = await Share(topics, store, TWO).start()
    for place in sorted(topics.records)[: seed + 2]:
        await again.read(place, 60)  # not yet where the quick one was
    await again.judging.save()
    last = await (await Share(topics, store, TWO).start()).read_all(200, seed)
    for name in TWO:
        found = of(name, both, slow, quick, again, last)
        assert found == of(name, whole)
        counts = last.judging._fold.loops[name].join.counts
        assert counts == whole.judging._fold.loops[name].join.counts


async def test_who_loses_its_partitions_stands_by_says_so_and_keeps_no_old_state() -> None:
    topics, store = asked_by_both(), MemorySnapshots()
    desk = await (await Share(topics, store, TWO).start()).read_all()
    await desk.judging.save()
    kept = dict(store.kept)
    assert desk.registry.get_sample_value("millstream_drift_judges", {"loop": LOOP}) == 1
    assert await desk.judging.assigned([]) == {}
    assert not desk.judging.is_judging()
    assert desk.health.not_ready() == {}, "who stands by is well"
    assert desk.registry.get_sample_value("millstream_drift_judges", {"loop": LOOP}) == 0
    await desk.judging.settle_when_quiet()
    await desk.judging.save()
    assert store.kept == kept
    questions = desk.registry.get_sample_value("millstream_drift_questions_total", {"loop": LOOP})
    await desk.start()
    assert desk.judging.is_judging()
    assert desk.judging.lately(LOOP).verdicts
    assert desk.registry.get_sample_value("millstream_drift_questions_total", {"loop": LOOP}) == questions


def test_one_share_of_many_writes_the_dead_letter_of_a_record() -> None:
    junk = KafkaRecord(LANDED, 0, 0, b"{}", ())
    with pytest.raises(RejectEvent):
        reader(TWO[:1]).read(junk)
    assert reader(TWO[1:]).read(junk) == []
    odd = KafkaRecord(PREDICTIONS.name, 0, 0, b"{", [("ce_type", b"millstream.prediction.served.v1")])
    with pytest.raises(RejectEvent):
        reader(TWO[:1]).read(odd)
    assert reader(TWO[1:]).read(odd) == []
    good = KafkaRecord(
        LANDED, 0, 0, msgspec.json.encode(landing("f", JUNE)), [("ce_id", b"f"), ("ce_type", b"landed")], JUNE // 1000
    )
    assert [name for one in TWO for name, _ in reader((one,)).read(good)] == list(TWO)


def test_loops_are_dealt_out_and_no_share_is_empty() -> None:
    assert shares(["b", "a", "c"], 1) == {"drift": ["a", "b", "c"]}
    assert shares(["b", "a", "c"], 2) == {"drift-1": ["a", "c"], "drift-2": ["b"]}
    assert shares(["b", "a"], 9) == {"drift-1": ["a"], "drift-2": ["b"]}
    assert shares(["a"], 3) == {"drift": ["a"]}
    assert shares([], 3) == {"drift": []}


def test_a_group_goes_whole_to_one_and_the_groups_are_spread() -> None:
    cluster = ClusterMetadata()
    cluster.partitions_for_topic = lambda topic: {0, 1, 2} if topic == "answers" else {0}  # type: ignore[method-assign]

    def owners(turn: int, *instances: str) -> dict[str, ConsumerProtocolMemberAssignment]:
        kinds = {name: whole_to_one(turn, name) for name in instances}
        # Kafka makes the members' ids, in each group others.
        members = {
            f"{(turn * 7 + ord(name)) % 11}-{name}": kinds[name].metadata(["answers", "labels"]) for name in instances
        }
        return {id.split("-", 1)[1]: found for id, found in kinds[instances[0]].assign(cluster, members).items()}

    for turn, owner in enumerate(["a", "b", "c", "a"]):
        found = owners(turn, "c", "a", "b")
        assert found[owner].assignment == [("answers", [0, 1, 2]), ("labels", [0])]
        assert [name for name, one in found.items() if one.assignment] == [owner]
    assert owners(1, "c")["c"].assignment


def test_positions_meet_at_the_slower_and_are_kept_at_the_further() -> None:
    slow = Merge({("t", 0): 3, ("u", 0): 9}, {("t", 0): 30, ("u", 0): 90}, seen=90)
    quick = Merge({("t", 0): 8, ("u", 0): 5}, {("t", 0): 80}, seen=80)
    met = resumed([slow, quick], {("t", 0): (0, 10), ("u", 0): (6, 10), ("new", 0): (2, 4)})
    assert met.next == {("t", 0): 3, ("u", 0): 6, ("new", 0): 2}
    assert met.frontier == {("t", 0): 30}
    assert met.seen == 80
    assert further(slow, quick).next == {("t", 0): 8, ("u", 0): 9}
    assert further(slow, quick).frontier == {("t", 0): 80, ("u", 0): 90}
