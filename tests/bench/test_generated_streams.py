"""Streams of the bench are what they say: the same each time, with the truth that is stated."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "loop"
QUESTIONS = 12_000
NAMES = (
    "abrupt",
    "gradual",
    "recurring",
    "seasonal",
    "labels_only",
    "harmless_shift",
    "broken_producer",
    "label_outage",
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the generators. A bench is run as a script, so it finds its neighbours beside it."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("generated")
    for name in ("generated", "models"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_is_the_same_each_time_and_its_labels_follow_its_chances(bench: Any, name: str) -> None:
    one, again = bench.generated(name, QUESTIONS), bench.generated(name, QUESTIONS)

    assert tuple(bench.STREAMS) == NAMES
    assert one.past().dataset.table.sha256() == again.past().dataset.table.sha256()
    assert [label.key for label in one.past().labels] == [label.key for label in again.past().labels]
    assert (np.diff(one.days) >= 0).all()
    error = np.sqrt(np.sum(one.chance * (1 - one.chance)))
    assert abs(np.sum(one.positive) - np.sum(one.chance)) < 4 * error
    told = one.label_days - one.days
    assert told.min() > 0
    assert told[np.isfinite(told)].max() <= 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("abrupt", ((60, 60),)),
        ("gradual", ((45, 75),)),
        ("recurring", ((45, 45), (80, 80))),
        ("seasonal", ()),
        ("labels_only", ((60, 60),)),
        ("harmless_shift", ()),
        ("broken_producer", ()),
        ("label_outage", ()),
    ],
)
def test_the_concept_changes_when_it_is_said_to(
    bench: Any, name: str, changes: tuple[tuple[float, float], ...]
) -> None:
    one = bench.generated(name, QUESTIONS)
    whole = ~np.isnan(one.inputs["x0"])
    inputs = {column: values[whole] for column, values in one.inputs.items()}
    days, chance = one.days[whole], one.chance[whole]
    of_first = chance == bench.concept_a(inputs, one.kinds[whole])
    of_second = chance == bench.concept_b(inputs, one.kinds[whole])

    assert one.changes == changes
    edges = [0.0, *(day for change in changes for day in change), float(bench.DAYS)]
    for number, concept in enumerate([of_first, None, of_second, None, of_first][: len(edges) - 1]):
        within = (days > edges[number]) & (days < edges[number + 1])
        if concept is not None:
            assert concept[within].all()
        elif within.any():  # a mixture of both
            assert not (of_first | of_second)[within].any()


def test_inputs_move_only_where_that_is_the_story(bench: Any) -> None:
    quiet, harmless = bench.generated("labels_only", QUESTIONS), bench.generated("harmless_shift", QUESTIONS)
    for column in bench.NUMBERS:
        later = quiet.days >= 60
        assert abs(quiet.inputs[column][later].mean() - quiet.inputs[column][~later].mean()) < 0.1
    later = harmless.days >= 60
    assert harmless.inputs["noise"][later].mean() - harmless.inputs["noise"][~later].mean() == pytest.approx(2, abs=0.1)


def test_what_breaks_is_broken_for_as_long_as_is_said(bench: Any) -> None:
    broken, silent = bench.generated("broken_producer", QUESTIONS), bench.generated("label_outage", QUESTIONS)

    assert broken.broken == (62, 67)
    assert (np.isnan(broken.inputs["x0"]) == ((broken.days >= 62) & (broken.days < 67))).all()
    assert (np.isinf(silent.label_days) == ((silent.days >= 60) & (silent.days < 70))).all()
    past = silent.past()
    assert len(past.labels) == int(np.isfinite(silent.label_days).sum())
    assert int((past.label_known_at == bench.NEVER).sum()) == len(past) - len(past.labels)
