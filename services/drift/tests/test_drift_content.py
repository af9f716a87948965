"""Texts and embeddings: a sample of each window, compared beside the fold, judged in order, lost by no crash."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream.contracts.content import SAMPLE
from millstream.contracts.events import Finding, WindowJudged, WindowKind, WindowSkipped
from millstream.contracts.times import HOUR
from millstream_drift.adapters import children
from millstream_drift.adapters.children import Children
from millstream_drift.adapters.classifier_child import compare
from millstream_drift.adapters.classifier_contents import ClassifierContents
from millstream_drift.adapters.memory import MemorySnapshots
from millstream_drift.domain.auc import auc_interval
from millstream_drift.domain.baseline import baseline_of
from millstream_drift.domain.content import Sample, Side, sides
from millstream_drift.domain.fold import NEWER
from millstream_drift.domain.loop_fold import MOST_CONTENTS
from millstream_drift.errors import NotCompared

from .content_kit import WATCHED, WIDTH, content_references, saying, with_content
from .drift_kit import JUNE, LOOP, Desk, Topics, World, manifest


@pytest.fixture(autouse=True)
def _children_have_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nice as in production they would hardly begin while other tests keep the cores busy."""
    monkeypatch.setattr(children, "NICENESS", os.getpriority(os.PRIO_PROCESS, 0))


def desk(said: list[Any], snapshots: MemorySnapshots | None = None, **drift: Any) -> Desk:
    found = Desk(Topics().add(said), snapshots, **WATCHED | drift)
    found.models.known[LOOP, "1"] = baseline_of(manifest("1"), with_content())
    return found


async def compared(desk: Desk) -> list[WindowJudged]:
    """Until nothing waits any more: the verdicts on content."""
    task = asyncio.create_task(desk.judging.keep_comparing())
    try:
        async with asyncio.timeout(20):
            while desk.judging._fold.loops[LOOP].contents or desk.judging._unsaid:  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return [one for one in desk.verdicts if one.kind is WindowKind.CONTENT]


def flights(hours: int, **said: Any) -> list[Any]:
    return saying(World().hours(JUNE, hours, labels=False).said, **said)


async def test_a_window_that_can_be_told_is_suspected_and_then_detected() -> None:
    found = await desk(flights(16)).start()
    found.comparisons.auc["remark"] = 0.71
    await found.read_all()
    first, second, third = await compared(found)
    assert [one.finding for one in (first, second, third)] == [Finding.SUSPECTED, Finding.DETECTED, Finding.DETECTED]
    assert second.changed_at == first.start
    assert (second.rows, second.effect) == (200, pytest.approx(0.68))
    assert second.reason == (
        "told from training by remark, AUC 0.71 (0.68 to 0.74); echo, AUC 0.50 (0.47 to 0.53): ≥ 0.55 in 2 of 2 windows"
    )
    remark = next(one for one in second.columns if one.column == "remark")
    assert (remark.auc, remark.importance, remark.missing) == (0.71, 0.0, 0.0)
    inputs = [one for one in found.verdicts if one.kind is WindowKind.INPUTS]
    assert [one.index for one in inputs if one.content_follows] == [0, 1, 2]
    assert all(one.finding is Finding.HEALTHY for one in inputs), "what no model reads is no input"


async def test_an_auc_whose_interval_reaches_below_the_bound_is_none() -> None:
    found = await desk(flights(6)).start()
    found.comparisons.auc["remark"] = 0.57
    await found.read_all()
    (verdict,) = await compared(found)
    assert (verdict.finding, verdict.effect) == (Finding.HEALTHY, pytest.approx(0.54))


async def test_it_is_cleared_by_a_newer_version() -> None:
    found = await desk(flights(16)).start()
    found.comparisons.auc["echo"] = 0.9
    await found.read_all()
    await compared(found)
    found.models.known[LOOP, "2"] = baseline_of(manifest("2"), with_content())
    found.comparisons.auc.clear()
    newer = World(version="2", flights=5_000).hours(JUNE + 16 * HOUR, 6, labels=False).said
    found.topics.add(saying(newer))
    await found.read_all()
    *_, last = await compared(found)
    assert (last.version, last.finding) == ("2", Finding.CLEARED)


