"""What each column contributed: it sums up, it is what Shapley's formula says, and nobody waits for it who did not ask."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from millstream.contracts.events import ModelRef, PredictionServed, Scalar
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, REFERENCE_FILE, InputColumn
from millstream.contracts.tasks import Task
from millstream.contracts.times import to_datetime
from millstream.testing.models import manifest, number, reference
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.domain import shapley
from millstream_serving.domain.columns import Columns
from millstream_serving.handlers import explain
from millstream_serving.handlers.explain import MOST_WAITING, Explainer

from .conftest import INPUTS, NOON, Stage, flight
from .test_serving_inference import INFER, MEAN, on_record, question
from .trees import boosted

PREDICT = "/v1/loops/flight-delay/predict"
SAMPLE: dict[str, list[Scalar]] = {
    "distance": [float(200 + 37 * row % 2500) for row in range(100)],
    "carrier": ["B6" if row % 3 else "UA" for row in range(100)],
    MEAN: [None if row % 5 == 0 else float(row % 17) for row in range(100)],
}


def additive(row: Mapping[str, Any]) -> float:
    """Log-odds of -1, plus a fifth for B6, plus a tenth a minute of mean delay; distance plays no part."""
    mean = 0.0 if math.isnan(row[MEAN]) else row[MEAN] / 10
    return 1 / (1 + math.exp(1 - 0.2 * (row["carrier"] == "B6") - mean))


def package(
    stage: Stage, version: str, score: Callable[[Mapping[str, Any]], Any], *, sample: bool = True, **said: Any
) -> ModelRef:
    """As trainer writes it, reference and all."""
    graph = f"graph of {version}".encode()
    stage.runtime.graphs[graph] = score
    whole = reference([], number("probability", [0.5], importance=0.0), sample=SAMPLE if sample else {})
    files = {MODEL_FILE: graph, REFERENCE_FILE: msgspec.json.encode(whole)}
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    fields: dict[str, Any] = {"feature_service": "delay_v1", "views": {"origin_delays": "v1"}} | said
    made = manifest("flight-delay", INPUTS, version=version, files=hashes, **fields)
    uri, sha256 = stage.packages.save(f"flight-delay/{version}", {**files, MANIFEST_FILE: msgspec.json.encode(made)})
    return ModelRef(version=version, run=f"run-{version}", uri=uri, sha256=sha256, at=to_datetime(NOON))


async def test_an_answer_explains_itself_when_it_is_asked_to(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive))
    plain = (await http.post(PREDICT, json={"event": flight()})).json()
    assert "explanation" not in plain
    said = (await http.post(f"{PREDICT}?explain=true", json={"event": flight()})).json()
    found = said["explanation"]
    assert (found["of"], found["missing"], found["samples"]) == ("log_odds", [], explain.SAMPLES)
    assert list(found["contributions"]) == [MEAN, "carrier", "distance"], "the largest first"
    assert found["contributions"]["distance"] == 0.0
    # Of a sum each part is its term less the term's mean over the training rows.
    used = np.unique(np.linspace(0, 99, explain.SAMPLES).astype(int))
    means = [0.0 if (value := SAMPLE[MEAN][row]) is None else float(value) / 10 for row in used]
    assert found["contributions"][MEAN] == pytest.approx(1.21 - np.mean(means), abs=1e-5)
    of_b6 = 0.2 - 0.2 * np.mean([SAMPLE["carrier"][row] == "B6" for row in used])
    assert found["contributions"]["carrier"] == pytest.approx(of_b6, abs=1e-5)
    chance = said["probability"]
    assert found["score"] == pytest.approx(math.log(chance / (1 - chance)), abs=1e-5)
    assert found["base"] + sum(found["contributions"].values()) == pytest.approx(found["score"], abs=1e-5)
    again = (await http.post(f"{PREDICT}?explain=true", json={"event": flight()})).json()
    assert again["explanation"] == found, "one question, one explanation"
    counted = {"loop": "flight-delay", "outcome": "given"}
    assert stage.metric("millstream_explanations_total", **counted) == 2


async def test_what_a_question_has_no_value_for_is_named(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive))
    reply = await http.post(f"{PREDICT}?explain=true", json={"event": flight(origin="XXX", distance=None)})
    found = reply.json()["explanation"]
    assert found["missing"] == ["distance", MEAN]
    assert found["contributions"][MEAN] < 0, "that nothing is known of the delays speaks against one"


async def test_the_protocol_explains_each_row(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive))
    body = question() | {"parameters": {"explain": True}}
    said = (await http.post(INFER, json=body)).json()
    probability, explanation = said["outputs"]
    assert (explanation["name"], explanation["datatype"], explanation["shape"]) == ("explanation", "BYTES", [1])
    found = json.loads(explanation["data"][0])["explanation"]
    chance = probability["data"][0]
    assert found["base"] + sum(found["contributions"].values()) == pytest.approx(
        math.log(chance / (1 - chance)), abs=1e-5
    )
    odd = await http.post(INFER, json=question() | {"parameters": {"explain": "yes"}})
    assert (odd.status_code, "send true or false" in odd.json()["error"]) == (400, True)
    many = [one | {"shape": [9], "data": one["data"] * 9} for one in question()["inputs"]]
    refused = await http.post(INFER, json={"inputs": many, "parameters": {"explain": True}})
    assert (refused.status_code, "at most 8" in refused.json()["error"]) == (400, True)


async def test_a_flag_that_is_none_is_refused(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive))
    refused = await http.post(f"{PREDICT}?explain=1", json={"event": flight()})
    assert (refused.status_code, refused.json()["error"]) == (422, "bad_body")
    assert "explain=true" in refused.json()["message"]
    assert not stage.publisher.sent


@pytest.mark.parametrize(
    ("said", "score", "of", "label"),
    [
        (
            {"task": "regression", "output": "value"},
            lambda row: 3.0 * float(np.nan_to_num(row["distance"])),
            "value",
            None,
        ),
        (
            {"task": "multiclass", "output": "probabilities", "classes": ["early", "late"]},
            lambda row: (1 - additive(row), additive(row)),
            "log_odds",
            "late",
        ),
    ],
)
async def test_other_tasks_are_explained_on_their_own_scale(
    stage: Stage, http: httpx.AsyncClient, said: dict[str, Any], score: Any, of: str, label: str | None
) -> None:
    await stage.obey(package(stage, "1", score, **said))
    # A mean delay that makes `late` the likeliest.
    stage.features.values["origin", "JFK"] = 30.0
    found = (await http.post(f"{PREDICT}?explain=true", json={"event": flight()})).json()["explanation"]
    assert (found["of"], found.get("class")) == (of, label)
    total = found["base"] + sum(found["contributions"].values())
    assert total == pytest.approx(found["score"], rel=1e-5)


async def test_without_training_rows_the_answer_says_so(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive, sample=False))
    said = (await http.post(f"{PREDICT}?explain=true", json={"event": flight()})).json()
    assert (said["version"], said["explanation"]) == ("1", None)
    assert "training rows of version 1" in said["unexplained"]
    assert stage.metric("millstream_explanations_total", loop="flight-delay", outcome="failed") == 1


async def test_who_does_not_ask_waits_for_no_explanation_and_a_flood_is_told_at_once(
    stage: Stage, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.obey(package(stage, "1", additive))
    begun, go_on, walked = threading.Event(), threading.Event(), shapley.walked

    def slow(question: Columns, others: Columns, places: Any) -> Columns:
        begun.set()
        go_on.wait(60)
        return walked(question, others, places)

    monkeypatch.setattr(shapley, "walked", slow)
    url = f"{PREDICT}?explain=true"
    first = asyncio.create_task(http.post(url, json={"event": flight(0)}))
    await asyncio.to_thread(begun.wait, 60)
    waiting = [asyncio.create_task(http.post(url, json={"event": flight(n)})) for n in range(1, MOST_WAITING + 1)]
    busy = None
    async with asyncio.timeout(30):
        while busy is None:
            reply = (await http.post(PREDICT, json={"event": flight(99)})).json()
            assert reply["version"] == "1", "answered beside it"
            await asyncio.sleep(0)
            if stage.explainer._asked > MOST_WAITING:
                busy = (await http.post(url, json={"event": flight(100)})).json()
    assert busy["explanation"] is None
    assert "wait already" in busy["unexplained"]
    go_on.set()
    replies = [await one for one in (first, *waiting)]
    assert all(reply.json()["explanation"] for reply in replies)


async def test_one_that_takes_too_long_is_left_out(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(package(stage, "1", additive))
    await http.post(PREDICT, json={"event": flight()})
    (served,) = on_record(stage)
    assert isinstance(served, PredictionServed)
    hurried = Explainer(roster=stage.roster, packages=stage.packages, metrics=stage.metrics, within=0.0)
    found = await hurried.explain(served)
    assert found["explanation"] is None
    assert "took more than 0 s" in str(found["unexplained"])


def _exact(score: Callable[[Columns], Any], asked: Columns, others: Columns) -> dict[str, float]:
    """Shapley's formula (1953), term by term, each coalition's worth a mean over the training rows."""
    names, rows = list(asked), len(next(iter(others.values())))

    def worth(known: Sequence[str]) -> float:
        mixed = {n: np.repeat(asked[n], rows, axis=0) if n in known else others[n] for n in names}
        return float(shapley.score_of(Task.BINARY, [], "", score(mixed)).mean())

    found = {}
    for name in names:
        rest = [one for one in names if one != name]
        total = 0.0
        for size in range(len(names)):
            weight = math.factorial(size) * math.factorial(len(names) - size - 1) / math.factorial(len(names))
            for known in itertools.combinations(rest, size):
                total += weight * (worth((*known, name)) - worth(known))
        found[name] = total
    return found


def test_of_boosted_trees_it_is_shapleys_formula_within_its_error() -> None:
    inputs = [
        *(InputColumn(name=f"n{i}", source="input", type="number") for i in range(5)),
        InputColumn(name="carrier", source="input", type="category"),
    ]
    model = OnnxRuntime(1).load(boosted(inputs, trees=60), inputs, "probability")
    chance = np.random.default_rng(1)
    sample: dict[str, list[Scalar]] = {f"n{i}": chance.uniform(-5, 40, 256).tolist() for i in range(5)}
    sample["carrier"] = chance.choice(["B6", "UA", "DL", ""], 256).tolist()
    others = shapley.background(inputs, sample, 64)
    asked: Columns = {f"n{i}": np.array([[8.0 * i]], dtype=np.float32) for i in range(5)}
    asked["carrier"] = np.array([["UA"]], dtype=object)
    exact = _exact(model.run, asked, others)

    places = shapley.ranks(np.random.default_rng(7), 64, len(inputs))
    answers = model.run(shapley.walked(asked, others, places))
    scores = shapley.score_of(Task.BINARY, [], "", answers).reshape(64, -1)
    found = shapley.explained(Task.BINARY, "", asked, scores, shapley.shares(scores, places))

    assert found.base + sum(found.contributions.values()) == pytest.approx(found.score, abs=1e-9), "exact, always"
    assert found.base + sum(exact.values()) == pytest.approx(found.score, abs=1e-6)
    for name, value in exact.items():
        assert abs(found.contributions[name] - value) < 3 * found.errors[name], name
    assert max(found.errors.values()) < 0.25 * max(abs(value) for value in exact.values())
