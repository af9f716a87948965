"""Performance as labels mature: how sure, slice by slice, and estimated before the labels are there."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import Finding, PredictionServed, SlicePerformance, WindowJudged, WindowKind
from millstream.contracts.package import SliceReference
from millstream.contracts.tasks import Task, row_loss
from millstream.contracts.times import HOUR
from millstream.project import Loop
from millstream.project.drift import FEWEST_LABELS
from millstream.project.gate import Gate
from millstream_drift.app import rules_of
from millstream_drift.domain.baseline import baseline_of
from millstream_drift.domain.drop import drop_of
from millstream_drift.domain.estimate import ENOUGH, calibrate, expected_losses, isotonic
from millstream_drift.domain.interval import MOST_SLICES, SLICE_ROWS, by_slice, mean_interval, told_of, worse_slices
from millstream_drift.domain.judge import judge
from millstream_drift.domain.lately import Lately
from millstream_drift.domain.loop_fold import LoopState
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.merge import Merge
from millstream_drift.domain.snapshot import Snapshot, decode_snapshot, encode_snapshot
from millstream_drift.domain.tally import Tally
from millstream_drift.domain.windows import Window

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, landing, loop, manifest, reference


def test_an_interval_leaves_the_truth_out_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    outside = 0
    for _ in range(2_000):
        low, high = mean_interval(rng.exponential(1.0, 300))
        outside += not low <= 1.0 <= high
    assert 0.03 < outside / 2_000 < 0.08  # 5 %, and a little more by the skew


@pytest.mark.parametrize("tails", [3, 5, 30])
def test_a_drop_is_beyond_chance_no_oftener_than_two_standard_errors_say(tails: int) -> None:
    """Squared errors of models of numbers: one wild day among them is no drop, and twice the error is one."""
    rng = np.random.default_rng([7, tails])
    over = {1.0: 0, 2.0: 0}
    for _ in range(1_000):
        for times in over:
            window, holdout = (rng.standard_t(tails, rows) ** 2 for rows in (1_000, 2_000))
            known = msgspec.structs.replace(
                reference(float(holdout.mean())), holdout_loss_std=float(holdout.std()), holdout_rows=holdout.size
            )
            drop = drop_of(Tally.of(window * times), baseline_of(manifest("1"), known))
            over[times] += drop.is_over(0.05)
    assert over[1.0] <= 0.03 * 1_000, "one in forty, and the luck of a thousand"
    assert over[2.0] >= (0.8 if tails == 3 else 0.97) * 1_000


def test_a_drop_is_never_within_the_interval_that_is_told_beside_it() -> None:
    rng, rules = np.random.default_rng(11), rules_of(loop(task="regression", label={"value": "arr_delay"}))
    known = baseline_of(manifest("1"), reference(loss=4.4))
    wild = 0
    for index in range(200):
        errors = rng.standard_t(3, 300) * 1.5
        rows: list[Any] = [({"value": float(one)}, 0.0, 0) for one in errors]
        window = Window("1", WindowKind.PERFORMANCE, index, rows, index * HOUR, (index + 1) * HOUR)
        (verdict,) = judge(window, index * HOUR, known, rules, Memory())
        if verdict.finding is Finding.SUSPECTED:
            assert verdict.metrics["low"] > 4.4
            assert f"beyond 2 standard errors of {verdict.metrics['standard_error']:.4f} in" in verdict.reason
        else:
            wild += verdict.effect > rules.drop
    assert wild > 10, "some were wild, and not said to be worse"


def test_slices_together_leave_it_out_no_more_often() -> None:
    rng = np.random.default_rng(7)
    outside, carriers = 0, [f"c{n % 20}" for n in range(4_000)]
    for _ in range(300):
        found = told_of(by_slice(rng.exponential(1.0, 4_000), {"carrier": carriers}), {})
        assert len(found) == 20
        outside += any(not one.low <= 1.0 <= one.high for one in found)
    assert outside / 300 < 0.12  # 20 uncorrected ones would be wrong two times in three


def test_small_slices_are_not_told_and_the_rest_is_bounded() -> None:
    values: list[str | None] = ["few"] * (SLICE_ROWS - 1) + [None] * SLICE_ROWS
    (told,) = told_of(by_slice(np.ones(len(values)), {"carrier": values}), {})
    assert (told.value, told.rows, told.reference) == ("", SLICE_ROWS, None)
    many = [str(n % (MOST_SLICES * 2)) for n in range(MOST_SLICES * 2 * SLICE_ROWS)]
    assert len(by_slice(np.ones(len(many)), {"carrier": many})) == MOST_SLICES


def test_only_a_slice_that_is_surely_worse_is_called_worse() -> None:
    def one(value: str, low: float, reference: float | None) -> SlicePerformance:
        return SlicePerformance(
            column="carrier", value=value, rows=100, loss=low + 0.1, low=low, high=low + 0.2, reference=reference
        )

    slices = [one("UA", 0.6, 0.5), one("DL", 0.51, 0.5), one("EV", 0.9, 0.5), one("B6", 9.0, None)]
    assert [found.value for found in worse_slices(slices, 0.05)] == ["EV", "UA"]


async def test_a_window_of_labels_tells_its_slices() -> None:
    """The answers are as good as ever, but for United, whose flights now do the opposite."""
    said: list[Any] = []
    chances: dict[str, tuple[float, str]] = {}
    rng = np.random.default_rng(3)
    for topic, event, at in World().hours(JUNE, 40).said:
        if isinstance(event, PredictionServed):
            chances[event.key] = (event.output["probability"], str(event.inputs["carrier"]))
            said.append((topic, event, at))
        else:
            probability, carrier = chances[event["flight_id"]]
            chance = 1 - probability if carrier == "UA" else probability
            said.append((LANDED, landing(event["flight_id"], at, late=bool(rng.random() < chance)), at))
    desk = sliced(Desk(Topics().add(said), window=1_000), ("carrier",))
    known = [
        SliceReference(column="carrier", value=one, rows=500, loss=0.56, loss_std=0.3) for one in ("UA", "DL", "EV")
    ]
    desk.models.known[LOOP, "1"] = baseline_of(manifest("1"), msgspec.structs.replace(reference(), slices=known))
    await (await desk.start()).read_all()
    (verdict,) = [one for one in desk.verdicts if one.kind is WindowKind.PERFORMANCE]
    slices = {one.value: one for one in verdict.slices}
    assert set(slices) == {"UA", "B6", "EV", "DL"}
    assert sum(one.rows for one in verdict.slices) == verdict.rows == 1_000
    assert slices["B6"].reference is None
    assert slices["UA"].low > 0.56 * 1.05
    assert f"; carrier UA: {slices['UA'].loss:.4f}" in verdict.reason
    assert "carrier DL" not in verdict.reason
    mean = sum(one.loss * one.rows for one in verdict.slices) / verdict.rows
    assert verdict.metrics["log_loss"] == pytest.approx(mean)


@pytest.mark.parametrize(("before", "after"), [((), ("carrier",)), (("carrier",), ()), (("distance",), ("carrier",))])
async def test_slices_that_the_file_names_anew_begin_with_the_rows_that_follow(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """100 of the window's rows were heard by the file's earlier edition; labels of others come by the later one."""
    topics = Topics().add(World().hours(JUNE, 6).said)
    first = await sliced(Desk(topics), before).start()
    await first.read_all()
    await first.judging.save()
    topics.add(World(flights=1_000).hours(JUNE + 6 * HOUR, 12).said)
    second = await sliced(Desk(topics, first.snapshots), after).start()
    await second.read_all()
    verdict = next(one for one in second.verdicts if one.kind is WindowKind.PERFORMANCE)
    assert verdict.rows >= 200
    assert {one.column for one in verdict.slices} <= set(after)
    assert sum(one.rows for one in verdict.slices) < verdict.rows


def sliced(desk: Desk, slices: tuple[str, ...]) -> Desk:
    desk.loops[LOOP] = desk.loops[LOOP].model_copy(update={"gate": Gate(slices=slices)})
    desk.judging.rules = {LOOP: rules_of(desk.loops[LOOP])}
    return desk


def test_isotonic_only_grows_and_keeps_the_mean() -> None:
    rng = np.random.default_rng(5)
    answers = rng.uniform(0, 1, 5_000)
    truth = (rng.random(5_000) < answers**2).astype(float)
    curve = isotonic(answers, truth)
    assert curve.true == sorted(curve.true)
    assert float(curve(answers).mean()) == pytest.approx(float(truth.mean()), abs=0.01)
    assert float(np.abs(curve(answers) - answers**2).max()) < 0.1
    assert isotonic(np.full(1_000, 0.3), truth[:1_000]).true == pytest.approx([truth[:1_000].mean()])


def test_an_overconfident_model_is_estimated_as_it_is_not_as_it_thinks() -> None:
    """Answers are pushed away from the middle; a harder month follows, and its labels are never shown."""
    rng = np.random.default_rng(11)

    def month(low: float, high: float) -> tuple[list[dict[str, float]], list[bool]]:
        real = rng.uniform(low, high, 5_000)
        odds = (real / (1 - real)) ** 2
        return [{"probability": float(one)} for one in odds / (1 + odds)], [
            bool(one) for one in rng.random(5_000) < real
        ]

    calibration = calibrate(Task.BINARY, *month(0.02, 0.5))
    assert calibration is not None
    outputs, labels = month(0.2, 0.5)
    realised = np.mean([row_loss(Task.BINARY, output, label) for output, label in zip(outputs, labels, strict=True)])
    estimated = expected_losses(Task.BINARY, calibration, outputs).mean()
    p = np.array([one["probability"] for one in outputs])
    itself = float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())
    assert abs(estimated - realised) < 0.02
    assert abs(itself - realised) > 0.05


def test_classes_are_estimated_too() -> None:
    rng = np.random.default_rng(13)
    real = rng.dirichlet([1.0, 2.0, 3.0], 8_000)
    drawn = [str(rng.choice(["a", "b", "c"], p=one)) for one in real]
    sharp = real**2 / (real**2).sum(axis=1, keepdims=True)
    outputs = [dict(zip("abc", map(float, one), strict=True)) for one in sharp]
    calibration = calibrate(Task.MULTICLASS, outputs[:4_000], drawn[:4_000])
    assert calibration is not None
    realised = np.mean(
        [row_loss(Task.MULTICLASS, output, label) for output, label in zip(outputs[4_000:], drawn[4_000:], strict=True)]
    )
    assert expected_losses(Task.MULTICLASS, calibration, outputs[4_000:]).mean() == pytest.approx(realised, rel=0.08)


def test_what_the_file_promises_is_what_calibrates() -> None:
    assert ENOUGH == FEWEST_LABELS


def test_nothing_is_calibrated_on_few_labels_or_without_classes() -> None:
    outputs = [{"probability": 0.5}] * ENOUGH
    assert calibrate(Task.BINARY, outputs, [True] * ENOUGH) is not None
    assert calibrate(Task.BINARY, outputs[1:], [True] * (ENOUGH - 1)) is None
    assert calibrate(Task.REGRESSION, [{"value": 1.0}] * ENOUGH, [1.0] * ENOUGH) is None


def harder(world: World) -> list[Any]:
    """The same flights, but from the second day on each is nearly a toss-up, and lands accordingly."""
    said: list[Any] = []
    rng = np.random.default_rng(17)
    odds: dict[str, float] = {}
    for topic, event, at in world.said:
        if isinstance(event, PredictionServed):
            probability = event.output["probability"]
            if at >= JUNE + 36 * HOUR:
                probability = 0.4 + probability / 5
                event = msgspec.structs.replace(event, output={"probability": probability})
            odds[event.key] = probability
            said.append((topic, event, at))
        else:
            said.append(
                (LANDED, landing(event["flight_id"], at, late=bool(rng.random() < odds[event["flight_id"]])), at)
            )
    return said


async def estimated(within: str, window: Any = 500, **drift: Any) -> list[WindowJudged]:
    desk = Desk(Topics().add(harder(World().hours(JUNE, 80))), window=window, **drift)
    raw = desk.loops[LOOP].model_dump(mode="json", by_alias=True)
    desk.loops[LOOP] = Loop.model_validate(raw | {"label": raw["label"] | {"within": within}})
    desk.judging.rules = {LOOP: rules_of(desk.loops[LOOP])}
    await (await desk.start()).read_all()
    return [one for one in desk.verdicts if one.kind is WindowKind.ESTIMATED]


async def test_a_drop_is_seen_before_its_labels_and_says_that_it_is_an_estimate() -> None:
    found = await estimated("24h", estimate=True)
    assert [one.finding for one in found][:1] == [Finding.HEALTHY]
    dropped = next(one for one in found if one.finding is Finding.PERFORMANCE_DROP)
    assert dropped.reason.startswith("estimated, no labels yet: log loss 0.6")
    assert dropped.reason.endswith("answers calibrated on 520 labels")
    assert dropped.metrics["log_loss"] == pytest.approx(math.log(2), abs=0.06)
    assert dropped.metrics["calibrated_on"] == 520
    # The questions of an estimate are those of the inputs window of the same number; the first had no labels to go by.
    assert [one.index for one in found] == list(range(1, len(found) + 1))


async def test_nothing_is_estimated_unasked_or_where_labels_come_before_windows_close() -> None:
    assert await estimated("24h") == []
    assert await estimated("4h", estimate=True) == []
    assert await estimated("24h", window=200, estimate=True) == [], "too few labels to calibrate on"


def test_calibrations_are_bounded_and_survive_a_snapshot() -> None:
    rng = np.random.default_rng(1)
    outputs = [{"probability": float(one)} for one in rng.random(ENOUGH)]
    calibration = calibrate(Task.BINARY, outputs, [bool(one) for one in rng.random(ENOUGH) < 0.3])
    assert calibration is not None
    memory = Memory()
    for version in range(20):
        memory.calibrated(str(version), calibration)
    assert list(memory.calibrations) == [str(version) for version in range(12, 20)]
    snapshot = Snapshot(merge=Merge(), loop=LoopState(memory=memory), models=[], lately=Lately())
    assert decode_snapshot(encode_snapshot(snapshot)).loop.memory == memory


@pytest.mark.parametrize(("skill", "word"), [(-1.0, Finding.NOT_CLEARED), (1.0, Finding.CLEARED)])
async def test_a_version_that_expects_little_clears_a_drop_only_where_the_loss_is_what_was_normal(
    skill: float, word: Finding
) -> None:
    """Answers begin to contradict the world; version 2 was fitted in the middle of that, and its holdout shows it."""
    world = World(skill=-1.0).hours(JUNE, 40)
    world.version, world.skill = "2", skill
    world.hours(JUNE + 40 * HOUR, 60)
    desk = Desk(Topics().add(world.said))
    lax = msgspec.structs.replace(reference(), holdout_loss=2.0)
    desk.models.known[LOOP, "2"] = baseline_of(manifest("2"), lax)
    await (await desk.start()).read_all()
    verdicts = [one for one in desk.verdicts if one.kind is WindowKind.PERFORMANCE]
    begun = next(one.id for one in verdicts if one.finding is Finding.PERFORMANCE_DROP)
    second = [one for one in verdicts if one.version == "2"]
    assert all(one.metrics["loss_increase"] < 0 for one in second), "fine by what it expects of itself"
    (said,) = [one for one in second if one.about is not None]
    assert (said.finding, said.about) == (word, begun)
    assert f"against {reference().holdout_loss:.4f} before it began" in said.reason
    goes_on = Finding.SUSPECTED if word is Finding.NOT_CLEARED else Finding.HEALTHY
    assert {one.finding for one in second[second.index(said) + 1 :]} == {goes_on}
