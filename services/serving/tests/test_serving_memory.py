"""More loops than fit into memory: whoever was asked least recently gives way, and is back for its next question."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream.contracts.events import ModelRef, PredictionServed, QuestionUnanswered
from millstream.errors import RetryLater
from millstream.project import load_project
from millstream_serving.domain.question import Question
from millstream_serving.errors import ModelUnloaded
from millstream_serving.handlers import ask, residents
from millstream_serving.handlers.residents import STAY

from .conftest import INPUTS, LOOP, NOON, Stage, asking, flight, state_of, write_project
from .serving_process import in_memory
from .test_serving_connected import Town, running, town, until  # noqa: F401  (the fixture)
from .trees import boosted

LOOPS = ["arrivals", "boarding", "catering"]
BUDGET = 2_500
"""Two of three loops, whose models take 1,000 each."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    root = write_project(tmp_path / "project")
    (root / "loops/loop.yaml").unlink()
    for loop in LOOPS:
        (root / f"loops/{loop}.yaml").write_text(LOOP.format(loop=loop, stream="flights-scheduled"))
    stage = Stage(project=load_project(root), root=tmp_path, budget=BUDGET)
    stage.caught_up.set()
    running = [
        asyncio.create_task(stage.keeper.run(stage.caught_up)),
        asyncio.create_task(stage.residents.run(stage.keeper.load)),
    ]
    for loop in LOOPS:
        await obey(stage, loop, package(stage, loop))
    yield stage
    for one in running:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one


def package(stage: Stage, loop: str, version: str = "1", *, size: int = 1_000, answer: float | None = None) -> ModelRef:
    said = (1 + LOOPS.index(loop)) / 10 if answer is None else answer
    ref = stage.package(f"{loop}-{version}", lambda row: said, loop=loop)
    stage.runtime.sizes[f"graph of {loop}-{version}".encode()] = size
    return ref


async def obey(stage: Stage, loop: str, champion: ModelRef, **said: Any) -> None:
    stage.keeper.hear(state_of(stage.roster.standing(loop).heard + 1, champion, loop=loop, **said))
    async with asyncio.timeout(30):
        await stage.keeper.idle.wait()


def question(stage: Stage, loop: str, number: int = 1) -> Question:
    return ask(stage.loops[loop], flight(number), asked_at=NOON, transport="kafka")


async def answered(stage: Stage, loop: str) -> float:
    (found,) = await stage.predictor.predict([question(stage, loop)])
    assert isinstance(found, PredictionServed), found
    return float(found.output["probability"])


def loaded(stage: Stage) -> list[str]:
    return [loop for loop in LOOPS if not stage.roster.standing(loop).unloaded]


async def test_the_loop_that_was_asked_least_recently_gives_way(stage: Stage) -> None:
    assert loaded(stage) == ["boarding", "catering"], "the third model left no room for the first"
    await answered(stage, "boarding")
    assert await answered(stage, "arrivals") == pytest.approx(0.1), "it is back, and answers the very question"
    assert loaded(stage) == ["arrivals", "boarding"]
    assert stage.metric("millstream_models_unloaded_total", loop="catering") == 1
    held = [stage.metric("millstream_model_memory_bytes", loop=loop) for loop in LOOPS]
    assert held == [1_000, 1_000, 0]


async def test_where_there_is_no_budget_nobody_gives_way(stage: Stage) -> None:
    stage.residents._budget = None
    await obey(stage, "arrivals", package(stage, "arrivals", "2", size=10**12))
    assert loaded(stage) == LOOPS


async def test_what_no_rollout_needs_is_let_go_at_once(stage: Stage) -> None:
    """A predecessor off its watch: nobody has it any more, budget or not."""
    first = stage.roster.standing("catering").champion
    assert first is not None
    gone = weakref.ref(first.model)
    ref = first.ref
    await obey(stage, "catering", package(stage, "catering", "2"), previous=ref, watched=True)
    del first
    gc.collect()
    assert gone() is not None, "on watch it is scored beside its successor"
    champion = stage.roster.standing("catering").champion
    assert champion is not None
    await obey(stage, "catering", champion.ref, previous=ref)
    gc.collect()
    assert gone() is None


async def test_a_loop_gives_way_with_its_challenger_and_comes_back_with_it(stage: Stage) -> None:
    first = stage.roster.standing("catering").champion
    assert first is not None
    await obey(stage, "catering", first.ref, challenger=package(stage, "catering", "2"), share=0.5)
    assert loaded(stage) == ["catering"], "two of its models leave no room for another's"
    await answered(stage, "boarding")
    assert loaded(stage) == ["boarding"]
    standing = stage.roster.standing("catering")
    assert (standing.role, standing.revision) == ("challenger", 2), "who obeys what is still known"
    stage.seconds += STAY
    await answered(stage, "catering")
    standing = stage.roster.standing("catering")
    assert loaded(stage) == ["catering"]
    assert [model.is_here for model in standing.models.values()] == [True, True]


