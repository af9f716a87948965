"""How a replica takes a new model: whole, checked and warm, or not at all."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import ModelRef, Step
from millstream.errors import RetryLater
from millstream.project import Project
from millstream_serving.handlers import models

from .conftest import INPUTS, Stage, state_of


def steady(row: Any) -> float:
    return 0.25


def standing(stage: Stage) -> tuple[int, int, str | None]:
    """Revision obeyed, revision heard, version that answers."""
    now = stage.roster.standing("flight-delay")
    return now.revision, now.heard, now.champion.ref.version if now.champion else None


async def test_the_first_model_arrives(stage: Stage) -> None:
    await stage.keeper.idle.wait()
    assert stage.health.not_ready() == {}
    assert standing(stage) == (0, 0, None)
    stage.promote(1, stage.package("1", steady))
    await stage.heard(1)
    assert standing(stage) == (1, 1, "1")
    assert stage.metric("millstream_model_revision", loop="flight-delay") == 1.0


async def test_an_older_record_changes_nothing(stage: Stage) -> None:
    first, second = stage.package("1", steady), stage.package("2", steady)
    stage.promote(2, second)
    await stage.heard(2)
    stage.promote(1, first)
    await stage.heard(2)
    assert standing(stage) == (2, 2, "2")


async def test_a_rejected_challenger_leaves_the_loaded_champion_where_it_is(stage: Stage) -> None:
    first = stage.package("1", steady)
    stage.promote(1, first)
    await stage.heard(1)
    loaded = stage.roster.standing("flight-delay").champion
    stage.promote(2, first)
    await stage.heard(2)
    assert standing(stage) == (2, 2, "1")
    assert stage.roster.standing("flight-delay").champion is loaded


async def test_a_state_without_champion_is_obeyed_too(stage: Stage) -> None:
    stage.promote(1, stage.package("1", steady))
    await stage.heard(1)
    stage.promote(2, None)
    await stage.heard(2)
    assert standing(stage) == (2, 2, None)


def _graph_swapped(stage: Stage) -> ModelRef:
    ref = stage.package("2", steady)
    (stage.root / "packages/flight-delay/2/model.onnx").write_bytes(b"another graph")
    return ref


def _manifest_swapped(stage: Stage) -> ModelRef:
    return msgspec.structs.replace(stage.package("2", steady), sha256="0" * 64)


def _gone(stage: Stage) -> ModelRef:
    ref = stage.package("2", steady)
    shutil.rmtree(stage.root / "packages/flight-delay/2")
    return ref


def _elsewhere(stage: Stage) -> ModelRef:
    return msgspec.structs.replace(stage.package("2", steady), uri="file:///etc")


def _nan(stage: Stage) -> ModelRef:
    return stage.package("2", lambda row: float("nan"))


def _raising(stage: Stage) -> ModelRef:
    def score(row: Any) -> float:
        raise ZeroDivisionError("no such tree")

    return stage.package("2", score)


def _beyond_one(stage: Stage) -> ModelRef:
    return stage.package("2", lambda row: 1.5)


def _ranking(stage: Stage) -> ModelRef:
    return stage.package("2", steady, task="ranking")


def _without_classes(stage: Stage) -> ModelRef:
    return stage.package("2", steady, task="multiclass", classes=["late"])


def _fewer_probabilities(stage: Stage) -> ModelRef:
    return stage.package("2", lambda row: (0.5, 0.5), task="multiclass", classes=["early", "on time", "late"])


def _changed_view(stage: Stage) -> ModelRef:
    return stage.package("2", steady, views={"origin_delays": "v0"})


def _unknown_service(stage: Stage) -> ModelRef:
    return stage.package("2", steady, feature_service="delay_v9")


def _unknown_feature(stage: Stage) -> ModelRef:
    return stage.package(
        "2", steady, inputs=[*INPUTS[:2], msgspec.structs.replace(INPUTS[2], name="dest_delays__mean")]
    )


def _unknown_field(stage: Stage) -> ModelRef:
    return stage.package("2", steady, inputs=[*INPUTS, msgspec.structs.replace(INPUTS[0], name="altitude")])


def _of_another_loop(stage: Stage) -> ModelRef:
    return stage.package("2", steady, loop="bike-demand")


BROKEN: list[tuple[Callable[[Stage], ModelRef], str, str]] = [
    (_graph_swapped, "package", "model.onnx has sha256"),
    (_manifest_swapped, "package", "manifest.json has sha256"),
    (_gone, "package", "is missing"),
    (_elsewhere, "package", "outside the package folder"),
    (_of_another_loop, "package", "bike-demand"),
    (_nan, "warm_up", "nan"),
    (_raising, "warm_up", "no such tree"),
    (_beyond_one, "warm_up", "1.5"),
    (_ranking, "package", "task 'ranking' is none of binary, multiclass, regression"),
    (_without_classes, "package", "at least two"),
    (_fewer_probabilities, "warm_up", "one probability a class"),
    (_changed_view, "features", "view origin_delays"),
    (_unknown_service, "features", "delay_v9"),
    (_unknown_feature, "features", "dest_delays__mean"),
    (_unknown_field, "features", "altitude"),
]


@pytest.mark.parametrize(("broken", "reason", "said"), BROKEN)
async def test_a_broken_package_never_replaces_a_good_model(
    stage: Stage, broken: Callable[[Stage], ModelRef], reason: str, said: str
) -> None:
    stage.promote(1, stage.package("1", steady))
    await stage.heard(1)
    stage.promote(2, broken(stage))
    await stage.heard(2)
    assert standing(stage) == (1, 2, "1")
    refusal = stage.roster.standing("flight-delay").refusal
    assert refusal is not None
    assert said in refusal.reason
    assert stage.metric("millstream_models_refused_total", loop="flight-delay", reason=reason) == 1.0
    assert stage.health.not_ready() == {}, "the good model still answers"


async def test_a_replica_with_nothing_but_a_broken_package_is_not_ready_until_a_good_one_comes(stage: Stage) -> None:
    stage.promote(1, _nan(stage))
    await stage.heard(1)
    assert "was refused" in stage.health.not_ready()["model of flight-delay"]
    stage.promote(2, stage.package("3", steady))
    await stage.heard(2)
    assert stage.health.not_ready() == {}
    assert standing(stage) == (2, 2, "3")
    assert stage.roster.standing("flight-delay").refusal is None


async def test_a_fresh_replica_loads_only_the_newest_and_is_known_only_then(project: Project, tmp_path: Path) -> None:
    stage = Stage(project=project, root=tmp_path)
    loaded = counting_loads(stage)
    keeping = asyncio.create_task(stage.keeper.run(stage.caught_up))
    for revision in (1, 2, 3):
        stage.promote(revision, stage.package(str(revision), steady))
    assert "models" in stage.health.not_ready()
    assert not stage.keeper.known.is_set()
    stage.caught_up.set()
    await stage.keeper.known.wait()
    assert loaded == [b"graph of 3"]
    assert standing(stage) == (3, 3, "3")
    assert stage.health.not_ready() == {}
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_storage_that_is_away_is_waited_for(stage: Stage) -> None:
    ref = stage.package("1", steady)
    manifest, tries = stage.packages.manifest, []

    def sometimes(ref: ModelRef) -> Any:
        tries.append(ref)
        if len(tries) == 1:
            raise RetryLater("the disk is being mounted")
        return manifest(ref)

    stage.packages.manifest = sometimes  # type: ignore[method-assign]
    stage.promote(1, ref)
    await stage.heard(1)
    assert len(tries) == 2
    assert standing(stage) == (1, 1, "1")


async def test_a_model_for_a_stranger_is_not_ours_to_load(stage: Stage) -> None:
    stage.keeper.hear(state_of(1, stage.package("1", steady), loop="bike-demand"))
    await stage.heard(0)


def counting_loads(stage: Stage) -> list[bytes]:
    """The graphs that are loaded from here on."""
    loaded: list[bytes] = []
    load = stage.runtime.load

    def counted(raw: bytes, inputs: Any, output: str) -> Any:
        loaded.append(raw)
        return load(raw, inputs, output)

    stage.runtime.load = counted  # type: ignore[method-assign]
    return loaded


async def test_whoever_is_loaded_changes_its_place_without_being_loaded_again(stage: Stage) -> None:
    loaded = counting_loads(stage)
    champion, challenger = stage.package("1", steady), stage.package("2", steady)
    await stage.obey(champion)
    for share in (0.0, 0.1, 0.5):
        await stage.obey(champion, challenger=challenger, share=share)
    await stage.obey(challenger, previous=champion, watched=True)
    await stage.obey(champion, step=Step.ROLLED_BACK)
    assert loaded == [b"graph of 1", b"graph of 2"]
    assert standing(stage) == (6, 6, "1")


async def test_a_state_whose_challenger_cannot_be_served_is_refused_as_a_whole(stage: Stage) -> None:
    first, third = stage.package("1", steady), stage.package("3", steady)
    await stage.obey(first)
    stage.keeper.hear(state_of(2, third, challenger=_nan(stage)))
    await stage.heard(2)
    assert standing(stage) == (1, 2, "1"), "not even its champion is obeyed"
    refusal = stage.roster.standing("flight-delay").refusal
    assert refusal is not None
    assert refusal.version == "2"
    assert refusal.reason.startswith("challenger 2: two rows of nulls and zeros gave")
    assert stage.health.not_ready() == {}


async def test_a_trial_that_goes_wrong_later_leaves_both_models_where_they_are(stage: Stage) -> None:
    champion, challenger = stage.package("1", steady), stage.package("2", steady)
    await stage.obey(champion, challenger=challenger)
    before = stage.roster.standing("flight-delay")
    stage.keeper.hear(state_of(2, champion, challenger=stage.package("3", lambda row: 1.5)))
    await stage.heard(2)
    after = stage.roster.standing("flight-delay")
    assert (after.champion, after.other, after.role) == (before.champion, before.other, "challenger")


async def test_a_fresh_replica_answers_with_the_champion_of_a_state_whose_challenger_it_refuses(stage: Stage) -> None:
    """All replicas restart in the middle of a trial, and its package is gone: no question waits for the trial's end."""
    champion = stage.package("1", steady)
    stage.keeper.hear(state_of(7, champion, challenger=_gone(stage)))
    await stage.heard(7)
    assert standing(stage) == (0, 7, "1")
    assert stage.health.not_ready() == {}
    stage.keeper.hear(state_of(8, champion, step=Step.REJECTED))
    await stage.heard(8)
    assert standing(stage) == (8, 8, "1")


