"""The lake's part of features on a real Kafka and a bucket: what happens when streams change, and when the bucket is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.times import now, to_rfc3339
from millstream.contracts.topics import LABELS
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.runtime.user_events import UserEvent, read_batch
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.s3 import EmbeddedS3
from millstream_features.adapters.delta_history import LEAST, DeltaHistory
from millstream_features.app import create_app
from millstream_features.ports import Slice, Tidied
from millstream_features.settings import Settings
from millstream_features.subscribers import LAKE
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events
from millstream_tiles.registry import open_store

from .features_story import DEPARTED, STREAMS, batch, departure

NOON = "2013-06-01T12:00:00Z"
NOON_MS = 1_370_088_000_000
DEFINITIONS = """
from datetime import timedelta
from pathlib import Path
from feast import Entity
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

customer = Entity(name="customer")
orders = stream_source(Path(__file__).parent.parent / "streams" / "orders.yaml")

def view(name, column):
    aggregation = Aggregation(column=column, function="sum", time_window=timedelta(hours=1), name=column + "_1h")
    return StreamFeatureView(name=name, entities=[customer], source=orders, timestamp_field="at", aggregations=[aggregation])

spend = view("spend", "amount")
"""
STORES = """
project: shop
provider: local
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""


class Shop:
    """A project of two streams whose schemas change, and what is sent to them."""

    def __init__(self, root: Path, kafka: str, orders: str, visits: str) -> None:
        self.root, self.kafka, self.orders, self.visits = root, kafka, orders, visits
        for folder in ("streams", "loops", "features"):
            (root / folder).mkdir(parents=True)
        (root / "features" / "feature_store.yaml").write_text(STORES)
        (root / "features" / "definitions.py").write_text(DEFINITIONS)

    def declare(self, file: str, name: str, **fields: str) -> None:
        stream = {
            "stream": name,
            "description": "Something happened in the shop.",
            "key": "customer",
            "time": "at",
            "lateness": "1h",
            "schema": {
                "type": "object",
                "required": ["customer", "at"],
                "properties": {
                    "customer": {"type": "string"},
                    "at": {"type": "string", "format": "date-time"},
                    **{field: {"type": kind} for field, kind in fields.items()},
                },
            },
        }
        (self.root / "streams" / file).write_text(json.dumps(stream))  # JSON is YAML

    async def happens(self, stream: str, *events: dict[str, Any]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all")
        await producer.start()
        try:
            for event in events:
                value = json.dumps({"customer": "ada", "at": NOON} | event).encode()
                await producer.send_and_wait(stream, value, key=b"ada", partition=0, timestamp_ms=NOON_MS)
        finally:
            await producer.stop()


@asynccontextmanager
async def features(shop: Shop, lake: str, data: Path) -> AsyncIterator[Service]:
    """The lake's part of the service, started and stopped as its server does it."""
    settings = Settings(
        kafka=shop.kafka, project=shop.root, lake=lake, data=data, part="lake", lake_quiet=0.05, session_timeout_ms=6000
    )
    service = create_app(settings)
    async with service.app.router.lifespan_context(service.app):
        yield service
    assert service.health.fatal is None


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  another task decides
            await asyncio.sleep(0.02)


def held(service: Service, stream: str) -> float | None:
    return service.registry.get_sample_value("millstream_lake_held", {"stream": stream})


@pytest.fixture
async def shop(kafka: EmbeddedKafka, unique_name: Callable[[str], str], tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "shop", kafka.bootstrap, unique_name("orders"), unique_name("visits"))
    for name in (shop.orders, shop.visits):
        await ensure_topics(kafka.bootstrap, stream_topics(name, 1, timedelta(days=9999), [LAKE]))
    return shop


async def test_a_field_is_added_and_another_changes_its_type(
    shop: Shop, s3: EmbeddedS3, unique_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = unique_name("shop")
    place = f"s3://{bucket}/lake"
    lake = Lake(place)

    async def arrives(stream: str, offset: int) -> None:
        await asyncio.to_thread(lake.wait_for, stream, LAKE, {0: offset}, timeout=60)

    shop.declare("orders.yaml", shop.orders, amount="number")
    shop.declare("visits.yaml", shop.visits, seconds="number")
    async with features(shop, place, tmp_path / "data") as service:
        await until(lambda: f"bucket '{bucket}' does not exist; create it" in str(service.health.not_ready()))
        s3.make_bucket(bucket)
        await shop.happens(shop.orders, {"amount": 5}, {"amount": 7.5})
        await shop.happens(shop.visits, {"seconds": 30})
        await arrives(shop.orders, 1)
        await arrives(shop.visits, 0)
        assert service.health.not_ready() == {}

    # The release after: orders get a field, and somebody thinks that seconds had better be text.
    shop.declare("orders.yaml", shop.orders, amount="number", coupon="number")
    shop.declare("visits.yaml", shop.visits, seconds="string")
    definitions = shop.root / "features" / "definitions.py"
    definitions.write_text(definitions.read_text() + 'saved = view("saved", "coupon")\n')
    async with features(shop, place, tmp_path / "data") as service:
        await shop.happens(shop.visits, {})
        await until(lambda: held(service, shop.visits) == 1)
        await shop.happens(shop.orders, {"amount": 1, "coupon": 2})
        await arrives(shop.orders, 2)
        assert held(service, shop.orders) == 0
        assert service.health.not_ready() == {}, "the other streams and the online reads go on"
        assert lake.positions(shop.visits, LAKE, [0]) == {0: 0}

    # The field has a name of its own now: what waited comes first, then what follows.
    shop.declare("visits.yaml", shop.visits, seconds="number", duration="string")
    async with features(shop, place, tmp_path / "data") as service:
        await shop.happens(shop.visits, {"duration": "long"})
        await arrives(shop.visits, 2)
        assert held(service, shop.visits) == 0
    rows = read_events(lake, shop.visits, ["_offset", "seconds", "duration"])
    assert rows.rows() == [(0, 30.0, None), (1, None, None), (2, None, "long")]

    # Training sees the new field where there is one, and what there was as before, with nothing rebuilt.
    rows = read_events(lake, shop.orders, ["amount", "coupon"])
    assert rows.rows() == [(5.0, None), (7.5, None), (1.0, 2.0)]
    asked = pd.DataFrame({"customer": ["ada"], "event_timestamp": [datetime(2013, 6, 1, 12, tzinfo=UTC)]})
    store = open_store(shop.root / "features", offline={"lake": place})
    found = store.get_historical_features(asked, ["spend:amount_1h", "saved:coupon_1h"]).to_df()
    assert found[["amount_1h", "coupon_1h"]].to_numpy().tolist() == [[13.5, 2.0]]


async def test_labels_by_prediction_id_are_kept_beside_the_streams(
    shop: Shop, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    """Each record of their topic is in the lake once, over a restart; what is no label is a dead letter."""
    lake, loop = Lake(str(tmp_path / "lake")), unique_name("spending")
    shop.declare("orders.yaml", shop.orders, amount="number")
    shop.declare("visits.yaml", shop.visits, seconds="number")
    definitions = shop.root / "features" / "definitions.py"
    text = definitions.read_text().replace("import Entity\n", "import Entity, FeatureService\n")
    definitions.write_text(text + 'spend_v1 = FeatureService(name="spend_v1", features=[spend])\n')
    (shop.root / "loops" / "spending.yaml").write_text(
        f"loop: {loop}\n"
        f"predict: {{on: {shop.orders}, features: spend_v1, inputs: [amount], id: customer}}\n"
        f"label: {{from: {shop.visits}, by: customer, value: seconds, within: 1h}}\n"
        "model: {task: regression}\n"
    )
    await ensure_topics(shop.kafka, stream_topics(LABELS.name, 1, timedelta(days=30), [LAKE]))

    async def tell(*values: bytes) -> int:
        producer = AIOKafkaProducer(bootstrap_servers=shop.kafka, acks="all")
        await producer.start()
        try:
            return max([(await producer.send_and_wait(LABELS.name, value)).offset for value in values])
        finally:
            await producer.stop()

    def label(prediction: str, value: object) -> bytes:
        said = {"id": f"{prediction}-{value}", "loop": loop, "prediction_id": prediction, "value": value}
        return json.dumps(said | {"told_at": to_rfc3339(now())}).encode()

    async with features(shop, lake.uri, tmp_path / "data"):
        last = await tell(label("a", 12), label("a", 12), label("b", 7.5), b'{"loop": "nobody"}')
        await asyncio.to_thread(lake.wait_for, LABELS.name, LAKE, {0: last}, timeout=60)
    async with features(shop, lake.uri, tmp_path / "data"):
        last = await tell(label("c", "many"))
        await asyncio.to_thread(lake.wait_for, LABELS.name, LAKE, {0: last}, timeout=60)

    rows = read_events(lake, LABELS.name, ["loop", "prediction_id", "value", "_id"])
    mine = rows.filter(rows["loop"] == loop).drop("loop")
    assert mine.rows() == [("a", "12", "a-12"), ("a", "12", "a-12"), ("b", "7.5", "b-7.5"), ("c", "many", "c-many")]


async def test_small_files_are_joined_on_schedule_while_rows_keep_coming(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    history = DeltaHistory(lake=lake, streams=STREAMS, group=LAKE)

    async def append(offsets: Sequence[int]) -> None:
        for offset in offsets:
            event = history_event(offset)
            await history.append([Slice(stream=DEPARTED.name, partition=0, start=offset, end=offset, events=[event])])

    await append(range(LEAST - 1))
    assert await history.tidy(DEPARTED.name) == Tidied(joined=0, deleted=0, files=LEAST - 1), "not worth it yet"
    await append([LEAST - 1])
    tidied, _ = await asyncio.gather(history.tidy(DEPARTED.name), append(range(LEAST, LEAST + 4)))
    tidied = await history.tidy(DEPARTED.name) if not tidied.joined else tidied  # the appends were faster, each time
    assert tidied.joined >= LEAST
    assert tidied.deleted == 0, "a reader may still be at them"
    rows = read_events(lake, DEPARTED.name, ["_offset"])
    assert sorted(rows["_offset"]) == list(range(LEAST + 4))
    assert await history.positions(DEPARTED.name, [0]) == {0: LEAST + 3}


def history_event(offset: int) -> UserEvent:

    events, rejected = read_batch(DEPARTED, batch(departure(offset)))
    assert not rejected
    return events[0]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [("lake_keep_days", 0.5, "write 1 or more days, or 0 for ever"), ("lake_tidy_mb", 0, "greater than or equal to 1")],
)
def test_a_setting_that_would_hurt_readers_is_refused(setting: str, value: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**{setting: value})