async def test_loops_that_do_not_fit_together_take_turns(stage: Stage) -> None:
    await obey(stage, "boarding", package(stage, "boarding", "2", size=2_000))
    assert loaded(stage) == ["boarding"]
    await answered(stage, "arrivals")
    with pytest.raises(ModelUnloaded, match="need more than MILLSTREAM_MODEL_MEMORY"):
        await answered(stage, "boarding")
    assert await answered(stage, "arrivals") == pytest.approx(0.1), "whoever came first has its turn"
    stage.seconds += STAY
    await answered(stage, "boarding")
    assert loaded(stage) == ["boarding"]


async def test_a_model_larger_than_the_budget_is_refused_aloud(stage: Stage) -> None:
    await obey(stage, "catering", package(stage, "catering", "2", size=BUDGET + 1))
    refusal = stage.roster.standing("catering").refusal
    assert refusal is not None
    assert refusal.reason == ("version catering-2 (0.0 MiB) do not fit into MILLSTREAM_MODEL_MEMORY, 0.0 MiB")
    assert stage.metric("millstream_models_refused_total", loop="catering", reason="memory") == 1
    assert await answered(stage, "catering") == pytest.approx(0.3), "the one before goes on answering"
    first = stage.roster.standing("catering").champion
    assert first is not None
    await obey(stage, "catering", first.ref, challenger=package(stage, "catering", "3", size=2_000))
    refusal = stage.roster.standing("catering").refusal
    assert refusal is not None
    assert refusal.version == "catering-3"
    assert stage.roster.standing("catering").champion is first


async def test_a_question_that_is_being_answered_keeps_its_model(stage: Stage) -> None:
    standing = await stage.residents.standing("boarding")
    await answered(stage, "catering")
    await answered(stage, "arrivals")
    assert loaded(stage) == ["arrivals", "catering"]
    found = await stage.predictor.infer(
        standing, [question(stage, "boarding")], {INPUTS[2].name: np.array([1.0])}, pinned=False
    )
    assert isinstance(found[0], PredictionServed)


async def test_a_hundred_questions_wait_for_one_loading(stage: Stage) -> None:
    loads = 0
    load = stage.runtime.load

    def counted(*asked: Any) -> Any:
        nonlocal loads
        loads += 1
        return load(*asked)

    stage.runtime.load = counted  # type: ignore[method-assign]
    questions = [question(stage, "arrivals", number) for number in range(100)]
    found = await asyncio.gather(*(stage.online.predict(one) for one in questions))
    assert all(isinstance(one, PredictionServed) for one in found)
    assert loads == 1


async def test_storage_that_is_away_makes_questions_wait_and_hurts_nobody_else(stage: Stage) -> None:
    manifest = stage.packages.manifest

    def away(ref: ModelRef) -> Any:
        raise RetryLater("the disk is being mounted")

    stage.packages.manifest = away  # type: ignore[method-assign]
    async with asking(stage.app()) as http:
        reply = await http.post("/v1/loops/arrivals/predict", json={"event": flight()})
        assert (reply.status_code, reply.json()["error"], reply.headers["retry-after"]) == (503, "unavailable", "1")
        assert "the disk is being mounted" in reply.json()["message"]
        assert (await http.post("/v1/loops/boarding/predict", json={"event": flight()})).status_code == 200
        stage.packages.manifest = manifest  # type: ignore[method-assign]
        assert (await http.post("/v1/loops/arrivals/predict", json={"event": flight()})).status_code == 200


async def test_a_loading_that_takes_long_is_told_and_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()
    opened = stage.store.open

    async def slowly(service: str) -> Any:
        await go_on.wait()
        return await opened(service)

    stage.store.open = slowly  # type: ignore[method-assign]
    monkeypatch.setattr(stage.residents, "_patience", 0.05)
    with pytest.raises(ModelUnloaded, match="is being loaded again"):
        await answered(stage, "arrivals")
    go_on.set()
    monkeypatch.setattr(stage.residents, "_patience", 10.0)
    assert await answered(stage, "arrivals") == pytest.approx(0.1)


