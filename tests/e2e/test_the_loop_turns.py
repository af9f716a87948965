"""The whole loop on five real processes: once undisturbed, once with every service killed and both servers gone."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from millstream.contracts.canary import is_answered_by_challenger
from millstream_cli.mill import SERVICES, Mill
from millstream_cli.ticks import Tick

from .small_mill import SOON_GIVEN_UP, Outcome, run_small, small_project

UNTIL = "2013-01-11T12:00:00Z"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Ten and a half days of flights through a mill that nobody harms."""
    import asyncio

    folder = tmp_path_factory.mktemp("undisturbed")
    return asyncio.run(run_small(small_project(folder / "project", partitions=1), folder / "mill", until=UNTIL))


def check_invariants(outcome: Outcome) -> None:
    """Nothing lost, nothing twice, one answer a question, and features the same online and offline."""
    figures = outcome.figures
    assert figures["events_lost"] == 0
    assert figures["dead_letters"] == 0
    assert figures["predictions_effective"] + figures["unanswered_no_model"] == figures["questions"]
    assert figures["skew_checked"] >= 2000
    assert figures["skew_max"] <= 1e-9, figures["skew_worst"]
    assert figures["recount_checked"] == 200
    assert figures["recount_max"] <= 1e-9, figures["recount_worst"]


def test_every_event_arrives_and_every_question_is_answered(undisturbed: Outcome) -> None:
    check_invariants(undisturbed)
    figures = undisturbed.figures
    assert figures["events_in_topics"] == figures["events_in_lake"] == figures["events_sent"]
    assert figures["duplicates"] == 0
    assert figures["predictions"] == figures["predictions_effective"] > 4000


def test_a_first_model_is_trained_and_a_later_one_replaces_it_step_by_step(undisturbed: Outcome) -> None:
    figures = undisturbed.figures
    assert figures["retrains"] >= 2
    assert figures["promotions"] >= 2
    assert figures["trials"] >= 1
    assert figures["failed_runs"] == 0
    steps = [
        (row["version"], row["step"], row["share"]) for row in figures["timeline"] if row["type"].endswith("moved.v1")
    ]
    assert steps[:8] == [
        ("1", "champion", 0.0),
        ("1", "champion", 0.0),  # every replica obeys it
        ("2", "shadow", 0.0),
        ("2", "canary", 0.1),
        ("2", "canary", 0.5),
        ("2", "champion", 0.0),
        ("2", "champion", 0.0),  # every replica obeys it
        ("2", "champion", 0.0),  # watched to the end
    ]


def test_on_trial_two_models_answer_each_question_and_an_entity_is_answered_by_one(undisturbed: Outcome) -> None:
    moves = [row for row in undisturbed.figures["timeline"] if row["type"].endswith("moved.v1")]
    run = next(row["run"] for row in moves if row["version"] == "2")
    began = {(row["step"], row["share"]): row["at"] for row in reversed(moves) if row["version"] == "2"}
    served = undisturbed.records
    shadow = served.filter(pl.col("asked_at").is_between(*_times(began["shadow", 0.0], began["canary", 0.1]), "none"))
    assert set(shadow["version"]) == {"1"}
    assert set(shadow["other"]) == {"2"}
    canary = served.filter(pl.col("asked_at").is_between(*_times(began["canary", 0.1], began["canary", 0.5]), "none"))
    assert len(canary) > 50
    named = canary.drop_nulls("entity")  # of a flight without an aircraft the question itself is the entity
    for version, other, entity in named.select("version", "other", "entity").iter_rows():
        mine = is_answered_by_challenger("flight-delay", run, entity, 0.1)
        assert (version, other) == (("2", "1") if mine else ("1", "2"))
    assert set(canary["version"]) == {"1", "2"}


def _times(*texts: str) -> tuple[datetime, ...]:
    return tuple(datetime.fromisoformat(text) for text in texts)


def test_each_decision_names_its_cause(undisturbed: Outcome) -> None:
    """Every state in service goes back, cause by cause, to the labels, the verdict or the schedule that led to it."""
    rows = undisturbed.figures["timeline"]
    by_id = {row["id"]: row for row in rows}
    states = [row for row in rows if row["type"] == "millstream.model.state.v1"]
    assert len(states) >= 6
    began = {"first_model": "labels.matured", "schedule": "labels.matured"}
    compared = ["model.state", "rollout.moved", "challenger.judged"]
    for row in states:
        chain = [row]
        while (cause := by_id.get(chain[-1]["caused_by"])) is not None:
            chain.append(cause)
        if "obey" in chain[1]["numbers"]:
            assert (chain[2]["version"], chain[2]["step"]) == (chain[1]["version"], "champion")
            continue
        kinds = [one["type"].removeprefix("millstream.").removesuffix(".v1") for one in chain]
        if kinds == compared:
            assert chain[1]["version"] == chain[2]["version"]
            continue
        decision = chain[3]
        root = began.get(decision["cause"], "window.judged")
        assert kinds == ["model.state", "rollout.moved", "training.started", "retrain.decided", root]
        assert decision["decision"] == "accepted"
        assert chain[2]["run"] == decision["run"] == chain[1]["run"]
    ended = {row["run"]: by_id[row["caused_by"]]["run"] for row in rows if row["type"].endswith("finished.v1")}
    assert len(ended) == undisturbed.figures["retrains"]
    assert all(run == started for run, started in ended.items())


def test_news_is_shown_as_it_happens(undisturbed: Outcome) -> None:
    assert "champion is version 1" in undisturbed.output
    assert "accepted (first_model)" in undisturbed.output


async def test_killed_services_and_absent_servers_change_nothing(undisturbed: Outcome, tmp_path: Path) -> None:
    victims = dict(zip(range(60, 60 + 25 * len(SERVICES), 25), SERVICES, strict=True))

    def harm(mill: Mill, done: int, tick: Tick) -> None:
        if done in victims:
            mill.processes[victims[done]].kill9()
        if done == 200:
            away(mill.stack.kafka)
        if done == 215:
            away(mill.stack.valkey)

    outcome = await run_small(
        small_project(tmp_path / "project", partitions=1),
        tmp_path / "mill",
        until=UNTIL,
        on_tick=harm,
        environment=SOON_GIVEN_UP,
    )
    check_invariants(outcome)
    assert outcome.output.count("starting it again") >= len(SERVICES)
    assert outcome.decisions() == undisturbed.decisions()
    clean, harmed = undisturbed.answers(), outcome.answers()
    assert clean.join(harmed, on="question", how="anti").is_empty()
    both = clean.join(harmed, on="question", suffix="_harmed")
    assert both.filter(pl.col("version") != pl.col("version_harmed")).is_empty()
    assert both.filter(pl.col("probability") != pl.col("probability_harmed")).is_empty()


def away(server: object, seconds: float = 20.0) -> None:
    """Stop a server for a while, beside the replay."""
    import threading
    import time

    def gone() -> None:
        server.kill9()  # type: ignore[attr-defined]
        time.sleep(seconds)
        server.start()  # type: ignore[attr-defined]

    threading.Thread(target=gone, name="absence").start()
