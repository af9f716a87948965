"""A process may be in one of the two groups only: then the other one's records are another process' business."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from millstream_features import app
from millstream_features.adapters.memory import MemoryHistory, MemoryTiles, MemoryViewTimes
from millstream_features.app import Stores, create_app
from millstream_features.settings import Settings

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


@pytest.mark.parametrize(
    ("part", "groups"),
    [
        ("all", {"features-tiles", "features-lake"}),
        ("tiles", {"features-tiles"}),
        ("lake", {"features-lake"}),
        ("skew", set()),  # it has predictions to hear only where there are some
    ],
)
async def test_a_part_hears_its_own_group_alone(tmp_path: Path, part: Any, groups: set[str]) -> None:
    stores = Stores(
        reader=cast("Any", None),
        rows=cast("Any", None),
        tiles=cast("Any", MemoryTiles()),
        history=cast("Any", MemoryHistory()),
        times=MemoryViewTimes(),
        views={"flights-departed": [], "flights-landed": []},
    )
    service = create_app(Settings(project=FLIGHTS, data=tmp_path, part=part), stores)
    definitions = dict(service._before)["feature definitions"]
    await definitions()
    assert {subscription.group for subscription in service._subscriptions} == groups
    kept = {what for what, _ in service._loops}
    assert ("appending to the lake" in kept) == ("features-lake" in groups)
    assert ("valkey" in dict(service._before)) == ("features-tiles" in groups)


@pytest.mark.parametrize(("there", "kept"), [(True, ["millstream-labels"]), (False, [])])
async def test_the_lake_keeps_labels_by_prediction_id_where_they_have_a_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, there: bool, kept: list[str]
) -> None:
    async def topic_exists(bootstrap: object, name: str) -> bool:
        return there

    monkeypatch.setattr(app, "topic_exists", topic_exists)
    stores = Stores(
        reader=cast("Any", None),
        rows=cast("Any", None),
        tiles=cast("Any", MemoryTiles()),
        history=cast("Any", MemoryHistory()),
        times=MemoryViewTimes(),
        views={},
    )
    service = create_app(Settings(project=FLIGHTS, data=tmp_path, part="lake"), stores)
    for _, work in service._before:
        await work()

    (heard,) = service._subscriptions
    streams = ["flights-departed", "flights-landed", "flights-scheduled"]
    assert sorted(heard.topics) == sorted([*streams, *kept])
    assert ("no model learns from labels by prediction id" in caplog.text) != there