async def test_a_predecessor_that_is_gone_is_done_without(stage: Stage) -> None:
    gone = _gone(stage)
    await stage.obey(stage.package("3", steady), previous=gone, watched=True)
    now = stage.roster.standing("flight-delay")
    assert (now.revision, now.other, now.guarded) == (1, None, "")
    assert now.missing.startswith("previous 2: ")


async def test_models_of_two_tasks_are_not_compared(stage: Stage) -> None:
    await stage.obey(stage.package("1", steady))
    champion = stage.roster.standing("flight-delay").models["champion"].ref
    counts = stage.package("2", lambda row: 17.0, task="regression", output="value")
    stage.keeper.hear(state_of(2, champion, challenger=counts))
    await stage.heard(2)
    refusal = stage.roster.standing("flight-delay").refusal
    assert refusal is not None
    assert "its task is regression, the champion's is binary" in refusal.reason


async def test_a_model_that_hangs_in_its_warm_up_does_not_hold_up_what_follows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def hangs(row: Any) -> float:
        go_on.wait(30)
        return 0.5

    await stage.obey(stage.package("1", steady))
    monkeypatch.setattr(models, "WARM_UP", 0.05)
    stage.promote(2, stage.package("2", hangs))
    await stage.heard(2)
    refusal = stage.roster.standing("flight-delay").refusal
    assert refusal is not None
    assert "took it more than" in refusal.reason
    monkeypatch.undo()
    await stage.obey(stage.package("3", steady))
    assert standing(stage) == (3, 3, "3")
    go_on.set()
