"""Labels that come after their window was judged: the window is corrected, and nothing is decided twice."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from httpx import ASGITransport, AsyncClient

from millstream.contracts.events import Finding, PredictionServed, WindowCorrected, WindowJudged, WindowKind
from millstream.contracts.tasks import PROBABILITY, Task, metric_of
from millstream.contracts.times import HOUR, from_datetime, to_datetime
from millstream.project.gate import Gate
from millstream.runtime.http import http_app
from millstream_drift.api import routes
from millstream_drift.app import rules_of
from millstream_drift.domain.correct import correct
from millstream_drift.domain.corrections import LAST, MOST_WAITING, Correction, Corrections
from millstream_drift.domain.hysteresis import Hysteresis
from millstream_drift.domain.lately import KEPT, Lately
from millstream_drift.domain.memory import Judged, Memory
from millstream_drift.domain.ranks import BINS, Ranks
from millstream_drift.domain.score import auc, losses, metrics
from millstream_drift.domain.snapshot import decode_snapshot
from millstream_drift.domain.tally import SliceTally, Summary, Tally
from millstream_drift.domain.windows import Window

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, baseline, landing, loop

LATE_BY = 36 * HOUR
"""After the question: twelve hours after `label.within`, two windows later."""


def story(late: int, wrong: bool = True, hours: int = 70) -> list[tuple[str, Any, int]]:
    """Forty flights an hour ask and land in three hours, but of the first ten hours every `late`-th lands after 36: too late
    (`wrong`), or as it would have."""
    said: list[tuple[str, Any, int]] = []
    flights: dict[str, PredictionServed] = {}
    for topic, event, known_at in World().hours(JUNE, hours).said:
        if isinstance(event, PredictionServed):
            flights[event.key] = event
            said.append((topic, event, known_at))
            continue
        flight = event["flight_id"]
        number = int(flight.removeprefix("flight-"))
        if number <= 400 and number % late == 0:
            asked_at = from_datetime(flights[flight].asked_at)
            truth = event["arr_delay"] > 0 if not wrong else True
            said.append((LANDED, landing(flight, asked_at + LATE_BY, late=truth), asked_at + LATE_BY))
        else:
            said.append((topic, event, known_at))
    return sorted(said, key=lambda one: one[2])


async def judged(said: list[tuple[str, Any, int]], **drift: Any) -> Desk:
    return await (await Desk(Topics().add(said), **drift).start()).read_all()


def corrections(desk: Desk) -> list[WindowCorrected]:
    return [event for event in desk.speaker.said if isinstance(event, WindowCorrected)]


def windows_of_a_kind(kind: WindowKind, count: int) -> list[WindowJudged]:
    return [
        WindowJudged(
            id=f"{kind}-{index}",
            loop=LOOP,
            version="1",
            kind=kind,
            index=index,
            finding=Finding.HEALTHY,
            reason="nothing changed",
            at=to_datetime(JUNE + HOUR),
            start=to_datetime(JUNE),
            end=to_datetime(JUNE + HOUR),
            rows=1,
            effect=0.0,
        )
        for index in range(count)
    ]


def performance(desk: Desk) -> list[WindowJudged]:
    return [event for event in desk.verdicts if event.kind is WindowKind.PERFORMANCE]


async def test_late_labels_correct_the_window_in_which_they_were_due() -> None:
    desk = await judged(story(late=4))
    found = corrections(desk)
    assert found
    windows = {one.index: one for one in performance(desk)}
    without = await judged([one for one in story(late=4) if not is_late(one, 4)])
    assert [one.rows for one in performance(without)] == [one.rows for one in windows.values()], (
        "none is in two windows"
    )
    last: dict[int, WindowCorrected] = {}
    for one in found:
        first = windows[one.index]
        assert one.corrects == first.id
        # They were due 24 hours after they were asked for, when that window was open.
        assert from_datetime(first.end) >= JUNE + 24 * HOUR
        before = last[one.index].after if one.index in last else {name: first.metrics[name] for name in one.before}
        assert one.before == pytest.approx(before)
        assert one.after["log_loss"] > one.before["log_loss"], "they contradict what was answered"
        assert one.after["auc"] < one.before["auc"], "and are the wrong way round"
        assert one.after["brier"] > one.before["brier"]
        assert 0 < one.after["auc_error"] < 0.02
        assert one.after["low"] < one.after["log_loss"] < one.after["high"]
        assert one.rows == first.rows + one.labels
        last[one.index] = one
    assert sum(one.labels for one in last.values()) == desk.judging._fold.loops[LOOP].join.counts.late == 100
    assert desk.registry.get_sample_value("millstream_windows_corrected_total", {"loop": LOOP}) == len(found)


async def test_corrections_are_the_same_whatever_the_batches_and_restarts() -> None:
    said = story(late=4)
    whole = await judged(said)
    topics = Topics().add(said)
    for seed in (1, 2):
        other = await (await Desk(topics).start()).read_all(170, seed)
        assert other.speaker.said == whole.speaker.said
    first = await Desk(topics).start()
    for place in sorted(topics.records):
        await first.read(place, 500)
    await first.judging.save()
    second = await (await Desk(topics, first.snapshots).start()).read_all(110)
    assert first.speaker.said + second.speaker.said == whole.speaker.said


async def test_a_window_that_turns_out_bad_counts_with_the_next_one_and_asks_for_no_run_itself() -> None:
    desk = await judged(story(late=1, hours=50))
    turned = [one for one in corrections(desk) if one.finding is not one.was]
    assert turned
    assert {(one.was, one.finding) for one in turned} <= {
        (Finding.HEALTHY, Finding.SUSPECTED),
        (Finding.SUSPECTED, Finding.HEALTHY),
    }
    assert all("it counts so with the next window" in one.reason for one in turned)
    asking = [one for one in desk.speaker.said if getattr(one, "finding", None) is Finding.PERFORMANCE_DROP]
    assert all(isinstance(one, WindowJudged) for one in asking), "only a window's own verdict asks for a run"
    ids = [one.id for one in asking]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("weighed", [True, False], ids=["weighed", "of broken questions"])
def test_a_window_that_had_no_say_has_none_when_it_is_corrected(weighed: bool) -> None:
    rules, memory = rules_of(loop()), Memory()
    outputs, labels = [{PROBABILITY: 0.2}] * 200, [False] * 200
    summary = Summary.of(rules.task, outputs, labels, losses(rules.task, outputs, labels), [])
    memory.remember("1", Judged(0, "of labels", Finding.HEALTHY, summary, JUNE, over=False, weighed=weighed))
    late = [({PROBABILITY: 0.2}, True, JUNE)] * 200
    found = correct(Correction("1", 0, late, "last", JUNE), baseline(), rules, memory)
    assert found is not None
    assert "; suspected now, was healthy" in found.reason
    assert found.reason.endswith("; it counts so with the next window") is weighed


async def test_slices_that_the_verdict_told_are_corrected_with_it() -> None:
    desk = Desk(Topics().add(story(late=4)))
    desk.loops[LOOP] = desk.loops[LOOP].model_copy(update={"gate": Gate(slices=("carrier",))})
    desk.judging.rules = {LOOP: rules_of(desk.loops[LOOP])}
    await (await desk.start()).read_all()
    windows = {one.id: one for one in performance(desk)}
    assert corrections(desk)
    for one in corrections(desk):
        first = windows[one.corrects]
        assert [each.value for each in one.slices] == [each.value for each in first.slices]
        assert one.slices
        assert sum(each.rows for each in one.slices) <= one.rows
        grown = [(new.rows - old.rows, new.loss - old.loss) for new, old in zip(one.slices, first.slices, strict=True)]
        assert all(more >= 0 for more, _ in grown)
        assert all(worse > 0 for more, worse in grown if more)
        assert any(more for more, _ in grown)


def test_many_late_labels_are_told_at_once() -> None:
    found = Corrections()
    found.closed(window(0, 1, 10))
    for number in range(MOST_WAITING):
        assert not found.are_many("1")
        assert found.take("1", 5, ROW, str(number))
    assert found.are_many("1")
    assert not found.are_many("2")
    (one,) = found.due(20, "1")
    assert len(one.late) == MOST_WAITING
    assert not found.are_many("1")


async def test_late_labels_that_change_nothing_are_told_and_leave_the_finding() -> None:
    desk = await judged(story(late=20, wrong=False))
    found = corrections(desk)
    assert found
    assert all(one.finding is one.was for one in found)
    without = await judged([one for one in story(late=20, wrong=False) if not is_late(one, 20)])
    assert [one.finding for one in performance(desk)] == [one.finding for one in performance(without)]


def is_late(said: tuple[str, Any, int], late: int) -> bool:
    topic, event, _ = said
    if topic != LANDED:
        return False
    number = int(event["flight_id"].removeprefix("flight-"))
    return number <= 400 and number % late == 0


ROW = ({"probability": 0.5}, True)


def window(index: int, start: int, end: int) -> Window:
    return Window("1", WindowKind.PERFORMANCE, index, start=start, end=end)


def test_only_the_last_windows_are_corrected() -> None:
    found = Corrections()
    for index in range(LAST + 1):
        found.closed(window(index, index * 10 + 1, index * 10 + 10))
    assert not found.take("1", 5, ROW, "of the oldest")
    assert found.take("1", 15, ROW, "a")
    assert found.take("1", 20, ROW, "b")
    assert not found.take("1", 51, ROW, "of the one that is open")
    assert not found.take("2", 15, ROW, "of a version without windows")
    assert found.due(98, "2") == []
    (one,) = Corrections(found.state()).due(99, "1")
    assert (one.index, one.late, one.last, one.at) == (1, [ROW, ROW], "b", 99)
    assert found.due(99) == [], "each label is told once"


def test_a_tally_knows_mean_and_deviation() -> None:
    found = Tally.of(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (found.mean, found.deviation) == (2.5, pytest.approx(1.2909944))
    assert found.with_(found).rows == 8
    assert Tally(1, 2.0, 4.0).deviation == 0.0


@pytest.mark.parametrize("scores", [lambda rng, n: rng.beta(2, 5, n), lambda rng, n: rng.integers(0, 8, n) / 10])
def test_an_auc_goes_on_within_the_error_that_it_states(scores: Any) -> None:
    rng = np.random.default_rng(3)
    found: Ranks | None = None
    all_scores, all_labels = np.array([]), np.array([], dtype=bool)
    for rows in (2_000, 40, 1, 300):
        some = scores(rng, rows)
        labels = rng.random(rows) < some
        found = Ranks.of(some, labels) if found is None else found.with_(some, labels)
        all_scores, all_labels = np.concatenate([all_scores, some]), np.concatenate([all_labels, labels])
        exact = auc(all_scores, all_labels.astype(float))
        assert found.auc is not None
        assert abs(found.auc - exact) <= found.error + 1e-12
        assert rows != 2_000 or found.error == 0, "a window's own rows are exact"
    assert found is not None
    assert len(found.positives) == len(found.negatives) == len(found.edges) + 1 <= BINS
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Ranks)
    assert again == found


def test_a_late_share_of_a_tenth_costs_an_auc_less_than_a_thousandth() -> None:
    rng = np.random.default_rng(4)
    scores = rng.beta(2, 5, 5_500)
    labels = rng.random(5_500) < scores
    found = Ranks.of(scores[:5_000], labels[:5_000]).with_(scores[5_000:], labels[5_000:])
    assert 0 < found.error < 0.001


def test_an_auc_of_one_class_is_none_until_the_other_comes() -> None:
    found = Ranks.of([0.1, 0.2, 0.3], [False, False, False])
    assert found.auc is None
    assert found.error == 0.0
    both = found.with_([0.25], [True])
    assert both.auc == pytest.approx(2 / 3, abs=both.error + 1e-9)


@pytest.mark.parametrize(
    ("task", "outputs", "labels"),
    [
        (Task.BINARY, [{"probability": p / 100} for p in range(1, 100)], [p % 3 == 0 for p in range(1, 100)]),
        (Task.REGRESSION, [{"value": float(p)} for p in range(99)], [float(p % 7) for p in range(99)]),
        (Task.MULTICLASS, [{"a": p / 100, "b": 1 - p / 100} for p in range(99)], ["ab"[p % 2] for p in range(99)]),
    ],
)
def test_a_summary_and_late_rows_say_what_all_rows_say(
    task: Task, outputs: list[dict[str, float]], labels: list[Any]
) -> None:
    def summary(some: slice) -> Summary:
        rows = losses(task, outputs[some], labels[some])
        cells = {"quay": (["old", "new", None] * 33)[some]}
        return Summary.of(task, outputs[some], labels[some], rows, [
            SliceTally("quay", value, Tally.of(rows[[n for n, one in enumerate(cells["quay"]) if (one or "") == value]]))
            for value in ("old", "new", "")
        ])  # fmt: skip

    late = slice(60, 99)
    after = summary(slice(0, 60)).with_(
        task,
        outputs[late],
        labels[late],
        losses(task, outputs[late], labels[late]),
        {"quay": (["old", "new", None] * 33)[late]},
    )
    whole, said = summary(slice(0, 99)), metrics(task, outputs, labels, losses(task, outputs, labels))
    assert after.losses.mean == pytest.approx(whole.losses.mean)
    assert [(one.value, one.losses.rows) for one in after.slices] == [("old", 33), ("new", 33), ("", 33)]
    assert [one.losses.mean for one in after.slices] == pytest.approx([one.losses.mean for one in whole.slices])
    bound = after.metrics.get("auc_error", 0.0)
    for name, value in after.metrics.items():
        if name != "auc_error":
            assert value == pytest.approx(said[name], abs=bound + 1e-9)
    assert said.keys() - after.metrics.keys() <= {metric_of(task), "calibration_error"}


async def test_whoever_asks_sees_the_verdict_as_it_was_said_and_what_became_of_it() -> None:
    desk = await judged(story(2))
    (corrected,) = corrections(desk)[-1:]
    app = http_app(title="drift")
    app.include_router(routes({LOOP: desk.judging}, desk.reports))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://drift") as http:
        told = (await http.get(f"/v1/loops/{LOOP}/windows")).json()
    assert [one["id"] for one in told["windows"] if one["kind"] == "performance"] == [
        one.id for one in performance(desk)[: -KEPT - 1 : -1]
    ]
    (verdict,) = [one for one in told["windows"] if one["id"] == corrected.corrects]
    assert verdict["finding"] == corrected.was
    assert told["corrected"][verdict["id"]] == json.loads(msgspec.json.encode(corrected))


async def test_a_restart_shows_what_was_said_before_it() -> None:
    desk = await judged(story(2))
    lately = desk.judging.lately(LOOP)
    assert lately.corrected
    await desk.judging.save()
    assert decode_snapshot(desk.snapshots.kept[LOOP]).lately == lately


def test_each_kind_of_verdict_is_kept_for_itself() -> None:
    lately, (said, *_) = Lately(), windows_of_a_kind(WindowKind.PERFORMANCE, 1)
    lately.said(said)
    for one in windows_of_a_kind(WindowKind.INPUTS, 3 * KEPT):
        lately.said(one)
    assert len(lately.verdicts) == KEPT + 1
    assert lately.verdicts[0] is said


def test_a_corrected_window_counts_with_the_next_one() -> None:
    def weigh(memory: Hysteresis, over: bool, start: int) -> Finding:
        return memory.weigh("1", f"window-{start}", over, 2, 3, start=start).finding

    fine = Hysteresis()
    assert [weigh(fine, over, at) for at, over in enumerate([False, False, True])][-1] is Finding.SUSPECTED
    turned = Hysteresis()
    weigh(turned, False, 10)
    weigh(turned, False, 20)
    turned.correct("1", 0, True, 20)
    detected = turned.weigh("1", "window-30", True, 2, 3, start=30)
    assert (detected.finding, detected.since) == (Finding.DETECTED, 20)
    taken_back = Hysteresis()
    weigh(taken_back, True, 10)
    taken_back.correct("1", 0, False, 10)
    assert weigh(taken_back, True, 20) is Finding.SUSPECTED
    taken_back.correct("1", 7, True, 0)
    taken_back.correct("other", 0, True, 0)
    assert sum(taken_back.past["1"].recent) == 1
