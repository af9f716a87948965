"""A producer breaks and is mended: later runs learn nothing of what was asked, or labelled, meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import BrokenField, ColumnDrift, Finding, GivenModel, Step, WindowJudged, WindowKind
from millstream.contracts.times import DAY, from_datetime
from millstream_trainer.domain.broken import MOST_SPELLS, Spell, blind, covered, left_out, told
from millstream_trainer.domain.hearing import heard
from millstream_trainer.domain.state import LoopState
from millstream_trainer.domain.view import view

from .test_trainer_rollout import STEPS, Until, models, on_trial, promoted, standing
from .trainer_kit import Office, loses

BROKEN, HEALTHY, DETECTED = Finding.BROKEN_DATA, Finding.HEALTHY, Finding.DETECTED


def spells_of(tides: Any, *verdicts: tuple[float, Finding]) -> tuple[Spell, ...]:
    spells: tuple[Spell, ...] = ()
    for day, finding in verdicts:
        spells = told(spells, tides.judged(day, finding))
    return spells


def days(tides: Any, *stretches: tuple[float, float]) -> list[tuple[int, int]]:
    return [(from_datetime(tides.day(start)), from_datetime(tides.day(end))) for start, end in stretches]


def test_a_spell_is_left_out_as_far_as_it_was_known(tides: Any) -> None:
    spells = spells_of(tides, (20, BROKEN), (21, BROKEN), (22, HEALTHY), (30, BROKEN), (31, DETECTED))
    assert [spell.ended for spell in spells] == [from_datetime(tides.day(22)), from_datetime(tides.day(31))]
    assert left_out(spells, [], from_datetime(tides.day(25))) == days(tides, (19, 21))
    assert left_out(spells, [], from_datetime(tides.day(19.5))) == []
    assert left_out(spells, [], from_datetime(tides.day(20.5))) == days(tides, (19, 20.5)), "it lasts yet"
    assert left_out(spells_of(tides, (20, BROKEN)), [], from_datetime(tides.day(20.5))) == days(tides, (19, 20.5)), (
        "a run at that time is told the same whatever came after it"
    )
    assert left_out(spells, [], from_datetime(tides.day(40)))[-1:] == days(tides, (29, 30))


@pytest.mark.parametrize(("day", "learned"), [(19.5, False), (20.5, True), (22.5, False)])
def test_a_spell_in_which_a_person_had_a_run_is_how_the_world_is_now(tides: Any, day: float, learned: bool) -> None:
    spells = spells_of(tides, (20, BROKEN), (21, BROKEN), (22, HEALTHY))
    found = left_out(spells, [from_datetime(tides.day(day))], from_datetime(tides.day(40)))
    assert found == ([] if learned else days(tides, (19, 21)))
    assert not left_out(spells[:1], [from_datetime(tides.day(20.5))], from_datetime(tides.day(20.5)))


def test_verdicts_heard_again_change_nothing_and_memory_is_bounded(tides: Any) -> None:
    verdicts = [(20, BROKEN), (21, BROKEN), (22, HEALTHY), (30, BROKEN)]
    once = spells_of(tides, *verdicts)
    assert spells_of(tides, *verdicts, *verdicts) == once
    many = spells_of(tides, *((20 + n / 2, BROKEN if n % 2 else HEALTHY) for n in range(100)))
    assert len(many) == MOST_SPELLS


def test_a_long_spell_is_left_out_from_its_first_window_on(tides: Any) -> None:
    verdicts = [(20 + n, BROKEN) for n in range(150)]
    open_still = spells_of(tides, *verdicts)
    assert spells_of(tides, *verdicts, *verdicts) == open_still, "as after a rebalance: all is heard from the beginning"
    ended = spells_of(tides, *verdicts, (200, HEALTHY))
    assert spells_of(tides, *verdicts, (200, HEALTHY), *verdicts, (200, HEALTHY)) == ended
    later = from_datetime(tides.day(300))
    assert left_out(ended, [], later) == days(tides, (19, 169))
    assert not left_out(ended, [from_datetime(tides.day(25))], later), "a person looked on day 25"


def test_a_verdict_that_comes_out_of_order_neither_ends_a_spell_nor_makes_another(tides: Any) -> None:
    spells = spells_of(tides, (20, BROKEN), (22, BROKEN))
    assert spells_of(tides, (20, BROKEN), (22, BROKEN), (21, HEALTHY), (21, BROKEN)) == spells
    assert left_out(spells, [], from_datetime(tides.day(22))) == days(tides, (19, 22))


def window(tides: Any, start: float, end: float, finding: Finding, version: str = "1") -> WindowJudged:
    verdict = tides.judged(end, finding, version=version, id=f"{version}: {start} to {end}")
    return msgspec.structs.replace(verdict, start=tides.day(start))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("before", "broken", "since"),
    [
        # Version 2 answered a tenth from day 10 on, and is promoted on day 20: its first window holds all that.
        ([(10, 16, "1")], [(10, 22, "2")], 16),
        ([(10, 16, "1")], [(16, 20, "1"), (10, 22, "2")], 16),
        # A break of a day at the end of eleven is thinned out.
        ([(18, 20, "1"), (10, 21, "2")], [(20, 22, "1")], 20),
        # Nobody judged the four days between.
        ([(10, 16, "1")], [(20, 22, "2")], 20),
        ([], [(10, 22, "2")], 10),
    ],
    ids=["promoted", "promoted later", "a longer one", "a gap", "nothing before"],
)
def test_a_break_is_not_dated_back_to_what_was_judged_whole(tides: Any, before: Any, broken: Any, since: float) -> None:
    verdicts = [window(tides, start, end, HEALTHY, version) for start, end, version in before]
    verdicts += [window(tides, start, end, BROKEN, version) for start, end, version in broken]
    verdicts += [window(tides, 22, 24, HEALTHY, "2")]
    state, since_then = LoopState(loop="tides"), from_datetime(tides.day(since))
    for verdict in verdicts[:-1]:
        state = heard(state, verdict)
    assert state.broken == {WindowKind.INPUTS: since_then}
    for verdict in [*verdicts, *verdicts]:
        state = heard(state, verdict)
    assert left_out(state.spells[WindowKind.INPUTS], [], from_datetime(tides.day(40))) == days(tides, (since, 22))


@pytest.mark.parametrize(
    ("kind", "column", "detail", "since"),
    [
        (WindowKind.INPUTS, "length", "80% missing, 0% in training", 16),
        (WindowKind.INPUTS, "wind", "80% missing, 0% in training", 10),  # version 1 does not read it
        (WindowKind.INPUTS, "length", "constant (7), it varied in training", 10),
        (WindowKind.PERFORMANCE, "", "", 10),  # all labels of one class since then, those of the canary too
    ],
)
def test_a_whole_window_in_which_it_would_not_have_shown_says_nothing_of_a_break(
    tides: Any, kind: WindowKind, column: str, detail: str, since: float
) -> None:
    read = ColumnDrift(column="length", psi=0.01, missing=0.0, reference_missing=0.0, importance=1.0)
    field = BrokenField(column=column, stream="ships", field=column, producer="", detail=detail)
    before = msgspec.structs.replace(window(tides, 10, 16, HEALTHY), kind=kind, columns=[read])
    broken = msgspec.structs.replace(window(tides, 10, 22, BROKEN, "2"), kind=kind, broken=[field] if column else [])
    state = heard(heard(LoopState(loop="tides"), before), broken)
    assert state.broken == {kind: from_datetime(tides.day(since))}


def test_spells_that_are_forgotten_are_not_told_anew_either(tides: Any) -> None:
    verdicts = [(20 + n / 2, BROKEN if n % 2 else HEALTHY) for n in range(100)]
    assert spells_of(tides, *verdicts, *verdicts) == spells_of(tides, *verdicts)


async def test_the_run_after_a_spell_is_told_of_it_and_so_is_its_repeat(tides: Any, until: Until) -> None:
    office = Office(tides.rules, loses)
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        for day, finding in ((20, BROKEN), (21, HEALTHY), (25, DETECTED)):
            await office.trainer.hear(tides.judged(day, finding))
        await office.trainer.hear(tides.matured(41))
        await until(lambda: len(office.executor.specs) >= 2)
    first, second = office.executor.specs[:2]
    assert (first.broken, second.broken) == ((), ((tides.day(19), tides.day(20)),))


@pytest.mark.parametrize("brings", [True, False])
async def test_who_brings_a_model_has_not_looked_at_the_data(tides: Any, until: Until, brings: bool) -> None:
    office = Office(tides.rules, loses)
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.judged(20, BROKEN))
        given = GivenModel(sha256="0" * 64, learned_until=tides.day(5)) if brings else None
        await office.trainer.hear(msgspec.structs.replace(tides.wish("w", 20.5), given=given))
        await until(lambda: len(office.executor.specs) >= 2)
        await until(office.ended(2))
        await office.trainer.hear(tides.judged(21, HEALTHY))
        await office.trainer.hear(tides.matured(60))
        await until(lambda: len(office.executor.specs) >= 3)
    assert bool(office.executor.specs[-1].broken) is brings


async def test_the_run_after_broken_labels_is_told_which_labels_not_to_learn(tides: Any, until: Until) -> None:
    office = Office(tides.rules, loses)
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        for day, finding in ((20, BROKEN), (21, HEALTHY)):
            await office.trainer.hear(tides.judged(day, finding, kind=WindowKind.PERFORMANCE))
        await office.trainer.hear(tides.matured(41))
        await until(lambda: len(office.executor.specs) >= 2)
    assert [spec.broken_labels for spec in office.executor.specs] == [(), ((tides.day(19), tides.day(20)),)]
    assert [spec.broken for spec in office.executor.specs] == [(), ()]


async def test_time_with_broken_inputs_is_no_part_of_a_watch(tides: Any, until: Until) -> None:
    stepping = Office(replace(tides.rules, rollout=STEPS))
    await promoted(stepping, tides, until)
    assert models(stepping).watch_until == tides.day(28)
    for day, finding in ((27.5, BROKEN), (28.5, BROKEN), (30, BROKEN)):
        await stepping.trainer.hear(tides.judged(day, finding, version="2"))
    await stepping.trainer.hear(tides.matured(31))
    assert models(stepping).watch_until is not None, "nobody can tell since day 26.5"
    shown = view(stepping.trainer.states["tides"], stepping.rules, [])["watch_until"]
    assert datetime.fromisoformat(shown) == tides.day(32.5), "it shows the soonest end"
    await stepping.trainer.hear(tides.judged(31.2, HEALTHY, version="2"))
    await stepping.trainer.hear(tides.matured(31.4))
    assert models(stepping).watch_until is not None, "the first half day was watched, and what came after day 30"
    await stepping.trainer.hear(tides.matured(31.5))
    assert models(stepping).watch_until is None
    assert models(stepping).reason == (
        f"watched until {tides.day(31.5):%Y-%m-%d %H:%M}, 3.5 days of it with broken inputs, no comparison was heard: "
        "version 2 stays"
    )


async def test_time_with_broken_inputs_is_no_part_of_the_longest_trial(tides: Any, until: Until) -> None:
    stepping = Office(replace(tides.rules, rollout=STEPS))
    await on_trial(stepping, tides, until)
    for day, finding in ((30, BROKEN), (85, BROKEN), (86, HEALTHY)):
        await stepping.trainer.hear(tides.judged(day, finding))
    await stepping.trainer.hear(tides.matured(136))
    assert standing(stepping)[0] is Step.SHADOW
    await stepping.trainer.hear(tides.matured(136.1))
    assert models(stepping).reason == (
        "no end after 116.1 days, 56.0 days of it with broken inputs, rollout.longest is 60.0 days"
    )


def test_who_began_in_a_spell_takes_it(tides: Any) -> None:
    spells = spells_of(tides, (20, BROKEN), (24, BROKEN), (25, HEALTHY))
    moments = [from_datetime(tides.day(day)) for day in (18, 19.5, 21, 24.5, 26, 40)]
    assert [covered(blind(spells, moment, moments[-1])) for moment in moments] == [5 * DAY, 4.5 * DAY, 0, 0, 0, 0]
    assert [covered(blind(spells, moments[0], moment)) for moment in moments] == [
        0,
        0,
        2 * DAY,
        5.5 * DAY,
        5 * DAY,
        5 * DAY,
    ]


def test_what_lies_in_two_stretches_counts_once() -> None:
    assert covered([(5, 9), (1, 3), (6, 7), (8, 12), (12, 12)]) == 9
