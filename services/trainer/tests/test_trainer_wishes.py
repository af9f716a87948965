"""A person's word: rollback, pin, freeze, approval; over HTTP and as the dispatcher hears it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from millstream.contracts.events import (
    Cause,
    Decision,
    ModelState,
    Outcome,
    RetrainDecided,
    RolloutAction,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    Step,
    TrainingFinished,
    TrialFinding,
)
from millstream.runtime.http import http_app
from millstream_trainer.api import add_routes
from millstream_trainer.domain.policy import not_pending
from millstream_trainer.domain.rules import Mode
from millstream_trainer.domain.state import LoopState, Run

from .test_trainer_rollout import STEPS, models, on_trial, promoted, standing
from .trainer_kit import Office, approves, judged, obeyed, wants

Until = Callable[[Callable[[], bool]], Any]
ROLLBACK, PIN, UNPIN, FREEZE, UNFREEZE = RolloutAction
ADA = {"by": "Ada", "reason": "the harbour said so"}


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(replace(tides.rules, rollout=STEPS))


@pytest.fixture
async def client(office: Office) -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(title="trainer")
    add_routes(app, office.trainer, office.announcer, office.packages)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as found:
        yield found


def last_decision(office: Office) -> RetrainDecided:
    return office.announcer.of(RetrainDecided)[-1]


async def test_a_rollback_goes_to_the_champion_before_and_names_who_asked(
    office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(wants(ROLLBACK))
    assert standing(office) == (Step.ROLLED_BACK, "1", None, 0.0)
    moved = office.announcer.of(RolloutMoved)[-1]
    assert (moved.version, moved.by, moved.reason) == ("2", "Ada", "the harbour said so")
    assert office.announcer.causes[moved.id] == "rollback-None"


async def test_a_request_that_comes_twice_is_granted_once(office: Office, tides: Any, until: Until) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(wants(ROLLBACK))
    said = len(office.announcer.said)
    await office.trainer.hear(wants(ROLLBACK))
    successor = office.restarted()
    await successor.trainer.hear(wants(ROLLBACK))
    assert (len(office.announcer.said), successor.announcer.said) == (said, [])


@pytest.mark.parametrize(("share", "step"), [(0.0, Step.REJECTED), (0.1, Step.ROLLED_BACK)])
async def test_a_rollback_during_a_trial_ends_the_trial(
    office: Office, tides: Any, until: Until, share: float, step: Step
) -> None:
    await on_trial(office, tides, until)
    if share:
        await office.trainer.hear(judged(tides.day(22), "2", "1", pairs=1000))
    assert standing(office)[3] == share
    await office.trainer.hear(wants(ROLLBACK))
    assert standing(office) == (step, "1", None, 0.0)


async def test_a_rollback_to_a_named_version_ends_the_trial_first(office: Office, tides: Any, until: Until) -> None:
    await promoted(office, tides, until)
    async with office.at_work():
        await office.trainer.hear(tides.judged(40, version="2"))
        await until(office.ended(3))
    assert standing(office)[:3] == (Step.SHADOW, "2", "3")
    await office.trainer.hear(wants(ROLLBACK, "1"))
    assert standing(office) == (Step.ROLLED_BACK, "1", None, 0.0)
    steps = [(moved.version, moved.step) for moved in office.announcer.of(RolloutMoved)[-2:]]
    assert steps == [("3", Step.REJECTED), ("2", Step.ROLLED_BACK)]
    said = len(office.announcer.said)
    await office.trainer.hear(wants(ROLLBACK, "1"))
    assert len(office.announcer.said) == said


async def test_a_rejected_version_stays_rejected_whoever_asks(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(judged(tides.day(21), "2", "1", TrialFinding.WORSE, pairs=9))
    for action in (ROLLBACK, PIN):
        await office.trainer.hear(wants(action, "2"))
        decided = last_decision(office)
        assert (decided.decision, decided.request) == (Decision.DECLINED, f"{action.value}-2")
        assert decided.reason == f"{action.value}: version 2 was rejected, and stays so; ask for a retrain"
    assert standing(office)[1] == "1"


async def test_what_cannot_be_granted_is_declined_once_and_not_granted_later(
    office: Office, tides: Any, until: Until
) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    await office.trainer.hear(wants(ROLLBACK))
    assert last_decision(office).reason.startswith("rollback: no version answered before this one")
    await promoted(office, tides, until)
    await office.trainer.hear(wants(ROLLBACK))
    assert standing(office)[:2] == (Step.CHAMPION, "2")


async def test_a_pin_ends_the_trial_and_stops_trials_and_retrains_until_it_is_undone(
    office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    async with office.at_work():
        await office.trainer.hear(tides.judged(40, version="2"))
        await until(office.ended(3))
        await office.trainer.hear(wants(PIN, "1"))
        assert (standing(office), models(office).pinned) == ((Step.CHAMPION, "1", None, 0.0), "1")
        assert models(office).since == tides.day(40), "that is since when it answers"
        for event in (tides.judged(50, version="1"), tides.wish("bob", 50)):
            await office.trainer.hear(event)
            assert last_decision(office).decision is Decision.DECLINED
            assert last_decision(office).reason.startswith("version 1 is pinned, unpin it first")
        await office.trainer.hear(wants(ROLLBACK, "2"))
        assert standing(office)[1] == "1"
        await office.trainer.hear(wants(UNPIN))
        await office.trainer.hear(tides.wish("ada", 51))
        await until(office.ended(4))
    assert standing(office) == (Step.SHADOW, "1", "4", 0.0)


async def test_a_pin_on_the_challenger_has_it_answer_at_once(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(wants(PIN, "2"))
    assert standing(office) == (Step.CHAMPION, "2", None, 0.0)
    assert (models(office).pinned, models(office).watch_until) == ("2", None)


async def test_frozen_nothing_goes_forward_and_everything_goes_back(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(wants(FREEZE))
    assert (standing(office), models(office).frozen) == ((Step.SHADOW, "1", "2", 0.0), "Ada: the harbour said so")
    await office.trainer.hear(judged(tides.day(22), "2", "1", TrialFinding.BETTER, pairs=1000))
    assert standing(office)[0] is Step.SHADOW
    await office.trainer.hear(wants(UNFREEZE))
    assert standing(office) == (Step.SHADOW, "1", "2", 0.0)
    await office.trainer.hear(judged(tides.day(23), "2", "1", pairs=1100))
    assert standing(office)[0] is Step.CANARY
    await office.trainer.hear(wants(FREEZE, id="again"))
    await office.trainer.hear(judged(tides.day(24), "2", "1", TrialFinding.WORSE, pairs=1200))
    assert standing(office)[0] is Step.REJECTED


async def test_time_in_which_a_trial_is_frozen_is_no_part_of_the_longest(
    office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(judged(tides.day(30), "2", "1", TrialFinding.BETTER, pairs=900))
    await office.trainer.hear(wants(FREEZE))
    await office.trainer.hear(tides.matured(150))
    assert standing(office)[0] is not Step.REJECTED
    await office.trainer.hear(wants(UNFREEZE))
    await office.trainer.hear(tides.matured(199))
    assert standing(office)[0] is not Step.REJECTED
    restarted = office.restarted()
    await restarted.trainer.hear(tides.matured(200.1))
    assert models(restarted).reason == "no end after 180.1 days, 120.0 days frozen, rollout.longest is 60.0 days"


@pytest.mark.parametrize("hold", [wants(FREEZE), wants(PIN, "1")], ids=["frozen", "pinned"])
async def test_a_run_that_ends_while_a_person_holds_the_loop_changes_nothing(
    office: Office, tides: Any, until: Until, hold: RolloutRequested
) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        office.executor.gate.clear()
        await office.trainer.hear(tides.judged(20))
        await until(lambda: office.executor.under_way == 1)
        await office.trainer.hear(hold)
        office.executor.gate.set()
        await until(office.ended(2))
    assert standing(office) == (Step.CHAMPION, "1", None, 0.0)
    finished = office.announcer.of(TrainingFinished)[-1]
    assert (finished.outcome, "a person holds the loop" in finished.reason) == (Outcome.REJECTED, True)


async def test_a_run_waits_for_its_approval_and_then_runs(tides: Any, until: Until) -> None:
    office = Office(replace(tides.rules, mode=Mode.APPROVE))
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        decided = last_decision(office)
        assert (decided.decision, decided.expires) == (Decision.PENDING, tides.day(12))
        assert not office.executor.specs
        await office.trainer.hear(approves(decided.run or ""))
        await until(office.ended())
    assert [event.decision for event in office.announcer.of(RetrainDecided)] == [Decision.PENDING, Decision.ACCEPTED]
    spec = office.executor.specs[0]
    assert (spec.run, spec.cause, spec.request) == (decided.run, Cause.FIRST_MODEL, "labels-10")
    await office.trainer.hear(approves(decided.run or "", id="again"))
    assert last_decision(office).reason == f"run {decided.run} has ended: promoted"


@pytest.mark.parametrize(
    ("outcome", "step", "says"),
    [
        (None, None, "is under way"),
        (Outcome.FAILED, None, "has ended: failed"),
        (Outcome.ON_TRIAL, Step.CANARY, "has ended: on trial"),
        (Outcome.ON_TRIAL, Step.REJECTED, "has ended: rejected in its trial"),
        (Outcome.ON_TRIAL, Step.CHAMPION, "has ended: promoted"),
        (Outcome.PROMOTED, Step.ROLLED_BACK, "has ended: rolled back"),
    ],
)
def test_a_run_that_nobody_can_approve_says_where_its_model_stands(
    outcome: Outcome | None, step: Step | None, says: str
) -> None:
    run = Run(name="r", request="q", cause=Cause.DRIFT, at=0, version="2", decision="d", outcome=outcome, step=step)
    assert not_pending(LoopState(loop="tides", runs=(run,)), "r") == f"run r {says}"


async def test_over_http_a_person_takes_back_holds_and_lets_go(
    client: httpx.AsyncClient, office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    for path, more in (("rollback", {"to": "1"}), ("pin", {"to": "1"}), ("freeze", {})):
        answer = await client.post(f"/v1/loops/tides/{path}", json={**ADA, **more})
        assert answer.status_code == 202, answer.text
        event = office.announcer.of(RolloutRequested)[-1]
        assert (event.id, event.action.value, event.by) == (answer.json()["request"], path, "Ada")
        assert event.to == more.get("to")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "says"),
    [
        ("rollback", {"to": "9"}, 404, "unknown_version", "known: 1, 2"),
        ("pin", {"to": "9"}, 404, "unknown_version", "known: 1, 2"),
        ("pin", {}, 422, "bad_body", "/to: Field required"),
        ("rollback", {"to": "2"}, 409, "not_now", "version 2 answers already"),
        ("unpin", {}, 409, "not_now", "no version is pinned"),
        ("unfreeze", {}, 409, "not_now", "the loop is not frozen"),
        ("runs/abc/approve", {}, 404, "unknown_run", "waiting: none"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_what_there_is(
    client: httpx.AsyncClient,
    office: Office,
    tides: Any,
    until: Until,
    path: str,
    body: dict[str, str],
    status: int,
    code: str,
    says: str,
) -> None:
    await promoted(office, tides, until)
    said = len(office.announcer.said)
    answer = await client.post(f"/v1/loops/tides/{path}", json={**ADA, **body})
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert says in answer.json()["message"]
    assert len(office.announcer.said) == said


async def test_an_approval_over_http_names_the_run_and_one_that_ended_is_409(
    client: httpx.AsyncClient, office: Office, tides: Any, until: Until
) -> None:
    office.trainer.rules["tides"] = replace(tides.rules, mode=Mode.APPROVE)  # type: ignore[index]
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        run = last_decision(office).run
        path = f"/v1/loops/tides/runs/{run}/approve"
        (loop,) = (await client.get("/v1/loops")).json()["loops"]
        assert [one["run"] for one in loop["pending"]] == [run]
        assert (await client.post(path, json={"by": "Ada"})).status_code == 202
        (go,) = office.announcer.of(RunApproved)
        await office.trainer.hear(go)
        await until(office.ended())
    answer = await client.post(path, json={"by": "Ada"})
    assert (answer.status_code, answer.json()["message"]) == (409, f"run {run} has ended: promoted")


async def test_an_approval_after_it_expired_is_409_and_a_declined_decision(
    client: httpx.AsyncClient, office: Office, tides: Any
) -> None:
    office.trainer.rules["tides"] = replace(tides.rules, mode=Mode.APPROVE)  # type: ignore[index]
    await office.trainer.hear(tides.matured(10))
    run = last_decision(office).run or ""
    await office.trainer.hear(tides.matured(12))
    expired = office.announcer.of(RetrainDecided)[1]
    assert (expired.decision, expired.run) == (Decision.EXPIRED, run)
    answer = await client.post(f"/v1/loops/tides/runs/{run}/approve", json={"by": "Ada"})
    assert answer.status_code == 409
    await office.trainer.hear(approves(run))
    assert last_decision(office).decision is Decision.DECLINED
    assert last_decision(office).reason == f"run {run} expired; ask for a retrain"


async def test_the_view_shows_trial_watch_holds_and_replicas(
    client: httpx.AsyncClient, office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(judged(tides.day(22), "2", "1", pairs=1000))
    await office.trainer.hear_replica(obeyed(2))
    (loop,) = (await client.get("/v1/loops")).json()["loops"]
    trial = loop["trial"]
    assert (trial["version"], trial["step"], trial["share"], trial["pairs"]) == ("2", "canary", 0.1, 1000)
    assert (trial["difference"], trial["low"], trial["high"]) == (-0.001, -0.011, 0.009)
    assert loop["watch"] is None
    assert loop["replicas"] == [
        {"instance": "serving-0", "revision": 2, "version": "1", "behind": 1, "refused": 0, "reason": ""}
    ]
    for day, pairs in ((24, 1500), (26, 2000)):
        await office.trainer.hear(judged(tides.day(day), "2", "1", pairs=pairs))
    await office.trainer.hear(judged(tides.day(26.5), "2", "1", pairs=2100, watch=True))
    await office.trainer.hear(wants(FREEZE))
    (loop,) = (await client.get("/v1/loops")).json()["loops"]
    assert (loop["trial"], loop["watch_until"], loop["frozen"]) == (
        None,
        "2013-01-29T00:00:00Z",
        "Ada: the harbour said so",
    )
    assert (loop["watch"]["version"], loop["watch"]["against"], loop["watch"]["pairs"]) == ("2", "1", 2100)


async def test_the_documentation_shows_bodies_that_are_taken(
    client: httpx.AsyncClient, office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    paths = (await client.get("/openapi.json")).json()["paths"]
    doors = {path: door["post"] for path, door in paths.items() if "post" in door}
    assert len(doors) == 9
    for path, door in doors.items():
        body = door["requestBody"]["content"]["application/json"]["example"]
        answer = await client.post(path.replace("{loop}", "tides").replace("{run}", "r"), json=body)
        assert answer.status_code in (202, 404, 409), (path, answer.text)
    assert len(office.announcer.of(ModelState)) == 5
