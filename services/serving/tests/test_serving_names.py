"""What names something over the Open Inference Protocol: a version that is pinned, keys with all their digits, categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.package import InputColumn
from millstream.errors import Refusal
from millstream_serving.domain.tensor_rows import rows_of
from millstream_serving.domain.tensors import from_values

from .conftest import Stage
from .test_serving_inference import by_mean, on_record, question

PINNED = "/v2/models/flight-delay/versions/4/infer"
COLUMNS = [
    InputColumn(name="customer", source="input", type="number"),
    InputColumn(name="size", source="input", type="category"),
    InputColumn(name="view__total", source="feature", type="number"),
]


def picky(row: Mapping[str, Any]) -> float:
    if row["distance"] == 2475:
        raise ValueError("not this one")
    return 0.5


async def test_the_predecessor_does_not_answer_for_a_version_that_is_pinned(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    """On watch it answers where the new champion fails; not to who asked for the new champion alone."""
    await stage.obey(stage.package("4", picky), previous=stage.package("3", by_mean), watched=True)
    fallen_back = (await http.post("/v2/models/flight-delay/infer", json=question())).json()
    assert (fallen_back["model_version"], fallen_back["parameters"]["variant"]) == ("3", "previous")
    refused = await http.post(PINNED, json=question())
    assert refused.status_code == 503
    assert "no model has an answer" in refused.json()["error"]
    served, silent = on_record(stage)
    assert isinstance(served, PredictionServed)
    assert isinstance(silent, QuestionUnanswered)
    assert silent.reason == "model_failed"
    counted = {"loop": "flight-delay", "variant": "previous", "transport": "http"}
    assert stage.metric("millstream_predictions_served_total", **counted) == 1
    other = question(distance={"name": "distance", "shape": [1], "datatype": "FP32", "data": [100]})
    assert (await http.post(PINNED, json=other)).json()["model_version"] == "4"


def rows(**tensors: tuple[str, Any]) -> Any:
    given = {"customer": ("INT64", 5), "size": ("BYTES", "M"), "view__total": ("FP32", 1.0)} | tensors
    sent = [from_values(name, datatype, [1], [value]) for name, (datatype, value) in given.items()]
    return rows_of(sent, COLUMNS, others=[], fields={"customer", "order"})


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_a_key_keeps_all_its_digits(datatype: str) -> None:
    large = 9_007_199_254_740_993  # 2^53 + 1: float64 knows no such number
    for name in ("customer", "order"):
        (event,) = rows(**{name: (datatype, large)}).events
        assert event[name] == large
        assert type(event[name]) is int


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 16_777_217), ("FP64", 9_007_199_254_740_993)])
def test_a_key_that_may_have_lost_digits_is_refused(datatype: str, value: int) -> None:
    with pytest.raises(Refusal, match=r"input 'customer': .* may have lost digits in FP.*; send BYTES or INT64"):
        rows(customer=(datatype, value))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_a_decimal_that_names_something_is_what_was_written(datatype: str) -> None:
    (event,) = rows(size=(datatype, 5.1), customer=(datatype, 7.0)).events
    assert (event["size"], event["customer"]) == (5.1, 7)
    (event,) = rows(size=(datatype, None)).events
    assert event["size"] is None


def test_a_large_whole_feature_is_as_it_was_given() -> None:
    large = 2**63 - 1
    for datatype in ("INT64", "UINT64"):
        (found,) = rows(view__total=(datatype, large)).features["view__total"].tolist()
        assert found == large
    (beyond,) = rows(view__total=("UINT64", 2**64 - 1)).features["view__total"].tolist()
    assert beyond == float(2**64 - 1)


def test_one_tensor_for_all_columns_keeps_keys_too() -> None:
    numbers = [COLUMNS[0], COLUMNS[2]]
    table = from_values("features", "FP32", [1, 2], [16_777_217, 1.0])
    assert rows_of([table], numbers, others=[], fields={"order"}).events == [{"customer": 16_777_216.0}]
    with pytest.raises(Refusal, match="may have lost digits"):
        rows_of([table], numbers, others=[], fields={"customer"})
    table = from_values("features", "FP64", [1, 2], [16_777_217, np.pi])
    assert rows_of([table], numbers, others=[], fields={"customer"}).events == [{"customer": 16_777_217}]
