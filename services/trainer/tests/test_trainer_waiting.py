"""Requests that wait: for labels, for the end of quiet hours, for another cause, for a person. Each is answered once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from millstream.contracts.events import (
    Cause,
    Decision,
    Finding,
    RetrainDecided,
    RetrainRequested,
    TrialFinding,
    WindowKind,
)
from millstream.contracts.quiet import Quiet
from millstream.contracts.times import DAY
from millstream_trainer.domain.rules import Mode, Rules

from .test_trainer_rollout import STEPS
from .trainer_kit import PROMOTED, REJECTED, Desk, Office, judged

EVERY_CAUSE = frozenset(Cause) - {Cause.FIRST_MODEL}


@pytest.fixture
def rules(tides: Any) -> Rules:
    return replace(tides.rules, causes=EVERY_CAUSE)  # type: ignore[no-any-return]


def served(rules: Rules, tides: Any, **changes: Any) -> Desk:
    """The desk of a loop whose first model was promoted on day 10, with 5,000 labels; then its rules change."""
    desk = Desk(rules)
    desk.hears(tides.matured(10))
    desk.ends(PROMOTED)
    desk.rules = replace(rules, **changes)
    return desk


def answers(desk: Desk, request: str) -> list[RetrainDecided]:
    return [decided for decided in desk.decisions if decided.request == request]


def alert(tides: Any, day: float, id: str = "alert") -> RetrainRequested:
    return RetrainRequested(
        id=id, loop="tides", cause=Cause.ALERT, by="Alertmanager", reason="TidesOff", at=tides.day(day)
    )


def test_drift_waits_until_its_days_have_labels(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500)
    desk.hears(tides.matured(20, 8000))
    assert desk.hears(tides.judged(20.5, id="drift")) is None
    assert desk.hears(tides.matured(21, 8499)) is None
    decided = desk.hears(tides.matured(22, 8500))
    assert decided is not None
    assert (decided.request, decided.decision, decided.at) == ("drift", Decision.ACCEPTED, tides.day(22))
    assert (decided.numbers["matured"], decided.numbers["days_waited"]) == (8500, 1.5)
    assert decided.changed_at == tides.day(19.5)
    assert desk.state.waiting is None


def test_an_older_count_that_comes_again_takes_no_labels_away(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500)
    desk.hears(tides.matured(20, 8000))
    desk.hears(tides.matured(15, 6000))
    desk.hears(tides.judged(20.5, id="drift"))
    assert desk.hears(tides.matured(21, 8400)) is None
    assert desk.hears(tides.matured(22, 8500)) is not None


def test_labels_that_never_come_end_the_wait(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500, mature_longest=5 * DAY)
    desk.hears(tides.judged(20, id="drift"))
    assert desk.hears(tides.matured(24.9, 5100)) is None
    decided = desk.hears(tides.matured(25, 5100))
    assert decided is not None
    assert (decided.request, decided.decision) == ("drift", Decision.DECLINED)
    assert decided.reason.startswith("400 of 500 labels have not matured within 5.0 days")


def test_a_drop_of_performance_has_its_labels_and_a_person_does_not_wait(rules: Rules, tides: Any) -> None:
    for event in (
        tides.judged(20, Finding.PERFORMANCE_DROP, kind=WindowKind.PERFORMANCE),
        tides.wish("ada", 20),
    ):
        decided = served(rules, tides, mature=500).hears(event)
        assert decided is not None
        assert decided.decision is Decision.ACCEPTED


def test_who_asks_while_another_waits_joins_it(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500)
    desk.hears(tides.judged(20, id="first"))
    assert desk.hears(tides.judged(20, id="first")) is None
    second = desk.hears(tides.judged(21, id="second"))
    assert second is not None
    assert second.decision is Decision.COALESCED
    assert second.reason.startswith("another request waits already (500 labels have to mature first")


def test_what_waits_is_judged_by_all_rules_when_its_time_comes(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500)
    desk.hears(tides.judged(20, id="drift"))
    desk.hears(tides.wish("ada", 21))
    desk.ends(PROMOTED)
    decided = desk.hears(tides.matured(22, 9000))
    assert decided is not None
    assert (decided.request, decided.decision) == ("drift", Decision.DECLINED)
    assert decided.reason == "the verdict is about version 1, version 2 answers now"


async def test_a_restart_hears_what_waits_again_and_decides_it_once(rules: Rules, tides: Any, until: Any) -> None:
    office = Office(replace(rules, mature=500))
    told = [tides.matured(10), tides.judged(20, id="drift"), tides.matured(21, 5400)]
    later = [tides.matured(22, 5500), tides.matured(23, 5600)]
    async with office.at_work():
        await office.trainer.hear(told[0])
        await until(office.ended())
    for event in told[1:]:
        await office.trainer.hear(event)
    successor = office.restarted()
    for event in [*told, *later]:
        await successor.trainer.hear(event)
    (decided,) = successor.announcer.of(RetrainDecided)
    assert (decided.request, decided.decision, decided.at) == ("drift", Decision.ACCEPTED, tides.day(22))


def test_a_request_in_quiet_hours_is_decided_once_after_them(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, quiet=Quiet(hours=((22 * 60, 6 * 60),)))
    desk.hears(tides.judged(20, Finding.HEALTHY))
    assert desk.hears(alert(tides, 20 + 23 / 24)) is None  # at 23:00
    assert desk.hears(tides.judged(21.2, Finding.HEALTHY)) is None  # at 04:48
    decided = desk.hears(tides.judged(21.25, Finding.HEALTHY))  # at 06:00
    assert decided is not None
    assert (decided.request, decided.decision, decided.at) == ("alert", Decision.ACCEPTED, tides.day(21.25))
    assert desk.hears(tides.judged(21.3, Finding.HEALTHY)) is None
    assert len(answers(desk, "alert")) == 1


def test_a_person_is_heard_at_night(rules: Rules, tides: Any) -> None:
    decided = served(rules, tides, quiet=Quiet(hours=((22 * 60, 6 * 60),))).hears(tides.wish("ada", 21))
    assert decided is not None
    assert decided.decision is Decision.ACCEPTED


def test_labels_may_come_at_night_and_the_run_then_waits_for_the_morning(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500, quiet=Quiet(hours=((22 * 60, 6 * 60),)))
    desk.hears(tides.judged(20.5, id="drift"))
    assert desk.hears(tides.matured(22, 5500)) is None
    decided = desk.hears(tides.judged(22.5, Finding.HEALTHY))
    assert decided is not None
    assert (decided.request, decided.numbers["days_waited"]) == ("drift", 2.0)


NIGHT = Quiet(hours=((22 * 60, 6 * 60),), zone=ZoneInfo("Europe/Berlin"))
"""Until 05:00Z in winter: the day's count of labels, at 00:00Z, is in the middle of it."""