async def test_a_field_that_is_gone_or_of_another_width_is_broken_data() -> None:
    gone = await desk(flights(6, remark=None)).start()
    await gone.read_all()
    (verdict,) = await compared(gone)
    assert verdict.finding is Finding.BROKEN_DATA
    assert verdict.reason == "remark: 100% missing, 0% in training (flights-scheduled.remark)"
    wide = await desk(flights(6, echo=[0.5] * 16)).start()
    await wide.read_all()
    (verdict,) = await compared(wide)
    assert verdict.reason == f"echo: vectors of 16 numbers, {WIDTH} in training (flights-scheduled.echo)"
    (asked,) = wide.comparisons.asked
    assert [side.name for side in asked] == ["remark"], "what has no like is not compared"


@pytest.mark.parametrize("before", [{"text": [], "embedding": []}, {"text": []}], ids=["none", "another"])
async def test_a_window_in_which_a_field_comes_to_the_loops_file_is_not_compared(before: dict[str, Any]) -> None:
    """160 of the first window's 200 questions were read before, the last of them not settled yet."""
    said, snapshots = flights(11), MemorySnapshots()
    asked = [one for one in said if one[2] < JUNE + 4 * HOUR]
    earlier = await desk(asked, snapshots, **before).start()
    await earlier.read_all()
    await earlier.judging.save()
    later = await desk(said, snapshots).start()
    await later.read_all()
    (verdict,) = await compared(later)
    assert (verdict.index, verdict.finding) == (1, Finding.HEALTHY)
    assert [one.missing for one in verdict.columns] == [0.0, 0.0]


async def test_a_version_that_was_trained_without_them_is_judged_by_its_inputs_alone() -> None:
    found = Desk(Topics().add(flights(6)), **WATCHED)
    await (await found.start()).read_all()
    assert await compared(found) == []
    assert [(one.kind, one.content_follows) for one in found.verdicts] == [(WindowKind.INPUTS, False)]


def skipped(desk: Desk) -> list[WindowSkipped]:
    return [one for one in desk.speaker.said if isinstance(one, WindowSkipped)]


async def test_a_window_that_cannot_be_compared_is_said_to_be_skipped_and_holds_up_nothing() -> None:
    found = await desk(flights(11)).start()
    found.comparisons.away = True
    await found.read_all()
    assert await compared(found) == []
    assert len(found.verdicts) == 2
    first, second = skipped(found)
    assert (first.kind, first.index, second.index) == (WindowKind.CONTENT, 0, 1)
    assert (first.at, first.rows) == (found.verdicts[0].at, 200)
    assert first.reason == "texts and embeddings are not compared: away"
    assert found.registry.get_sample_value("millstream_drift_contents_total", {"loop": LOOP, "outcome": "failed"}) == 2


async def test_a_version_that_loses_its_reference_while_its_window_waits_has_it_skipped() -> None:
    snapshots = MemorySnapshots()
    first = await desk(flights(6), snapshots).start()
    await first.read_all()
    await first.judging.save()
    again = desk(flights(6), snapshots)
    del again.models.known[LOOP, "1"]
    await again.start()
    assert await compared(again) == []
    (one,) = skipped(again)
    assert one.reason == "texts and embeddings are not compared: the version has no reference any more"


async def test_what_a_crash_leaves_uncompared_is_compared_again_and_said_with_the_same_id() -> None:
    said = flights(16)
    whole = await desk(said).start()
    whole.comparisons.auc["echo"] = 0.8
    expected = await compared(await whole.read_all())

    snapshots = MemorySnapshots()
    first = await desk(said, snapshots).start()
    await first.read_all()
    await first.judging.save()
    again = await desk(said, snapshots).start()
    again.comparisons.auc["echo"] = 0.8
    assert await compared(again) == expected
    await again.judging.save()
    third = await desk(said, snapshots).start()
    assert await compared(third) == [], "what is judged is in the snapshot"


