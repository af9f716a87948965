"""An estimate for numbers: by the groups of the holdout's rows that a package brings, before any label is there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import Finding, PredictionServed, WindowJudged, WindowKind
from millstream.contracts.package import Condition, ErrorGroup
from millstream.contracts.times import HOUR
from millstream.testing import models
from millstream_drift.domain.baseline import UnfitReference, baseline_of
from millstream_drift.domain.error_groups import ANSWER, LARGEST, expected, group_of, in_words

from .drift_kit import CARRIERS, JUNE, LANDED, LOOP, Desk, Topics, World, manifest, reference

FAR = Condition(column="distance", above=700.0)
NEAR = Condition(column="distance", upto=700.0, others=True)


def group(*where: Condition, share: float, loss: float, rows: int = 1_000) -> ErrorGroup:
    return ErrorGroup(where=list(where), rows=rows, share=share, loss=loss, loss_std=loss)


GROUPS = [group(NEAR, share=0.7, loss=50.0), group(FAR, share=0.3, loss=200.0)]
"""Far flights are off by twice as many minutes; 95 on the whole."""


def flights(hours: int, *, far_from: int | None = None, labels: bool = True, worse: float = 1.0) -> list[Any]:
    """A model of the delay; from hour `far_from` on every flight is a far one. `worse`: what its errors are multiplied by."""
    rng = np.random.default_rng(23)
    said: list[Any] = []
    errors: dict[str, float] = {}
    for topic, event, at in World().hours(JUNE, hours, labels=labels).said:
        if isinstance(event, PredictionServed):
            moved = far_from is not None and at >= JUNE + far_from * HOUR
            distance = int(rng.integers(701, 1000)) if moved else event.inputs["distance"]
            spread = (200.0 if distance > 700 else 50.0) ** 0.5 * worse
            errors[event.key] = float(rng.normal(0, spread))
            told = {"distance": distance, "carrier": event.inputs["carrier"]}
            said.append((topic, msgspec.structs.replace(event, inputs=told, output={"value": 10.0}), at))
        else:
            truth = 10.0 + errors[event["flight_id"]]
            said.append((LANDED, event | {"arr_delay": truth}, at))
    return said


async def judged(said: list[Any], groups: list[ErrorGroup], **drift: Any) -> list[WindowJudged]:
    """Labels may take two days, windows close after half of one."""
    label = {"value": "arr_delay", "within": "48h"}
    desk = Desk(Topics().add(said), **{"task": "regression", "label": label, "window": 480, "estimate": True, **drift})
    answer = models.number("value", [5.0, 15.0], importance=0.0)
    told = msgspec.structs.replace(
        reference(95.0), prediction=answer, holdout_loss_std=150.0, holdout_rows=2_000, error_groups=groups
    )
    desk.models.known[LOOP, "1"] = baseline_of(manifest("1"), told)
    await (await desk.start()).read_all()
    return desk.verdicts


def of_kind(verdicts: list[WindowJudged], kind: WindowKind) -> list[WindowJudged]:
    return [one for one in verdicts if one.kind is kind]


async def test_a_rise_of_the_error_is_seen_before_a_label_is_there() -> None:
    verdicts = await judged(flights(72, far_from=24, labels=False), GROUPS)
    found = of_kind(verdicts, WindowKind.ESTIMATED)
    assert of_kind(verdicts, WindowKind.PERFORMANCE) == []
    assert [one.finding for one in found[:2]] == [Finding.HEALTHY, Finding.HEALTHY]
    assert found[0].metrics["squared_error"] == pytest.approx(95, abs=8)
    dropped = next(one for one in found if one.finding is Finding.PERFORMANCE_DROP)
    assert dropped.metrics["squared_error"] == pytest.approx(200, abs=10)
    assert dropped.reason.startswith("estimated, no labels yet: squared error ")
    assert "by 2 groups of the holdout's rows, if the model errs in each as it did" in dropped.reason
    assert "most: distance above 700: 100% of the rows, 30% of the holdout's" in dropped.reason
    assert dropped.metrics["groups"] == 2


async def test_labels_bear_the_estimate_out() -> None:
    verdicts = await judged(flights(120, far_from=24), GROUPS)
    estimated = {one.index: one for one in of_kind(verdicts, WindowKind.ESTIMATED)}
    shown = {one.index: one for one in of_kind(verdicts, WindowKind.PERFORMANCE)}
    both = [
        (estimated[index].metrics, shown[index].metrics["squared_error"]) for index in estimated.keys() & shown.keys()
    ]
    assert len(both) > 5
    assert sum(told["low"] <= truth <= told["high"] for told, truth in both) >= len(both) - 1


async def test_that_the_model_errs_more_at_the_same_questions_takes_labels() -> None:
    verdicts = await judged(flights(96, worse=3.0), GROUPS)
    assert {one.finding for one in of_kind(verdicts, WindowKind.ESTIMATED)} == {Finding.HEALTHY}
    assert Finding.PERFORMANCE_DROP in {one.finding for one in of_kind(verdicts, WindowKind.PERFORMANCE)}


async def test_nothing_is_estimated_unasked_or_by_a_package_without_groups() -> None:
    said = flights(48, far_from=12, labels=False)
    assert of_kind(await judged(said, []), WindowKind.ESTIMATED) == []
    assert of_kind(await judged(said, GROUPS, estimate=False), WindowKind.ESTIMATED) == []


def test_a_row_is_in_the_first_group_that_it_fits_and_else_in_the_last() -> None:
    groups = [
        group(Condition(column="distance", above=LARGEST, others=True), share=0.1, loss=1.0),
        group(
            Condition(column="carrier", categories=["UA", "DL"]),
            Condition(column=ANSWER, upto=5.0),
            share=0.2,
            loss=1.0,
        ),
        group(Condition(column="carrier", categories=["B6"], others=True), share=0.3, loss=1.0),
        group(FAR, share=0.4, loss=1.0),
    ]
    cells: dict[str, list[Any]] = {
        "distance": [None, 1.0, 1.0, 1.0, 1.0, 1.0],
        "carrier": ["UA", "UA", "UA", "B6", None, "XX"],
        ANSWER: [1.0, 5.0, 5.1, 1.0, 1.0, 1.0],
    }
    assert group_of(groups, cells).tolist() == [0, 1, 3, 2, 2, 2]
    assert [in_words(one) for one in groups] == [
        "distance null",
        "carrier in UA, DL and the answer up to 5",
        "carrier in B6",
        "distance above 700",
    ]
    assert in_words(group(share=1.0, loss=1.0)) == "all rows"
    assert in_words(group(Condition(column="carrier", categories=CARRIERS), share=1.0, loss=1.0)) == (
        "carrier in UA, B6, EV or 1 more"
    )


def test_a_window_like_the_holdout_is_as_the_holdout_and_surer_than_its_labels() -> None:
    cells: dict[str, list[Any]] = {"distance": [100.0] * 700 + [900.0] * 300, ANSWER: [1.0] * 1_000}
    found = expected(GROUPS, cells, 5_000)
    assert found.loss == pytest.approx(95)
    assert found.low < 95 < found.high
    assert found.error < (found.high - found.low) / 4, "of the distance: what is uncertain of both alike is in neither"


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([group(Condition(column="height", above=1.0), share=1.0, loss=1.0)], "column 'height', which the reference"),
        ([group(share=0.5, loss=1.0)], "shares of the groups of errors come to 0.5"),
        ([group(share=1.0, loss=1.0, rows=0)], "of 0 rows"),
        ([group(share=1.0, loss=float("nan"))], "loss nan"),
        ([group(share=1.0, loss=-1.0)], "loss -1.0"),
    ],
)
def test_groups_that_do_not_hold_together_are_refused(groups: list[ErrorGroup], says: str) -> None:
    with pytest.raises(UnfitReference, match=says):
        baseline_of(manifest("1"), msgspec.structs.replace(reference(), error_groups=groups))