def test_a_first_model_waits_for_the_end_of_the_night_that_it_was_asked_in(rules: Rules, tides: Any) -> None:
    desk = Desk(replace(rules, quiet=NIGHT))
    assert desk.hears(tides.matured(10)) is None
    decided = desk.hears(tides.matured(10 + 5 / 24))
    assert decided is not None
    assert (decided.cause, decided.decision) == (Cause.FIRST_MODEL, Decision.ACCEPTED)
    assert decided.at == tides.day(10 + 5 / 24)


def test_a_verdict_of_the_next_night_starts_nothing_either(rules: Rules, tides: Any) -> None:
    """A loop that falls silent by day: its next verdict is the day's count, at one in the morning."""
    desk = served(rules, tides, quiet=NIGHT)
    desk.hears(tides.judged(20, Finding.HEALTHY))
    assert desk.hears(alert(tides, 20)) is None
    assert desk.hears(tides.matured(21)) is None
    assert desk.state.waiting is not None
    decided = desk.hears(tides.matured(21 + 5 / 24))
    assert decided is not None
    assert (decided.request, decided.decision, decided.at) == ("alert", Decision.ACCEPTED, tides.day(21 + 5 / 24))


def test_who_is_heard_in_quiet_hours_alone_is_declined_after_a_week(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, quiet=NIGHT)
    desk.hears(tides.judged(20, Finding.HEALTHY))
    desk.hears(alert(tides, 20))
    for day in range(21, 28):
        assert desk.hears(tides.matured(day)) is None
    decided = desk.hears(tides.matured(28))
    assert decided is not None
    assert (decided.request, decided.decision) == ("alert", Decision.DECLINED)
    assert decided.reason.startswith("nothing was heard outside of quiet hours within 7.0 days: ")
    assert desk.state.waiting is None


