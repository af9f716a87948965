"""Skew in features: which predictions are checked, when their differences are a verdict, and that nothing else minds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, Finding, PredictionServed, QuestionUnanswered, SkewedValue, SkewJudged
from millstream.contracts.times import MINUTE, to_datetime
from millstream.contracts.topics import PREDICTIONS
from millstream.errors import DeliveryUnknown
from millstream.runtime.delivery import Batch
from millstream.runtime.publisher import Outgoing
from millstream.runtime.topic_bounds import Bounds, TopicBounds
from millstream.runtime.user_events import read_event
from millstream_features.adapters.delta_history import DeltaHistory
from millstream_features.adapters.lake_recompute import LakeRecompute
from millstream_features.domain.skew import WINDOW, CheckedRead, Differing, SkewWindow
from millstream_features.errors import LakeBehind
from millstream_features.handlers import CheckSkew
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Slice
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.lake import Lake
from millstream_tiles.service_views import ServiceView

from .features_story import DEPARTED, HOUR, NOON, STREAMS, FakeRecord, departure

LOOP = "flight-delay"


def read(number: int, online: float | None = 1.0) -> CheckedRead:
    """The `number`th prediction; offline its feature is 1."""
    value = SkewedValue(
        prediction=f"p{number}",
        question=f"q{number}",
        asked_at=to_datetime(NOON),
        feature="v__f",
        online=online,
        offline=1.0,
    )
    differing = () if online == 1.0 else (Differing(view="v", value=value),)
    return CheckedRead(
        prediction=f"p{number}", asked_at=NOON + number * MINUTE, values={"v": 3, "w": 1}, differing=differing
    )


def test_a_bound_is_passed_once_and_kept_again_at_half_of_it() -> None:
    window = SkewWindow(LOOP, 0.02)  # four of two hundred
    assert window.add([read(n) for n in range(50)]) is None
    assert window.add([read(n, 2.0) for n in range(50, 54)]) is None
    verdict = window.add([read(54, None)])
    assert verdict is not None
    assert (verdict.finding, verdict.checked, verdict.differing) == (Finding.DETECTED, 55, 5)
    assert verdict.worst[0].online is None
    assert [(v.view, v.checked, v.differing, v.largest) for v in verdict.views] == [
        ("v", 165, 5, None),
        ("w", 55, 0, 0.0),
    ]
    assert "5 of 55 checked predictions differ, 2.00% of 200 may; largest: v__f of q54" in verdict.reason
    assert verdict.at == to_datetime(NOON + 54 * MINUTE)

    assert window.add([read(55, 2.0)]) is None, "it was said"
    assert window.add([read(n) for n in range(56, 52 + WINDOW)]) is None, "four of two hundred, and no swinging"
    verdict = window.add([read(n) for n in range(52 + WINDOW, 54 + WINDOW)])
    assert verdict is not None
    assert (verdict.finding, verdict.checked, verdict.differing) == (Finding.CLEARED, WINDOW, 2)


def test_where_none_may_differ_the_first_one_is_a_verdict() -> None:
    window = SkewWindow(LOOP, 0.0)
    assert window.add([read(1)]) is None
    verdict = window.add([read(2, 1.5)])
    assert verdict is not None
    assert verdict.finding is Finding.DETECTED


class Offline:
    """Finds the predictions wrong that it was told of; raises what it was told to."""

    def __init__(self) -> None:
        self.wrong: set[str] = set()
        self.raises: Exception | None = None
        self.asked: list[str] = []

    async def check(self, loop: str, served: list[PredictionServed]) -> list[CheckedRead]:
        if self.raises is not None:
            raise self.raises
        self.asked += [one.id for one in served]
        return [read(int(one.id), 9.0 if one.id in self.wrong else 1.0) for one in served]

    async def close(self) -> None:
        pass


class Said:
    """A publisher that keeps what it was given, or does not know what became of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False

    def outgoing(self, topic: str, event: Event, *, id: str, key: str, caused_by: str | None = None) -> Outgoing:
        assert (topic, key) == ("millstream-skew", LOOP)
        return Outgoing(topic, key.encode(), event.encode(), [("ce_id", id.encode())])

    async def publish(self, records: list[Outgoing]) -> None:
        if self.away:
            raise DeliveryUnknown("Kafka is away")
        self.events += [msgspec.json.decode(record.value, type=SkewJudged) for record in records]


def prediction(number: int, loop: str = LOOP, given: bool = False, store_away: bool = False) -> FakeRecord:
    served = PredictionServed(
        id=str(number),
        loop=loop,
        question=f"q{number}",
        key="k",
        asked_at=to_datetime(NOON),
        version="1",
        variant="champion",
        transport="kafka",
        entities={},
        inputs={},
        features={"v__f": 1.0},
        output={"probability": 0.5},
        timings_ms={},
        given=given,
        store_away=store_away,
    )
    headers = Envelope(id=served.id, type=served.type_name, source="serving").headers()
    return FakeRecord(served.encode(), number, topic=PREDICTIONS.name, headers=headers)


def batch(*records: FakeRecord) -> Batch:
    return Batch(PREDICTIONS.name, 0, records[0].offset, records[-1].offset, records)


@pytest.fixture
def metrics() -> FeatureMetrics:
    return FeatureMetrics(CollectorRegistry())


@pytest.fixture
def offline() -> Offline:
    return Offline()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def check(metrics: FeatureMetrics, offline: Offline, said: Said) -> CheckSkew:
    return CheckSkew(
        samples={LOOP: 60},
        bounds={LOOP: 0.01},
        every=10.0,
        recompute=offline,
        speaker=said,
        metrics=metrics,
    )