async def test_a_package_that_is_gone_is_no_reason_to_hold_the_stream_up(stage: Stage) -> None:
    shutil.rmtree(stage.root / "packages/flight-delay/arrivals-1")
    (found,) = await stage.predictor.predict([question(stage, "arrivals")])
    assert isinstance(found, QuestionUnanswered)
    assert found.reason == "model_failed"
    async with asking(stage.app()) as http:
        reply = await http.post("/v1/loops/arrivals/predict", json={"event": flight()})
        assert (reply.status_code, reply.json()["error"]) == (503, "model_failed")
        assert "was unloaded and cannot be loaded again" in reply.json()["message"]
        assert "is missing" in reply.json()["message"]
        tensor = {"name": "distance", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
        reply = await http.post("/v2/models/arrivals/infer", json={"inputs": [tensor]})
        assert reply.status_code == 503
        assert "cannot be loaded again" in reply.json()["error"]
    assert stage.metric("millstream_models_refused_total", loop="arrivals", reason="package") == 1, "tried once"
    await obey(stage, "arrivals", package(stage, "arrivals", "2", answer=0.9))
    assert await answered(stage, "arrivals") == pytest.approx(0.9), "a new version is tried at once"


async def test_a_state_that_comes_while_its_loop_is_loaded_again_wins(stage: Stage) -> None:
    go_on, waits = asyncio.Event(), asyncio.Event()
    opened = stage.store.open

    async def slowly(service: str) -> Any:
        waits.set()
        await go_on.wait()
        return await opened(service)

    stage.store.open = slowly  # type: ignore[method-assign]
    asked = asyncio.create_task(answered(stage, "arrivals"))
    await waits.wait()
    stage.store.open = opened  # type: ignore[method-assign]
    await obey(stage, "arrivals", package(stage, "arrivals", "2", answer=0.9))
    go_on.set()
    assert await asked == pytest.approx(0.9)
    champion = stage.roster.standing("arrivals").champion
    assert champion is not None
    assert champion.ref.version == "arrivals-2"


async def test_the_status_says_who_is_unloaded_and_what_each_takes(stage: Stage) -> None:
    async with asking(stage.app()) as http:
        said = {one["loop"]: one for one in (await http.get("/v1/loops")).json()["loops"]}
        metadata = await http.get("/v2/models/arrivals")
    assert [said[loop]["unloaded"] for loop in LOOPS] == [True, False, False]
    assert said["arrivals"]["champion"]["memory_bytes"] == 1_000
    assert metadata.status_code == 200, "how to ask is known without the model"
    assert loaded(stage) == ["boarding", "catering"], "to look is not to ask"


def test_a_session_is_measured_by_what_malloc_handed_out() -> None:
    from millstream_serving.adapters.onnx_model import OnnxRuntime, _allocated

    numbers = [one for one in INPUTS if one.type == "number"]
    runtime = OnnxRuntime(1)
    runtime.load(boosted(numbers, trees=20), numbers, "probability")  # what onnxruntime makes once is no model's
    gc.collect()
    small, large = (runtime.load(boosted(numbers, trees=trees), numbers, "probability") for trees in (100, 1_000))
    assert 5 * small.size < large.size < 20 * small.size
    gc.collect()
    before = _allocated()
    size = large.size
    del large
    gc.collect()
    after = _allocated()
    assert before is not None
    assert after is not None
    assert before - after == pytest.approx(size, rel=0.1), "unloading gives back what loading took"


@pytest.mark.connected
async def test_two_loops_of_one_stream_take_turns_and_no_question_goes_unanswered(
    town: Town,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each event asks both loops, and there is room for one of their models."""
    monkeypatch.setattr(residents, "STAY", 0.3)
    other = replace(town, loop=f"{town.loop}-too")
    second = town.settings.project / "loops/second.yaml"
    second.write_text(LOOP.format(loop=other.loop, stream=town.stream))
    town.runtime.sizes.update({b"graph of 1": 700_000, b"graph of 2": 700_000})
    for version, one in (("1", town), ("2", other)):
        await one.promote(1, one.package(version))
    async with running(in_memory(town.settings.model_copy(update={"model_memory": 1}), town.runtime)) as http:
        await until(http, "/readyz", lambda said: said["ready"])
        for number in range(3):
            await town.ask(flight(number))
            found = [*await town.answers(number + 1), *await other.answers(number + 1)]
            assert all(isinstance(one, PredictionServed) for one in found)
        shown = {one["loop"]: one for one in (await http.get("/v1/loops")).json()["loops"]}
        assert sorted(one["unloaded"] for one in shown.values()) == [False, True]
        metrics = (await http.get("/metrics")).text
    assert "millstream_models_unloaded_total" in metrics