def test_a_schedule_does_not_creep_through_the_night(rules: Rules, tides: Any) -> None:
    """Its runs are at the end of quiet hours: the next one is due there too, not a day later."""
    desk = served(rules, tides, quiet=NIGHT, schedule=7 * DAY, budget_runs=9)
    asked = []
    for day in range(17, 40):
        for hour in (0, 5):
            decided = desk.hears(tides.matured(day + hour / 24))
            if decided is not None:
                asked.append(decided.at)
                desk.ends(PROMOTED)
    assert asked == [tides.day(day + 5 / 24) for day in (17, 24, 31, 38)]


def test_two_causes_have_to_agree_where_the_loop_says_so(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, agree=2)
    alone = desk.hears(tides.judged(20))
    assert alone is not None
    assert alone.decision is Decision.DECLINED
    assert alone.reason.startswith("only drift asked within 7.0 days, retrain.agree wants 2 causes")
    again = desk.hears(tides.judged(22))
    assert again is not None
    assert again.decision is Decision.DECLINED
    other = desk.hears(tides.judged(23, Finding.PERFORMANCE_DROP))
    assert other is not None
    assert (other.decision, other.numbers["causes"]) == (Decision.ACCEPTED, 2)
    assert other.reason == "performance_drop on day 23; agreed with drift of 2013-01-23 00:00", "the last time it asked"


def test_a_request_that_waited_says_once_who_agreed(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, agree=2, quiet=Quiet(hours=((20 * 60, 6 * 60),)))
    desk.hears(tides.judged(20, Finding.PERFORMANCE_DROP))
    assert desk.hears(tides.judged(22.9)) is None, "quiet hours"
    decided = desk.hears(tides.judged(23.3, Finding.HEALTHY))
    assert decided is not None
    assert decided.reason == "detected on day 22.9; agreed with performance of 2013-01-21 00:00"


@pytest.mark.parametrize("first", [Finding.BROKEN_DATA, Finding.DETECTED])
def test_causes_too_far_apart_and_broken_data_agree_with_nobody(rules: Rules, tides: Any, first: Finding) -> None:
    desk = served(rules, tides, agree=2)
    desk.hears(tides.judged(20 if first is Finding.DETECTED else 26, first))
    desk.hears(tides.judged(26.5, Finding.HEALTHY))
    other = desk.hears(tides.judged(27.5, Finding.PERFORMANCE_DROP, kind=WindowKind.PERFORMANCE))
    assert other is not None
    assert other.reason.startswith("only performance asked")


async def tried(rules: Rules, tides: Any, until: Any) -> Office:
    """Of a loop whose causes have to agree: version 2, by a person's wish, is on trial since day 20."""
    office = Office(replace(rules, rollout=STEPS, agree=2))
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.wish("ada", 20))
        await until(office.ended(2))
    return office


async def test_what_was_asked_of_the_version_before_agrees_with_nobody(rules: Rules, tides: Any, until: Any) -> None:
    office = await tried(rules, tides, until)
    hear = office.trainer.hear
    await hear(tides.judged(21))
    for day, pairs in ((22, 1000), (24, 1500), (26, 2000)):
        await hear(judged(tides.day(day), "2", "1", pairs=pairs))
    await hear(tides.judged(27, id="late"))
    await hear(tides.judged(28, Finding.PERFORMANCE_DROP, version="2", kind=WindowKind.PERFORMANCE))
    coalesced, late, last = [one.reason for one in office.announcer.of(RetrainDecided)[-3:]]
    assert coalesced.startswith("version 2 is on trial")
    assert late == "the verdict is about version 1, version 2 answers now"
    assert last.startswith("only performance asked"), "drift is what version 2 was made for"


def test_what_is_judged_anew_is_not_decided_anew(rules: Rules, tides: Any) -> None:
    """Drift that has lost its snapshot judges anew what Kafka still has, under ids of its own."""
    desk = served(rules, tides, cooldown=12 * DAY)
    first = desk.hears(tides.judged(20))
    assert first is not None
    assert first.decision is Decision.DECLINED
    desk.hears(tides.judged(44, Finding.HEALTHY))
    assert desk.hears(tides.judged(20.5, id="anew")) is None
    assert desk.hears(tides.judged(44, id="of another version", version="2")) is not None


