"""The whole loop on five real processes: once undisturbed, once with every service killed and both servers gone."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from millstream_cli.mill import SERVICES, Mill
from millstream_cli.ticks import Tick

from .small_mill import Outcome, run_small, small_project

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


def test_a_first_model_is_trained_and_later_ones_replace_it(undisturbed: Outcome) -> None:
    figures = undisturbed.figures
    assert figures["retrains"] >= 2
    assert figures["promotions"] >= 1
    assert figures["failed_runs"] == 0
    versions = undisturbed.answers()["version"].unique()
    assert len(versions) == figures["promotions"]


def test_each_decision_names_its_cause(undisturbed: Outcome) -> None:
    """Every model in service goes back, cause by cause, to the labels, the verdict or the schedule that led to it."""
    rows = undisturbed.figures["timeline"]
    by_id = {row["id"]: row for row in rows}
    served = [row for row in rows if row["type"] == "millstream.model.state.v1"]
    assert len(served) == undisturbed.figures["promotions"] >= 2
    roots = {"first_model": "labels.matured", "schedule": "labels.matured"}
    for row in served:
        chain = [row]
        while (cause := by_id.get(chain[-1]["caused_by"])) is not None:
            chain.append(cause)
        kinds = [one["type"].removeprefix("millstream.").removesuffix(".v1") for one in chain]
        decision = chain[3]
        root = roots.get(decision["cause"], "window.judged")
        assert kinds == ["model.state", "rollout.moved", "training.started", "retrain.decided", root]
        assert decision["decision"] == "accepted"
        assert chain[2]["run"] == decision["run"] == row["champion"]["run"]
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
        small_project(tmp_path / "project", partitions=1), tmp_path / "mill", until=UNTIL, on_tick=harm
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