async def test_the_batches_and_their_order_change_nothing() -> None:
    said = flights(16)
    asked = []
    for seed in (None, 3, 4):
        found = await desk(said).start()
        await found.read_all(most=37, seed=seed)
        await compared(found)
        asked.append(found.comparisons.asked)
    assert asked[0] == asked[1] == asked[2]


async def test_where_windows_close_too_fast_the_newest_are_compared() -> None:
    found = await desk(flights(60)).start()
    await found.read_all()
    verdicts = await compared(found)
    assert len(verdicts) == MOST_CONTENTS
    closed = len([one for one in found.verdicts if one.kind is WindowKind.INPUTS])
    assert [one.index for one in skipped(found)] == [*range(1, closed - MOST_CONTENTS + 1)]
    assert {one.reason for one in skipped(found)} == {f"texts and embeddings are not compared: {NEWER}"}
    assert [one.index for one in verdicts] == [0, *range(closed - MOST_CONTENTS + 1, closed)]
    assert found.registry.get_sample_value("millstream_drift_contents_unseen", {"loop": LOOP}) == closed - MOST_CONTENTS


def test_a_sample_is_bounded_and_the_same_in_any_order() -> None:
    rows = [(f"prediction-{n}", {"remark": f"r{n}".encode()}) for n in range(3 * SAMPLE)]
    forwards, backwards = Sample(), Sample()
    for id, contents in rows:
        forwards.add(id, contents)
    for id, contents in reversed(rows):
        backwards.add(id, contents)
    assert len(forwards.kept) < 2 * SAMPLE
    assert forwards.column("remark") == backwards.column("remark")
    assert len(forwards.column("remark")) == SAMPLE
    assert forwards.rows == 3 * SAMPLE


def test_an_interval_of_an_auc() -> None:
    """The AUC by counting pairs; the interval holds what a bootstrap over rows gives."""
    rng = np.random.default_rng(5)
    positives, negatives = rng.normal(0.4, 1, 300).round(2), rng.normal(0, 1, 400).round(2)
    auc, low, high = auc_interval(positives, negatives)
    pairs = positives[:, None] - negatives[None, :]
    assert auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    drawn = [auc_interval(rng.choice(positives, 300), rng.choice(negatives, 400))[0] for _ in range(2_000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)


def test_what_is_told_apart_altogether_has_an_interval_below_one() -> None:
    auc, low, high = auc_interval(np.arange(100.0) + 1_000, np.arange(100.0))
    assert auc == 1.0
    assert 0.99 < low <= high <= 1.0


def window(**changed: Any) -> list[Side]:
    sample = Sample()
    from millstream.contracts.content import packed

    for n, (_, event, _) in enumerate(flights(20, **changed)):
        sample.add(str(n), {"remark": event.content["remark"].encode(), "echo": packed(event.content["echo"])})
    return sides(sample, content_references())


def test_new_remarks_and_a_turned_echo_are_told_and_calm_ones_are_not() -> None:
    calm_remark, calm_echo = map(compare, window())
    assert calm_remark.low < 0.55
    assert calm_echo.low < 0.55
    remark, echo = map(compare, window(news=0.4, degrees=45.0))
    assert remark.low > 0.6
    assert "'refund' in" in remark.detail
    assert echo.low > 0.6, "a turn moves no mean"
    assert compare(window(news=0.4)[0]) == compare(window(news=0.4)[0]), "the same sides give the same numbers"


async def test_a_classifier_that_hangs_or_fails_costs_its_window_and_nothing_else() -> None:
    for program, why in (
        ("import time; time.sleep(60)", "it took longer than 0.5 seconds"),
        ("raise SystemExit('no memory')", "its process ended with 1: no memory"),
    ):
        contents = ClassifierContents(
            children=Children(most=1, timeout=0.5 if "sleep" in program else 30),
            command=(sys.executable, "-c", program),
        )
        with pytest.raises(NotCompared, match=why):
            await contents.compare([])


@pytest.mark.timeout(240)
def test_no_file_is_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    contents = ClassifierContents(children=Children(most=1, timeout=200))
    (remark, _) = asyncio.run(contents.compare(window(news=0.4)))
    assert remark.low > 0.6
    assert list(tmp_path.iterdir()) == []