def value(metric: Counter | Gauge, *labels: str) -> float:
    """Tests look at what is added to a counter: after Feast's import those of all registries of a process are one."""
    found: float = metric.labels(LOOP, *labels)._value.get()
    return found


async def test_features_that_nobody_read_are_not_checked(check: CheckSkew, offline: Offline) -> None:
    await check(batch(prediction(1), prediction(2, given=True), prediction(3, store_away=True)))
    await check.check()
    assert offline.asked == ["1"]


async def test_of_many_predictions_a_few_are_checked_and_always_the_same(check: CheckSkew, offline: Offline) -> None:
    many = [prediction(n) for n in range(500)]
    await check(batch(*many))
    await check(batch(*many[:100]))
    await check.check()
    first, offline.asked = offline.asked, []
    assert len(set(first)) == len(first) == 10, "sixty a minute, ten in ten seconds"
    await check(batch(*reversed(many)))
    await check.check()
    assert offline.asked == first
    await check.check()
    assert offline.asked == first, "nothing new, nothing checked"


async def test_strangers_and_other_loops_are_left_alone(check: CheckSkew, offline: Offline) -> None:
    unanswered = QuestionUnanswered(
        id="7", loop=LOOP, question="q", key="k", asked_at=to_datetime(NOON), reason="no_model", transport="http"
    )
    headers = Envelope(id="7", type=unanswered.type_name, source="serving").headers()
    junk = prediction(3)
    junk.value = b"{" * 5000
    rejected = await check(
        batch(
            FakeRecord(unanswered.encode(), 1, headers=headers),
            FakeRecord(b"junk", 2, headers=[]),
            junk,
            prediction(4, loop="another"),
            prediction(5),
        )
    )
    await check.check()
    assert (rejected, offline.asked) == ([], ["5"])


async def test_differences_are_measured_and_said_when_kafka_is_back(
    check: CheckSkew, offline: Offline, said: Said, metrics: FeatureMetrics
) -> None:
    offline.wrong = {"1", "2", "3"}
    said.away = True
    checked, differing = value(metrics.skew_checked), value(metrics.skew_differing)
    await check(batch(*[prediction(n) for n in range(1, 9)]))
    await check.check()
    assert said.events == []
    assert value(metrics.skew_checked) - checked == 8
    assert value(metrics.skew_differing) - differing == 3
    assert value(metrics.skew_share) == pytest.approx(3 / 8)
    assert value(metrics.skew_largest, "v") == 8.0
    said.away = False
    await check.check()
    [verdict] = said.events
    assert isinstance(verdict, SkewJudged)
    assert (verdict.finding, verdict.differing) == (Finding.DETECTED, 3)
    await check.check()
    assert len(said.events) == 1


async def test_whatever_goes_wrong_in_a_check_is_counted_and_ends_nothing(
    check: CheckSkew, offline: Offline, metrics: FeatureMetrics
) -> None:
    for raised, reason in ((LakeBehind("behind"), "lake_behind"), (ZeroDivisionError("a bug"), "failed")):
        offline.raises, before = raised, value(metrics.skew_unchecked, reason)
        await check(batch(prediction(1), prediction(2)))
        await check.check()
        assert value(metrics.skew_unchecked, reason) - before == 2
    offline.raises = None
    await check(batch(prediction(3)))
    await check.check()
    assert offline.asked == ["3"]


class Ends:
    """Kafka, as far as it says where the streams end."""

    async def of(self, topics: Sequence[str]) -> Bounds:
        assert topics == [DEPARTED.name]
        return {(DEPARTED.name, 0): (0, 2), (DEPARTED.name, 1): (0, 0)}

    async def close(self) -> None:
        pass


def recompute(lake: Lake, *, patience: float) -> LakeRecompute:
    flights = Aggregate(name="f", function=Function.COUNT, column="", window=HOUR, slide=MINUTE)
    view = View(
        name="v",
        stream=DEPARTED.name,
        keys=("tailnum",),
        time_field=DEPARTED.time,
        lateness=HOUR,
        event_id=DEPARTED.id,
        aggregates=(flights,),
    )
    views = [ServiceView(view=view, prefix="v", keys={"tailnum": "plane"})]
    ends = cast("TopicBounds", Ends())
    return LakeRecompute(
        lake=lake, group="lake", views={LOOP: views}, tolerances={LOOP: 1e-9}, bounds=ends, patience=patience
    )


def served(flights: float) -> PredictionServed:
    event = msgspec.json.decode(prediction(1).value or b"", type=PredictionServed)
    return msgspec.structs.replace(event, entities={"plane": "N1"}, features={"v__f": flights})


async def test_a_check_waits_for_what_its_question_could_know(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    history = DeltaHistory(lake=lake, streams=STREAMS, group="lake")

    def flight(offset: int) -> Slice:
        event = read_event(DEPARTED, departure(offset, left=NOON - (5 - offset) * MINUTE))
        return Slice(stream=DEPARTED.name, partition=0, start=offset, end=offset, events=[event])

    await history.append([flight(0)])
    with pytest.raises(LakeBehind, match="the lake is behind in flights-departed"):
        await recompute(lake, patience=0.0).check(LOOP, [served(2.0)])
    checking = asyncio.create_task(recompute(lake, patience=30.0).check(LOOP, [served(2.0), served(1.0)]))
    await history.append([flight(1)])
    right, wrong = await checking
    assert (right.values, right.differing) == ({"v": 1}, ())
    [one] = wrong.differing
    assert (one.value.online, one.value.offline) == (1.0, 2)
