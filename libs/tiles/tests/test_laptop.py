"""The README's first lines, and what else a laptop does: events told by hand, answered online and offline."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from feast import Entity, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from feast.types import Int64
from feast.value_type import ValueType

import millstream_tiles
from millstream_tiles import Laptop, as_of, stream_source
from millstream_tiles.errors import BadRepo, TilesError

README = Path(__file__).parents[1] / "README.md"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

customer = Entity(name="customer", value_type=ValueType.STRING)
orders = stream_source("orders", time="placed_at", lateness="10m", id="order_id")


def spend(function: str = "sum", where: str | None = None) -> StreamFeatureView:
    spent = Aggregation(column="amount", function=function, name="spent", time_window=HOUR, slide_interval=HOUR / 12)
    return StreamFeatureView(
        name="spend",
        entities=[customer],
        source=orders,
        timestamp_field="placed_at",
        aggregations=[spent],
        tags={} if where is None else {"where": where},
    )


@pytest.mark.connected
def test_the_first_lines_of_the_readme_say_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for lines in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[:2]:
        exec(compile(lines, str(README), "exec"), names)
    said = capsys.readouterr().out
    assert "{'customer': ['ada'], 'sum_1h': [12.5]}" in said
    assert "{'customer': ['ada'], 'sum_1h': [20.0]}" in said
    assert re.search(r"ada .* 20\.0", said)


@pytest.mark.connected
def test_what_is_late_or_not_known_yet_is_in_no_answer() -> None:
    with Laptop([customer, spend()]) as laptop:
        laptop.tell("orders", {"order_id": 1, "customer": "ada", "amount": 1, "placed_at": NOON}, known_at=NOON)
        late = {"order_id": 2, "customer": "ada", "amount": 10, "placed_at": "2026-03-01T11:45:00Z"}
        soon = {"order_id": 3, "customer": "ada", "amount": 100, "placed_at": "2026-03-01T12:01:00+00:00"}
        laptop.tell("orders", late, soon, known_at=NOON + timedelta(minutes=2))
        with as_of(NOON + timedelta(minutes=3)):
            assert laptop.store.get_online_features(["spend:spent"], [{"customer": "ada"}]).to_dict()["spent"] == [
                101.0
            ]
        asked = pd.DataFrame(
            {"customer": ["ada"] * 3, "event_timestamp": [NOON + timedelta(minutes=m) for m in (0, 1, 2)]}
        )
        assert laptop.store.get_historical_features(asked, ["spend:spent"]).to_df()["spent"].tolist() == [1, 1, 101]


@pytest.mark.connected
def test_what_cannot_be_told_is_said() -> None:
    with Laptop([customer, spend()]) as laptop:
        with pytest.raises(TilesError, match="no view follows stream 'order'; there are orders"):
            laptop.tell("order", {})
        with pytest.raises(TilesError, match="placed_at=None is no time; write a datetime"):
            laptop.tell("orders", {"customer": "ada"})
        with pytest.raises(TilesError, match="lies more than 0:05:00 ahead"):
            laptop.tell("orders", {"customer": "ada", "placed_at": NOON + HOUR}, known_at=NOON)
        with pytest.raises(TilesError, match="a list is no event; write tell"):
            laptop.tell("orders", [{"customer": "ada"}])  # type: ignore[arg-type]
        laptop.tell("orders")
    with pytest.raises(BadRepo, match=r"^Laptop: spend: aggregation 'spent': no function 'median'"):
        Laptop([customer, spend("median")]).__enter__()


@pytest.mark.connected
def test_nothing_is_left_behind_on_a_server_of_somebody_elses(valkey_url: str, tmp_path: Path) -> None:
    pd.DataFrame({"customer": ["ada"], "tier": [3], "at": [NOON]}).to_parquet(tmp_path / "tiers.parquet")
    tiers = FileSource(path=str(tmp_path / "tiers.parquet"), timestamp_field="at")
    tier = FeatureView(name="tier", entities=[customer], source=tiers, schema=[Field(name="tier", dtype=Int64)])
    with redis.Redis.from_url(valkey_url) as server:
        before = set(server.scan_iter())
        with Laptop([customer, spend(), tier], url=valkey_url) as laptop:
            laptop.tell("orders", {"order_id": 1, "customer": "ada", "amount": 1, "placed_at": NOON}, known_at=NOON)
            laptop.store.write_to_online_store("tier", pd.DataFrame({"customer": ["ada"], "tier": [3], "at": [NOON]}))
            assert len(set(server.scan_iter()) - before) > 2, "tiles, a fence, a row"
        assert set(server.scan_iter()) == before


@pytest.mark.connected
def test_what_does_not_expire_is_five_keys(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        before = set(server.scan_iter())
        with Laptop([customer, spend()], url=valkey_url) as laptop:
            for order_id in range(10):
                told = {"order_id": order_id, "customer": f"c{order_id}", "amount": 1, "placed_at": NOON}
                laptop.tell("orders", told, known_at=NOON)
            kept = [key.decode() for key in set(server.scan_iter()) - before if server.ttl(key) == -1]
    assert sorted(key.partition("}")[2] for key in kept) == [
        "",
        ":clock:orders",
        ":course:orders",
        ":fence:laptop:orders",
        ":ids:orders",
    ]


@pytest.mark.connected
def test_a_value_of_another_type_is_said_by_what_was_told() -> None:
    with Laptop([customer, spend()]) as laptop:
        told = {"order_id": 1, "customer": "ada", "amount": None, "placed_at": NOON}
        laptop.tell("orders", told, known_at=NOON)  # nothing is known of the type of its amount yet
        asked = pd.DataFrame({"customer": ["ada"], "event_timestamp": [NOON]})
        assert laptop.store.get_historical_features(asked, ["spend:spent"]).to_df()["spent"].tolist() == [0]
        laptop.tell("orders", told | {"order_id": np.int64(2), "amount": np.float64(12.5)}, known_at=NOON)
        says = r"orders: amount='7' is a text, but amount was a number before \(12.5\); tell a number, or give"
        with pytest.raises(TilesError, match=says):
            laptop.tell("orders", told | {"order_id": 3, "amount": "7"}, known_at=NOON)
        with pytest.raises(TilesError, match=r"customer=7 is a number, but customer was a text before \('ada'\)"):
            laptop.tell("orders", told | {"order_id": 4, "customer": 7}, known_at=NOON)
        laptop.tell("orders", told | {"order_id": 5, "amount": 2}, known_at=NOON)
        with as_of(NOON):
            seen = laptop.store.get_online_features(["spend:spent"], [{"customer": "ada"}]).to_dict()["spent"]
        assert seen == laptop.store.get_historical_features(asked, ["spend:spent"]).to_df()["spent"].tolist() == [14.5]


@pytest.mark.connected
@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"customer": ""}, "orders: customer: is empty; write what it is, or null"),
        ({"customer": "a" * 2_000}, "orders: customer: has 2,000 bytes; a key or id has at most 1,024"),
        ({"order_id": ""}, "orders: order_id: is empty"),
        ({"customer": ["ada"]}, r"orders: customer=\['ada'\] is a list; a key or id is text, a number or a boolean"),
        ({"order_id": {"a": 1}}, "orders: order_id=.* is a dict; a key or id"),
        ({"order_id": 2**53 + 2}, "orders: order_id: is a number beyond 9,007,199,254,740,992"),
        ({"amount": 2**53 + 2}, "orders: amount: is beyond ±9,007,199,254,740,992"),
        ({"amount": 10**400}, "orders: amount: is beyond"),
        ({"amount": float("inf")}, "orders: amount: is beyond"),
    ],
)
def test_what_the_service_would_not_take_as_a_name_is_refused(odd: dict[str, Any], says: str) -> None:
    with Laptop([customer, spend()]) as laptop, pytest.raises(TilesError, match=says):
        laptop.tell("orders", {"order_id": 1, "customer": "ada", "placed_at": NOON} | odd, known_at=NOON)


@pytest.mark.connected
def test_what_would_leave_a_window_empty_is_said() -> None:
    told = {"order_id": 1, "customer": "ada", "amount": 1, "placed_at": NOON}
    with Laptop([customer, spend()]) as laptop:
        for odd in ("7", Decimal("7.5")):
            with pytest.raises(
                TilesError, match=r"orders: amount=.* is a (str|Decimal), but spend.spent takes numbers"
            ):
                laptop.tell("orders", told | {"amount": odd}, known_at=NOON)
        with pytest.warns(
            UserWarning, match=r"none of the first events has 'amount', which view spend takes; they have order"
        ):
            laptop.tell("orders", {name: told[name] for name in ("order_id", "customer", "placed_at")}, known_at=NOON)
        with pytest.warns(
            UserWarning, match=r"all of these events are late and in no window.*say when they were known"
        ):
            laptop.tell("orders", told | {"order_id": 2})
    with Laptop([customer, spend("count_distinct")]) as laptop:
        laptop.tell("orders", told | {"amount": "seven"}, known_at=NOON)


@pytest.mark.connected
def test_a_filter_of_a_field_that_no_event_has_is_said_where_it_keeps_them_out() -> None:
    told = {"order_id": 1, "customer": "ada", "amount": 1, "placed_at": NOON}
    says = r"has 'nowhere', so that the filter of view spend \('nowhere > 1'\) lets none of them through; they have order_id"
    with Laptop([customer, spend(where="nowhere > 1")]) as laptop, pytest.warns(UserWarning, match=says):
        laptop.tell("orders", told, known_at=NOON)
    with Laptop([customer, spend(where="returned is null")]) as laptop:
        laptop.tell("orders", told, known_at=NOON)  # lets them through: nothing to warn of, and warnings fail a test
    with Laptop([customer, spend(where="amount > 5")]) as laptop:
        laptop.tell("orders", told, known_at=NOON)  # kept out by what it is, not by what is missing


def test_completion_shows_the_public_names() -> None:
    assert set(millstream_tiles.__all__) <= set(dir(millstream_tiles))
