"""The bench tunes the example's loop, and says of it nothing twice."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from millstream.project import load_project
from millstream.project.rollout import Guards

BENCH = Path(__file__).parents[2] / "bench" / "loop"
FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"


def test_the_tuned_loop_is_the_examples_but_for_what_its_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    project = load_project(FLIGHTS)
    try:
        tuned = importlib.import_module("flights").tuned(project).loop
    finally:
        sys.modules.pop("flights", None)
    [example] = project.loops.values()
    said = YAML(typ="safe").load(BENCH / "flights.yaml")
    for part, values in said.items():
        for name, value in values.items():
            there, here = getattr(getattr(tuned, part), name), getattr(getattr(example, part), name)
            assert there != here, f"{part}.{name} is the example's own"
            if not isinstance(value, dict):
                assert there == value
    assert tuned.model.params.model_dump(exclude_unset=True) == said["model"]["params"]
    kept = {part: {*values} for part, values in said.items()}
    assert tuned.model_dump(exclude=kept) == example.model_dump(exclude=kept)


def test_callers_ask_a_loop_with_the_guards_that_a_loop_has_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    try:
        asked = importlib.import_module("mill")._asked_by_callers(tmp_path)
    finally:
        sys.modules.pop("mill", None)
    [loop] = load_project(asked).loops.values()
    assert loop.rollout.guards == Guards()
