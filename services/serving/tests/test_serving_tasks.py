"""The three tasks: what a model may answer, on record and over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.tasks import Task
from millstream_serving.domain.scores import outputs_of, shape_of

from .conftest import Stage
from .test_serving_answer_stream import batch, doorway, published
from .test_serving_predict import answers
from .test_serving_trials import PREDICT, ok_when_warm

Flight = Callable[..., dict[str, Any]]
CLASSES = ["early", "on time", "late"]
NAN, INFINITE = float("nan"), float("inf")


def early(row: Any) -> tuple[float, ...]:
    return (0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    ("task", "classes", "values", "outputs"),
    [
        (Task.BINARY, [], [0.25, 0.0, 1.0], [{"probability": 0.25}, {"probability": 0.0}, {"probability": 1.0}]),
        (Task.BINARY, [], [NAN, 1.5, -0.1], [None, None, None]),
        (Task.REGRESSION, [], [17.5, -3.0, 0.0], [{"value": 17.5}, {"value": -3.0}, {"value": 0.0}]),
        (Task.REGRESSION, [], [NAN, INFINITE, -INFINITE], [None, None, None]),
        (Task.MULTICLASS, CLASSES, [[0.5, 0.25, 0.25]], [{"early": 0.5, "on time": 0.25, "late": 0.25}]),
        (Task.MULTICLASS, CLASSES, [[0.5, NAN, 0.5], [1.5, -0.5, 0.0]], [None, None]),
    ],
)
def test_only_an_honest_answer_is_an_output(task: Task, classes: list[str], values: Any, outputs: Any) -> None:
    found = np.array(values, dtype=np.float32)
    assert found.shape == shape_of(task, classes, len(values))
    assert outputs_of(task, classes, found) == outputs


async def test_a_class_for_each_flight(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    await stage.obey(stage.package("1", early, task="multiclass", output="probabilities", classes=CLASSES))
    said = (await http.post(PREDICT, json={"event": flight()})).json()
    assert said["probabilities"] == {"early": 0.5, "on time": 0.25, "late": 0.25}
    assert "probability" not in said
    await doorway(stage)(batch(flight()))
    one, two = published(stage)
    assert isinstance(one, PredictionServed)
    assert isinstance(two, PredictionServed)
    assert one.output == two.output == said["probabilities"]
    shown = (await http.get("/v1/loops/flight-delay")).json()
    assert shown["champion"]["task"] == "multiclass"


async def test_minutes_for_each_flight(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    delay = ok_when_warm(lambda row: INFINITE if row["carrier"] == "ZZ" else -17.5)
    challenger = stage.package("2", lambda row: 12.0, task="regression", output="value")
    await stage.obey(stage.package("1", delay, task="regression", output="value"), challenger=challenger)
    said = (await http.post(PREDICT, json={"event": flight()})).json()
    assert said["value"] == -17.5
    (record,) = published(stage)
    assert isinstance(record, PredictionServed)
    assert (record.output, record.other and record.other.output) == ({"value": -17.5}, {"value": 12.0})
    (odd,) = await answers(stage, flight(carrier="ZZ"))
    assert isinstance(odd, QuestionUnanswered)
    refused = await http.post(PREDICT, json={"event": flight(carrier="ZZ")})
    assert (refused.status_code, refused.json()["error"]) == (503, "model_failed")
