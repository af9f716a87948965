"""Three graphs in onnxruntime and room for two: who is asked is loaded, who gives way gives its memory back."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import ModelRef, PredictionServed
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE
from millstream.contracts.times import to_datetime
from millstream.project import load_project
from millstream_serving.adapters.onnx_model import OnnxModel, OnnxRuntime, _allocated
from millstream_serving.handlers import ask

from .conftest import INPUTS, LOOP, NOON, Stage, _manifest, flight, state_of, write_project
from .trees import boosted

LOOPS = ["arrivals", "boarding", "catering"]
NUMBERS = [one for one in INPUTS if one.type == "number"]
GRAPHS = {loop: boosted(NUMBERS, trees=400, seed=seed) for seed, loop in enumerate(LOOPS)}
"""Of one shape, so of one size; each with answers of its own."""


def truth(model: OnnxModel) -> float:
    """What the graph says to the flight of these tests."""
    row = {"distance": 2475.0, "origin_delays__mean": 12.1}
    return float(model.run({one.name: np.array([[row[one.name]]], np.float32) for one in NUMBERS})[0])


@pytest.fixture(scope="module")
def truths() -> dict[str, float]:
    return {loop: truth(OnnxRuntime(1).load(graph, NUMBERS, "probability")) for loop, graph in GRAPHS.items()}


@pytest.fixture
async def stage(tmp_path: Path, truths: dict[str, float]) -> AsyncIterator[Stage]:
    root = write_project(tmp_path / "project")
    (root / "loops/loop.yaml").unlink()
    for loop in LOOPS:
        (root / f"loops/{loop}.yaml").write_text(LOOP.format(loop=loop, stream="flights-scheduled"))
    gc.collect()
    size = OnnxRuntime(1).load(GRAPHS["arrivals"], NUMBERS, "probability").size
    runtime: Any = OnnxRuntime(1)
    stage = Stage(project=load_project(root), root=tmp_path, runtime=runtime, budget=round(2.5 * size))
    stage.caught_up.set()
    running = [
        asyncio.create_task(stage.keeper.run(stage.caught_up)),
        asyncio.create_task(stage.residents.run(stage.keeper.load)),
    ]
    yield stage
    for one in running:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one


async def obey(stage: Stage, loop: str) -> None:
    graph = GRAPHS[loop]
    said = msgspec.structs.replace(
        _manifest("1", {MODEL_FILE: hashlib.sha256(graph).hexdigest()}), loop=loop, inputs=NUMBERS
    )
    uri, sha256 = stage.packages.save(f"{loop}/1", {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(said)})
    ref = ModelRef(version="1", run="run-1", uri=uri, sha256=sha256, at=to_datetime(NOON))
    stage.keeper.hear(state_of(1, ref, loop=loop))
    async with asyncio.timeout(30):
        await stage.keeper.idle.wait()
    assert stage.roster.standing(loop).refusal is None


async def answered(stage: Stage, loop: str) -> float:
    question = ask(stage.loops[loop], flight(), asked_at=NOON, transport="kafka")
    (found,) = await stage.predictor.predict([question])
    assert isinstance(found, PredictionServed), found
    return float(found.output["probability"])


def held() -> int:
    """Bytes that are handed out, whoever has them."""
    gc.collect()
    found = _allocated()
    assert found is not None
    return found


async def test_three_models_take_turns_in_the_room_of_two(stage: Stage, truths: dict[str, float]) -> None:
    budget, before = stage.budget, held()
    assert budget is not None
    for loop in LOOPS:
        await obey(stage, loop)
    assert len(set(truths.values())) == len(LOOPS)
    for turn, loop in enumerate([*LOOPS, *LOOPS], start=1):
        assert await answered(stage, loop) == truths[loop]
        here = [one for one in LOOPS if not stage.roster.standing(one).unloaded]
        assert loop in here
        assert len(here) == 2
        unloaded = sum(stage.metric("millstream_models_unloaded_total", loop=one) for one in LOOPS)
        assert unloaded == 1 + turn, "once for the third model, and once for each that came back"
        assert 0.5 * budget < held() - before <= budget, "who is unloaded takes nothing any more"
        stage.seconds += 60.0  # each has had its time