async def test_what_was_asked_of_a_version_that_was_taken_back_agrees_with_nobody(
    rules: Rules, tides: Any, until: Any
) -> None:
    office = await tried(rules, tides, until)
    hear = office.trainer.hear
    for day, pairs in ((22, 1000), (24, 1500), (26, 2000)):
        await hear(judged(tides.day(day), "2", "1", pairs=pairs))
    await hear(tides.judged(26.5, Finding.PERFORMANCE_DROP, version="2", kind=WindowKind.PERFORMANCE))
    await hear(judged(tides.day(27), "2", "1", TrialFinding.WORSE, pairs=300, watch=True))
    await hear(tides.judged(28, id="after"))
    assert office.announcer.of(RetrainDecided)[-1].reason.startswith("only drift asked")


def test_a_person_agrees_with_herself(rules: Rules, tides: Any) -> None:
    decided = served(rules, tides, agree=3).hears(tides.wish("ada", 20))
    assert decided is not None
    assert decided.decision is Decision.ACCEPTED


@pytest.mark.parametrize(("change", "enough"), [({"grow": 0.2}, 6000), ({"grow_rows": 700}, 5700)])
def test_so_many_new_labels_ask_by_themselves(rules: Rules, tides: Any, change: Any, enough: int) -> None:
    desk = served(rules, tides, **change)
    assert desk.hears(tides.matured(14, enough - 1)) is None
    decided = desk.hears(tides.matured(15, enough))
    assert decided is not None
    assert (decided.cause, decided.decision) == (Cause.LABELS, Decision.ACCEPTED)
    assert decided.reason == f"{enough} labels have matured, 5000 had at the last run; {enough} were waited for"


def test_labels_that_drift_counts_anew_go_on_counting(rules: Rules, tides: Any) -> None:
    """It has lost its snapshot, and Kafka has the predictions of the last days alone."""
    desk = served(rules, tides, grow_rows=500, cooldown=0)
    counts = [tides.matured(20, 5400), *(tides.matured(*one) for one in ((18, 40), (19, 60), (20, 80), (21, 179)))]
    for count in [*counts[:-1], *counts]:
        assert desk.hears(count) is None, "heard again it changes nothing"
    decided = desk.hears(tides.matured(22, 180))
    assert decided is not None
    assert decided.reason == "5500 labels have matured, 5000 had at the last run; 5500 were waited for"
    desk.ends(REJECTED)
    assert desk.hears(tides.matured(23, 7)) is None, "it happens again, and that day's count was not heard twice"
    decided = desk.hears(tides.matured(24, 507))
    assert decided is not None
    assert decided.numbers["matured"] == 6000


def test_who_waits_for_labels_has_them_when_drift_counts_anew(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mature=500)
    desk.hears(tides.matured(20, 8000))
    assert desk.hears(tides.judged(20.5, id="drift")) is None
    assert [desk.hears(tides.matured(day, matured)) for day, matured in ((19, 70), (20, 100), (21, 599))] == [None] * 3
    decided = desk.hears(tides.matured(22, 600))
    assert decided is not None
    assert (decided.request, decided.decision) == ("drift", Decision.ACCEPTED)


def test_an_estimated_drop_is_a_cause_of_its_own(rules: Rules, tides: Any) -> None:
    decided = served(rules, tides).hears(tides.judged(20, Finding.PERFORMANCE_DROP, kind=WindowKind.ESTIMATED))
    assert decided is not None
    assert (decided.cause, decided.decision) == (Cause.ESTIMATE, Decision.ACCEPTED)


def test_a_new_champion_warms_up(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, warm_up=8 * DAY)
    early = desk.hears(tides.judged(17))
    assert early is not None
    assert early.reason == "7.0 days since the last promotion, the warm-up is 8.0 days: detected on day 17"
    late = desk.hears(tides.judged(18))
    assert late is not None
    assert late.decision is Decision.ACCEPTED


def test_a_loop_that_only_suggests_says_what_it_would_do(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mode=Mode.SUGGEST)
    suggested = desk.hears(tides.judged(20))
    assert suggested is not None
    assert (suggested.decision, suggested.run) == (Decision.SUGGESTED, None)
    assert desk.state.running is None
    asked = desk.hears(tides.wish("ada", 20))
    assert asked is not None
    assert asked.decision is Decision.ACCEPTED


def test_what_changed_did_so_with_the_first_window_that_showed_it(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides)
    verdict = msgspec.structs.replace(tides.judged(20, id="drift"), changed_at=tides.day(16))
    decided = desk.hears(verdict)
    assert decided is not None
    assert (decided.decision, decided.changed_at) == (Decision.ACCEPTED, tides.day(16))
