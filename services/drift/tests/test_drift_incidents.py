"""How suspicions become incidents, and whose word ends them."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Finding, WindowJudged, WindowKind
from millstream.contracts.times import HOUR
from millstream_drift.app import rules_of
from millstream_drift.domain.baseline import Baseline, baseline_of
from millstream_drift.domain.hysteresis import VERSIONS, Hysteresis, Weighed
from millstream_drift.domain.judge import judge
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.windows import Window

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, loop, manifest, reference

HEALTHY, SUSPECTED, DETECTED = Finding.HEALTHY, Finding.SUSPECTED, Finding.DETECTED
CLEARED, NOT_CLEARED = Finding.CLEARED, Finding.NOT_CLEARED


class Story:
    """Windows of several versions one after the other; verdicts are numbered v0, v1, …"""

    def __init__(self) -> None:
        self.memory = Hysteresis()
        self.ids = (f"v{n}" for n in count())
        self.hours = count(1)

    def window(self, version: str, over: bool) -> Weighed:
        return self.memory.weigh(version, next(self.ids), over, 2, 3, start=next(self.hours) * HOUR)

    def told(self, version: str, *overs: bool) -> list[Finding]:
        return [self.window(version, over).finding for over in overs]


def test_two_of_three_windows_confirm() -> None:
    found = Story().told("1", True, False, True, False, False, True, False)
    assert found == [SUSPECTED, HEALTHY, DETECTED, CLEARED, HEALTHY, SUSPECTED, HEALTHY]


def test_what_is_detected_began_with_the_first_window_that_showed_it() -> None:
    story = Story()
    assert [story.window("1", over).since // HOUR for over in (False, True, False, True, False)] == [0, 0, 0, 2, 0]
    assert [story.window("1", over).since // HOUR for over in (True, True, True)] == [0, 6, 6]
    assert [story.window("2", over).since // HOUR for over in (True, True, True)] == [0, 0, 6], "it is inherited"


def test_cleared_names_the_verdict_that_began_it() -> None:
    story = Story()
    assert story.told("1", True, True, True) == [SUSPECTED, DETECTED, DETECTED]
    cleared = story.window("1", False)
    assert (cleared.finding, cleared.about) == (CLEARED, "v1")
    assert story.window("1", False).about is None


def test_the_first_fine_window_of_a_newer_version_clears_it_once() -> None:
    story = Story()
    story.told("1", True, True)
    cleared = story.window("2", False)
    assert (cleared.finding, cleared.about) == (CLEARED, "v1")
    assert story.told("2", False, False) == [HEALTHY, HEALTHY]


def test_a_newer_version_that_shows_it_too_has_not_cleared_it() -> None:
    story = Story()
    story.told("1", True, True)
    assert story.told("2", True) == [SUSPECTED], "one window of its own is not enough"
    not_cleared = story.window("2", True)
    assert (not_cleared.finding, not_cleared.about) == (NOT_CLEARED, "v1")
    assert story.told("2", True) == [DETECTED], "it is said once"
    cleared = story.window("2", False)
    assert (cleared.finding, cleared.about) == (CLEARED, "v1")
    third = story.told("3", True, True)
    assert third == [SUSPECTED, DETECTED], "what was cleared is another incident when it comes again"


def test_a_third_version_inherits_what_the_second_did_not_clear() -> None:
    story = Story()
    story.told("1", True, True)
    story.told("2", True, True)
    cleared = story.window("3", False)
    assert (cleared.finding, cleared.about) == (CLEARED, "v1")


def test_while_two_versions_answer_the_newer_ones_word_is_given_once_and_the_older_ones_drift_goes_on() -> None:
    story = Story()
    story.told("1", True, True)
    found = [story.window(version, version == "1") for version in "212121"]
    assert [one.finding for one in found] == [CLEARED, DETECTED, HEALTHY, DETECTED, HEALTHY, DETECTED]


def test_a_fine_window_of_an_older_version_clears_nothing_of_a_newer_one() -> None:
    story = Story()
    story.told("1", False)
    story.told("2", True, True)
    assert story.told("1", False) == [HEALTHY]
    assert story.window("2", False).about == "v2"


def losses_of(story: Story, version: str, expects: float, *losses: float) -> list[Weighed]:
    """Windows with these losses of a version that expects so much of itself; a tenth more is too much."""
    return [
        story.memory.weigh(
            version,
            next(story.ids),
            loss > expects * 1.1,
            2,
            3,
            start=next(story.hours) * HOUR,
            normal=expects,
            worse_than=lambda normal, blind, loss=loss: loss > normal * 1.1,  # type: ignore[misc]
        )
        for loss in losses
    ]


def test_who_learned_in_the_middle_of_a_change_does_not_clear_it_by_expecting_little() -> None:
    story = Story()
    losses_of(story, "1", 0.50, 0.70, 0.70)
    found = losses_of(story, "2", 0.68, 0.70, 0.70, 0.70, 0.70)
    assert [one.finding for one in found] == [SUSPECTED, NOT_CLEARED, SUSPECTED, SUSPECTED], "said once, and not over"
    assert (found[1].about, found[1].normal) == ("v1", 0.50)
    worse = [one.finding for one in losses_of(story, "2", 0.68, 0.80, 0.80)]
    assert worse == [SUSPECTED, DETECTED], "by its own measure it is judged as ever"
    third = losses_of(story, "3", 0.68, 0.70, 0.70)
    assert [one.finding for one in third] == [SUSPECTED, NOT_CLEARED], "normal is what it was before it all began"
    assert losses_of(story, "4", 0.52, 0.52)[0].finding is CLEARED


def test_who_has_not_cleared_it_clears_it_with_the_first_window_that_is_what_was_normal() -> None:
    """What it expects of itself ends no trouble that began before it; nor does it confirm anything."""
    story = Story()
    losses_of(story, "1", 0.50, 0.70, 0.70)
    found = losses_of(story, "2", 0.68, 0.70, 0.70, 0.72, 0.76, 0.70, 0.54, 0.70)
    assert [one.finding for one in found] == [
        SUSPECTED,
        NOT_CLEARED,
        SUSPECTED,
        SUSPECTED,
        SUSPECTED,
        CLEARED,
        HEALTHY,
    ]
    assert [one.normal for one in found] == [0.50, 0.50, 0.50, 0.0, 0.50, 0.50, 0.0]
    assert [one.about for one in found] == [None, "v1", None, None, None, "v1", None]
    assert found[4].agreeing == 1, "by its own measure, the fourth alone"
    assert [one.finding for one in losses_of(story, "3", 0.68, 0.70)] == [HEALTHY], "nothing is left to inherit"


def test_what_another_version_cleared_is_over_for_the_one_that_had_not_cleared_it() -> None:
    story = Story()
    losses_of(story, "1", 0.50, 0.70, 0.70)
    losses_of(story, "2", 0.68, 0.70, 0.70)
    losses_of(story, "3", 0.52, 0.52)
    assert losses_of(story, "2", 0.68, 0.70)[0].finding is HEALTHY


def test_what_a_newer_version_shows_too_is_not_for_an_older_one_to_clear() -> None:
    story = Story()
    losses_of(story, "1", 0.40, 0.70, 0.70)
    losses_of(story, "2", 0.68, 0.70, 0.70)
    assert [one.finding for one in losses_of(story, "3", 0.60, 0.70, 0.70)] == [SUSPECTED, NOT_CLEARED]
    assert losses_of(story, "2", 0.68, 0.42)[0].finding is HEALTHY
    assert losses_of(story, "2", 0.68, 0.70)[0].finding is SUSPECTED, "nor healthy at what it had not cleared"
    assert losses_of(story, "3", 0.60, 0.70)[0].finding is DETECTED
    assert losses_of(story, "4", 0.68, 0.70)[0].normal == 0.40, "it is the same one"


def test_who_is_back_at_what_was_normal_clears_it_at_once() -> None:
    story = Story()
    losses_of(story, "1", 0.50, 0.70, 0.70)
    (cleared,) = losses_of(story, "2", 0.68, 0.53)
    assert (cleared.finding, cleared.about, cleared.normal) == (CLEARED, "v1", 0.50)
    losses_of(story, "2", 0.68, 0.90, 0.90)
    assert losses_of(story, "3", 0.68, 0.70)[0].finding is CLEARED, "what was normal is told anew by each incident"


def labelled(version: str, index: int, *answers: tuple[float, int, int]) -> Window:
    """A window of labels: so many late and so many in time of those of whom `version` said that probability."""
    rows: list[Any] = []
    for probability, late, in_time in answers:
        rows += [({"probability": probability}, n < late, 0) for n in range(late + in_time)]
    return Window(version, WindowKind.PERFORMANCE, index, rows, index * HOUR + 1, (index + 1) * HOUR)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        # Every other flight is late: 0.58 is as far below 0.69, the cost of knowing only that, as 0.42 was below 0.50.
        ([(0.73, 730, 270), (0.27, 270, 730)], [CLEARED, HEALTHY]),
        # One in five is late as ever, and it has learned something that says nothing.
        ([(0.45, 400, 1600)], [SUSPECTED, NOT_CLEARED]),
    ],
    ids=["a harder season", "the same season"],
)
def test_what_was_normal_in_one_season_is_compared_beside_knowing_nothing_in_either(
    answers: list[tuple[float, int, int]], found: list[Finding]
) -> None:
    easy = msgspec.structs.replace(reference(loss=0.42), holdout_blind=0.50)
    second = msgspec.structs.replace(reference(loss=0.64), holdout_blind=0.69)
    rules, memory = rules_of(loop()), Memory()
    before, after = baseline_of(manifest("1"), easy), baseline_of(manifest("2"), second)
    for index in (0, 1):
        (verdict,) = judge(labelled("1", index, (0.2, 1200, 800)), index * HOUR, before, rules, memory)
    assert verdict.finding is Finding.PERFORMANCE_DROP
    told = [verdict for n in (2, 3) for verdict in judge(labelled("2", n, *answers), n * HOUR, after, rules, memory)]
    assert [one.finding for one in told] == found
    assert "against 0.4200 before it began" in told[0].reason
    assert (", 0.5822 with the labels of today" in told[0].reason) == (found[0] is CLEARED)


def test_a_package_that_says_nothing_of_its_season_is_compared_as_it_is() -> None:
    rules, memory = rules_of(loop()), Memory()
    before, after = baseline_of(manifest("1"), reference(loss=0.42)), baseline_of(manifest("2"), reference(loss=0.64))
    for index in (0, 1):
        judge(labelled("1", index, (0.2, 1200, 800)), index * HOUR, before, rules, memory)
    (verdict,) = judge(labelled("2", 2, (0.73, 730, 270), (0.27, 270, 730)), 2 * HOUR, after, rules, memory)
    assert verdict.finding is SUSPECTED
    assert verdict.reason.endswith("+38.9% against 0.4200 before it began")


def test_memory_is_bounded() -> None:
    story = Story()
    for version in range(100):
        story.told(str(version), version % 2 == 0)
    assert len(story.memory.past) == VERSIONS


def test_a_report_is_due_at_the_first_suspicion_and_on_schedule() -> None:
    memory = Hysteresis()
    suspicions = [False, True, True, False, True]
    assert [memory.wants_report(n * HOUR + JUNE, one, None) for n, one in enumerate(suspicions)] == [
        False,
        True,
        False,
        False,
        True,
    ]
    memory = Hysteresis()
    due = [memory.wants_report(JUNE + n * HOUR, False, 3 * HOUR) for n in range(8)]
    assert due == [True, False, False, True, False, False, True, False]
    assert not memory.wants_report(JUNE + 8 * HOUR, False, None)


def stormy(version: str) -> Baseline:
    """Learned when features were three times as large."""
    calm = reference()
    columns = [
        msgspec.structs.replace(one, edges=[edge * 3 for edge in one.edges]) if one.name == "origin__mean_1h" else one
        for one in calm.columns
    ]
    return baseline_of(manifest(version), msgspec.structs.replace(calm, columns=columns))


@pytest.mark.parametrize(
    ("second", "found"),
    [("learned the storm", [CLEARED, HEALTHY, HEALTHY]), ("did not", [SUSPECTED, NOT_CLEARED, DETECTED])],
)
async def test_each_version_is_judged_against_what_it_learned_itself(second: str, found: list[Finding]) -> None:
    world = World(stretch=3.0).hours(JUNE, 10)
    world.version = "2"
    world.hours(JUNE + 10 * HOUR, 16)
    desk = Desk(Topics().add(world.said))
    desk.models.known[LOOP, "2"] = (
        stormy("2") if second == "learned the storm" else baseline_of(manifest("2"), reference())
    )
    await (await desk.start()).read_all()
    verdicts = inputs(desk)
    assert [one.finding for one in verdicts if one.version == "1"] == [SUSPECTED, DETECTED]
    assert [one.finding for one in verdicts if one.version == "2"] == found
    begun = next(one.id for one in verdicts if one.finding is DETECTED)
    assert [one.about for one in verdicts if one.finding in (CLEARED, NOT_CLEARED)] == [begun]


def of_labels(desk: Desk) -> list[WindowJudged]:
    return [one for one in desk.verdicts if one.kind is WindowKind.PERFORMANCE]


async def test_broken_data_neither_confirms_nor_clears() -> None:
    world = World(stretch=3.0).hours(JUNE, 10)
    world.nulls = 0.9
    world.hours(JUNE + 10 * HOUR, 5)
    world.nulls, world.stretch = 0.1, 1.0
    world.hours(JUNE + 15 * HOUR, 6)
    desk = await (await Desk(Topics().add(world.said)).start()).read_all()
    assert [one.finding for one in inputs(desk)] == [SUSPECTED, DETECTED, Finding.BROKEN_DATA, CLEARED]


def broken_for(hours: int, nulls: float, *, labels_of: float = -1.0) -> list[Any]:
    """Ten fine hours; then the feature is null and the answers are wrong; then all is fine. Flights land after 3 hours."""
    world = World().hours(JUNE, 10)
    world.nulls, world.skill = nulls, labels_of
    world.hours(JUNE + 10 * HOUR, hours)
    world.nulls, world.skill = 0.1, 1.0
    return world.hours(JUNE + (10 + hours) * HOUR, 20).said


async def test_labels_of_what_was_asked_while_inputs_were_broken_are_no_drop() -> None:
    """Their labels come when the inputs are whole again, and a run that they asked for would leave those rows out."""
    desk = await (await Desk(Topics().add(broken_for(10, nulls=0.9))).start()).read_all()
    found = of_labels(desk)
    assert Finding.PERFORMANCE_DROP not in {one.finding for one in found}
    doubted = [one for one in found if "asked_while_broken" in one.metrics]
    assert doubted[0].finding is SUSPECTED, "the loss is said, whatever led to it"
    assert "were asked while inputs were broken, so it says nothing of the model" in doubted[0].reason
    assert found[-1].finding is HEALTHY
    assert "asked_while_broken" not in found[-1].metrics

    whole = await (await Desk(Topics().add(broken_for(10, nulls=0.1))).start()).read_all()
    assert Finding.PERFORMANCE_DROP in {one.finding for one in of_labels(whole)}, "without a broken field it is one"


async def test_a_window_with_enough_whole_questions_is_judged_by_them() -> None:
    """The first two hours never land, so that windows of labels begin and end in the middle of those of inputs."""
    silent = {f"flight-{n}" for n in range(1, 2 * 40 + 1)}
    said = [one for one in broken_for(5, nulls=0.9) if one[0] != LANDED or one[1]["flight_id"] not in silent]
    found = of_labels(await (await Desk(Topics().add(said), confirm="1 of 1").start()).read_all())
    assert [(one.rows, one.metrics.get("asked_while_broken"), one.metrics.get("whole_rows")) for one in found[:4]] == [
        (200, None, None),
        (120, 80, 120),
        (200, 120, 80),
        (200, None, None),
    ]
    assert [one.finding for one in found[:4]] == [HEALTHY, HEALTHY, SUSPECTED, HEALTHY]
    assert found[1].reason.endswith("; without 80 questions that were asked while inputs were broken")
    assert "; 120 of the 200 questions were asked while inputs were broken" in found[2].reason


async def test_a_drop_that_the_whole_questions_show_too_is_one() -> None:
    """The world turned when the field broke: what was asked of whole inputs since is answered wrongly as well."""
    world = World().hours(JUNE, 10)
    world.skill = -1.0
    world.hours(JUNE + 10 * HOUR, 3)
    world.nulls = 0.9
    world.hours(JUNE + 13 * HOUR, 5)
    world.nulls = 0.1
    world.hours(JUNE + 18 * HOUR, 20)
    found = of_labels(await (await Desk(Topics().add(world.said)).start()).read_all())
    assert Finding.PERFORMANCE_DROP in {one.finding for one in found}


async def test_an_incident_goes_on_after_a_break_once_whole_windows_confirm_it_again() -> None:
    """The first window after a break may be its edge: no run is asked for by that alone."""
    world = World(stretch=3.0).hours(JUNE, 10)
    world.nulls = 0.9
    world.hours(JUNE + 10 * HOUR, 5)
    world.nulls = 0.1
    world.hours(JUNE + 15 * HOUR, 11)
    desk = await (await Desk(Topics().add(world.said)).start()).read_all()
    told = inputs(desk)
    assert [one.finding for one in told] == [SUSPECTED, DETECTED, Finding.BROKEN_DATA, SUSPECTED, DETECTED]
    assert "in 2 of 2 windows" in told[-1].reason
    assert told[-1].changed_at == told[1].changed_at == told[0].start, "it is the same one"


async def test_the_edges_of_a_break_do_not_confirm_each_other() -> None:
    """A window that is broken in part drifts, before and after those that are judged broken."""
    world = World().hours(JUNE, 9)
    world.nulls = 0.9
    world.hours(JUNE + 9 * HOUR, 7)
    world.nulls = 0.1
    world.hours(JUNE + 16 * HOUR, 9)
    desk = await (await Desk(Topics().add(world.said), psi=0.1).start()).read_all()
    assert [one.finding for one in inputs(desk)] == [HEALTHY, SUSPECTED, Finding.BROKEN_DATA, SUSPECTED, HEALTHY]


async def test_answers_that_move_alone_are_suspected_and_never_more() -> None:
    said: list[Any] = []
    for topic, event, at in World().hours(JUNE, 16).said:
        if hasattr(event, "output"):
            event = msgspec.structs.replace(event, output={"probability": event.output["probability"] / 4 + 0.375})
        said.append((topic, event, at))
    desk = await (await Desk(Topics().add(said)).start()).read_all()
    assert [one.finding for one in inputs(desk)] == [SUSPECTED] * 3
    first = inputs(desk)[0]
    assert first.reason.startswith("the answers moved, psi ")
    assert "though the inputs did not: effect 0.0" in first.reason
    assert [one.report is not None for one in inputs(desk)] == [True, False, False]


async def test_reports_are_drawn_on_schedule_too() -> None:
    desk = await (await Desk(Topics().add(World().hours(JUNE, 41).said), report_every="10h").start()).read_all()
    assert [one.finding for one in inputs(desk)] == [HEALTHY] * 8
    assert [one.report is not None for one in inputs(desk)] == [True, False, True, False, True, False, True, False]
    assert len(desk.reports.asked) == 4


def inputs(desk: Desk) -> list[WindowJudged]:
    return [one for one in desk.verdicts if one.kind is WindowKind.INPUTS]
