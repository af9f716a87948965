"""Two weeks of one small airport through a backtest: what is decided, what is shared, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from ruamel.yaml import YAML

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Cause
from millstream.contracts.times import DAY, HOUR, from_rfc3339, to_datetime
from millstream.contracts.topics import LABELS
from millstream.project import BadProject, Project, load_project
from millstream.project.told import TOLD
from millstream_backtest.backtest import Figures, Recorded, Wanted, backtest
from millstream_backtest.chart import draw
from millstream_backtest.errors import BacktestFailed
from millstream_backtest.past import Past, PastHistory
from millstream_backtest.policies import CURRENT, read_policies
from millstream_backtest.recorded_lake import recorded_lake
from millstream_backtest.view import legend, table
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_reader import read_events
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Table

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
LOOP = "flight-delay"
BEGAN = from_rfc3339("2013-05-01T00:00:00Z")
DAYS = 14
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
pytestmark = pytest.mark.timeout(240)


def recording(turn: int) -> dict[str, pl.DataFrame]:
    """150 flights a day. The carrier decides who is late, and from day `turn` on it is the other one."""
    rng, count = np.random.default_rng(5), 150 * DAYS
    asked = BEGAN + np.sort(rng.integers(0, DAYS * DAY, count))
    carrier = rng.integers(0, 2, count)
    later = (asked - BEGAN) // DAY >= turn
    chance = np.where((carrier == 1) != later, 0.7, 0.1)
    delay = np.where(rng.random(count) < chance, 40.0, -5.0)
    flights = pl.DataFrame(
        {
            "known_at": asked,
            "flight_id": [f"f{n}" for n in range(count)],
            "origin": "JFK",
            "dest": "LAX",
            "tailnum": [f"t{n}" for n in rng.integers(0, 30, count)],
            "distance": rng.normal(900, 200, count),
            "scheduled_minute": rng.integers(0, 1440, count),
            "weekday": rng.integers(0, 7, count),
            "carrier": np.where(carrier == 1, "LATE", "SWIFT"),
            "arr_delay": delay,
            "dep_delay": delay,
        }
    )
    at = pl.from_epoch("known_at", time_unit="us").dt.strftime(RFC3339)
    own = ["flight_id", "origin", "dest", "tailnum", "carrier"]
    landed = flights.select("known_at", *own, "dep_delay", "arr_delay").with_columns(pl.col("known_at") + 3 * HOUR)
    departed = flights.select("known_at", *own, "dep_delay").with_columns(pl.col("known_at") + HOUR)
    return {
        "flights-scheduled": flights.drop("arr_delay", "dep_delay").with_columns(announced_at=at, scheduled_at=at),
        "flights-departed": departed.with_columns(departed_at=at),
        "flights-landed": landed.with_columns(landed_at=at),
    }


def write(folder: Path, name: str, **retrain: object) -> Path:
    """A policy for so few flights; `retrain` overrides."""
    yaml = YAML()
    loop = yaml.load(FLIGHTS / "loops" / f"{LOOP}.yaml")
    loop["model"]["params"] = {"num_leaves": 4, "min_data_in_leaf": 20, "learning_rate": 0.3, "rounds": 20}
    loop["train"] |= {"refit": True, "holdout": "2d", "history": "6d", "schedule": "2d", "first_after": {"rows": 700}}
    loop["drift"]["window"] = 300
    loop["retrain"] |= {"cooldown": "1d", "budget": "9 per 30d", **retrain}
    loop["gate"]["tolerance"] = 0.02
    loop["rollout"] = {"shadow": 100, "canary": ["50%"], "step": 50, "watch": "12h", "tolerance": 0.05}
    file = folder / f"{name}.yaml"
    yaml.dump(loop, file)
    return file


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("small") / "project"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    write(folder / "loops", LOOP)
    return load_project(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(project: Project, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Figures]:
    """The project's own policy, the same once more under another name, and one that never learns again."""
    files = tmp_path_factory.mktemp("policies")
    policies = read_policies(project, LOOP, [write(files, "same"), _once(files)])
    return backtest(project, policies, Recorded(events=recording(turn=8)), Wanted(tick=HOUR), folder=folder)


def _once(folder: Path) -> Path:
    file = write(folder, "once", on=["manual"])
    yaml = YAML()
    loop = yaml.load(file)
    del loop["train"]["schedule"]
    yaml.dump(loop, file)
    return file


def test_a_loop_that_learns_again_is_better_than_one_that_does_not(found: list[Figures]) -> None:
    learns, _, once = found

    assert (once.retrains, once.promotions) == (1, 1)
    assert learns.retrains > 2
    assert learns.promotions >= 2
    assert learns.loss is not None
    assert once.loss is not None
    assert learns.loss < once.loss - 0.005
    assert 0.4 < learns.answered_share < 0.9
    assert learns.scored > 1000


def test_a_challenger_goes_through_shadow_and_canary(found: list[Figures]) -> None:
    moves = [row for row in found[0].timeline if row["type"] == "millstream.rollout.moved.v1"]

    assert {"shadow", "canary", "champion"} <= {row["step"] for row in moves}
    by_id = {row["id"]: row for row in found[0].timeline}
    assert all(row["caused_by"] in by_id for row in moves)


def test_each_promotion_is_compared_with_whom_it_replaced(found: list[Figures]) -> None:
    learns = found[0]

    assert len(learns.promoted) == learns.promotions - 1
    assert learns.harmful_promotions == sum(one.harmful for one in learns.promoted)
    for one in learns.promoted:
        assert one.harmful == (one.questions >= 200 and one.loss > one.loss_replaced)
        assert one.version != one.replaced


def test_policies_that_make_the_same_run_share_it_and_decide_alike(
    project: Project, found: list[Figures], folder: Path, tmp_path: Path
) -> None:
    learns, same, _ = found
    seconds = {"seconds", "spent_cpu_seconds", "training_seconds", "runs_found", "policy", "timeline"}
    assert {n: getattr(learns, n) for n in learns.__struct_fields__ if n not in seconds} == {
        n: getattr(same, n) for n in same.__struct_fields__ if n not in seconds
    }

    policies = read_policies(project, LOOP, [])
    [again] = backtest(project, policies, Recorded(events=recording(turn=8)), Wanted(tick=HOUR), folder=folder)

    assert again.runs_found == again.retrains == learns.retrains
    assert again.loss == learns.loss
    assert again.cpu_seconds == learns.cpu_seconds > 0, (
        "what the policy costs, and not what this backtest had to do for it"
    )
    assert [row["id"] for row in again.timeline] == [row["id"] for row in learns.timeline]
    assert not list(folder.glob("packages-*")), "packages are of one backtest"


def test_in_a_replay_no_run_begins_in_quiet_hours(project: Project, folder: Path, tmp_path: Path) -> None:
    """Labels are counted at 00:00Z, which is two in the morning in Berlin: first model and schedule ask in quiet hours."""
    file = write(tmp_path, "quiet", quiet=["22:00-06:00"], time_zone="Europe/Berlin")
    policies = read_policies(project, LOOP, [file])[1:]
    [found] = backtest(project, policies, Recorded(events=recording(turn=8)), Wanted(tick=HOUR), folder=folder)

    runs = [row for row in found.timeline if row["type"] == "millstream.training.started.v1"]
    assert len(runs) > 2
    began = [from_rfc3339(row["at"]) % DAY // HOUR for row in runs]
    assert all(4 <= hour < 20 for hour in began), began
    assert 4 in began, "the end of the night"


def test_a_timeline_has_every_window_as_the_journal_of_a_mill_has(found: list[Figures]) -> None:
    learns = found[0]
    windows = [row for row in learns.timeline if row["type"] == "millstream.window.judged.v1"]

    numbers = {(row["version"], row["kind"], row["index"]) for row in windows}
    assert len(numbers) == len(windows)
    for version, kind, index in numbers:
        assert index == 0 or (version, kind, index - 1) in numbers, "none is left out"
    assert "healthy" in {row["finding"] for row in windows}
    assert all({"id", "caused_by", "at", "reason"} <= row.keys() for row in windows)


def test_a_view_whose_stream_is_empty_ends_the_backtest_with_what_to_do(project: Project, tmp_path: Path) -> None:
    events = recording(turn=8)
    del events["flights-departed"]

    with pytest.raises(
        BacktestFailed,
        match=r"lake .* has no event of flights-departed, and view \w+ of delay_v1 is made of them: name a lake .*--lake",
    ):
        backtest(project, read_policies(project, LOOP, []), Recorded(events=events), Wanted(tick=HOUR), folder=tmp_path)


def test_warm_starts_are_replayed_and_shared(project: Project, folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "warm")
    yaml = YAML()
    loop = yaml.load(file)
    loop["model"]["params"] |= {"warm_start": True, "warm_rounds": 5}
    yaml.dump(loop, file)
    policies = read_policies(project, LOOP, [file])[-1:]

    [first] = backtest(project, policies, Recorded(events=recording(turn=8)), Wanted(tick=HOUR), folder=folder)
    [again] = backtest(project, policies, Recorded(events=recording(turn=8)), Wanted(tick=HOUR), folder=folder)

    said = json.dumps(first.timeline)
    assert "from scratch, not a warm start: there is no champion yet" in said
    assert "warm start: 5 rounds on top of the 20 of version 1" in said
    assert again.runs_found == again.retrains == first.retrains > 2
    assert again.loss == first.loss
    assert [row["id"] for row in again.timeline] == [row["id"] for row in first.timeline]


def test_from_a_day_on_it_begins_without_a_model(project: Project, folder: Path) -> None:
    wanted = Wanted(tick=HOUR, since=BEGAN + 5 * DAY, until=BEGAN + 7 * DAY)

    [late] = backtest(
        project, read_policies(project, LOOP, []), Recorded(events=recording(turn=8)), wanted, folder=folder
    )

    assert 200 < late.questions < 400
    assert late.answered == late.retrains == 0, "700 labels have not matured in two days"
    assert late.loss is None
    assert late.auc is None


def test_who_watches_texts_is_told_that_a_backtest_does_not(project: Project, folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "texts")
    yaml = YAML()
    loop = yaml.load(file)
    loop["drift"]["text"] = ["tailnum"]
    yaml.dump(loop, file)
    wanted, said = Wanted(tick=HOUR, since=BEGAN, until=BEGAN + DAY), list[str]()

    policies = read_policies(project, LOOP, [file])
    backtest(project, policies, Recorded(events=recording(turn=8)), wanted, folder=folder, say=said.append)

    (line,) = [line for line in said if "texts" in line]
    assert line.startswith("texts: tailnum: texts and embeddings are not judged in a backtest")


def test_nothing_was_asked_then(project: Project, folder: Path) -> None:
    with pytest.raises(
        BacktestFailed, match=r"nothing was asked from 2014-01-01T00:00:00Z.*questions are of 2013-05-01"
    ):
        backtest(
            project,
            read_policies(project, LOOP, []),
            Recorded(events=recording(turn=8)),
            Wanted(tick=HOUR, since=from_rfc3339("2014-01-01T00:00:00Z")),
            folder=folder,
        )


def test_labels_by_prediction_id_alone_are_learned_as_the_streams_are(
    project: Project, found: list[Figures], folder: Path, tmp_path: Path
) -> None:
    """The same truths at the same times, of a loop whose label stream is silent."""
    events = recording(turn=8)
    (tmp_path / "lake").mkdir()
    shutil.copytree(recorded_lake(project, events, folder, tick=HOUR), tmp_path / "lake", dirs_exist_ok=True)
    shutil.copytree(project.path, tmp_path / "project")
    stream, loop = tmp_path / "project/streams/flights-landed.yaml", tmp_path / f"project/loops/{LOOP}.yaml"
    audited = stream.with_name("flights-audited.yaml")
    audited.write_text(stream.read_text().replace("stream: flights-landed", "stream: flights-audited"))
    loop.write_text(loop.read_text().replace("from: flights-landed", "from: flights-audited"))
    silent = load_project(tmp_path / "project")
    landed = events["flights-landed"]
    known = landed["known_at"].to_numpy() // HOUR * HOUR + HOUR
    ids = [derived_id(LOOP, flight) for flight in landed["flight_id"]]
    rows = events_table(
        table_schema(TOLD.event_schema),
        partition=0,
        offsets=list(range(len(ids))),
        event_times=known.tolist(),
        known_at=known.tolist(),
        ids=ids,
        events=[
            {"loop": LOOP, "prediction_id": id, "value": delay >= 15}
            for id, delay in zip(ids, landed["arr_delay"], strict=True)
        ],
    )
    lake = Lake(str(tmp_path / "lake"))
    lake.append(LABELS.name, [LakeBatch(partition=0, end=len(ids) - 1, rows=rows)], group="features-lake")

    [told] = backtest(silent, read_policies(silent, LOOP, []), lake.uri, Wanted(tick=HOUR), folder=tmp_path / "kept")

    learns = found[0]
    assert (told.retrains, told.promotions, told.loss, told.scored) == (
        learns.retrains,
        learns.promotions,
        learns.loss,
        learns.scored,
    )


def test_by_a_replays_clock_questions_are_early_and_events_late(project: Project, tmp_path: Path) -> None:
    events = recording(turn=8)

    lake = Lake(recorded_lake(project, events, tmp_path, tick=HOUR))

    asked, told = events["flights-scheduled"], events["flights-landed"]
    known = {
        name: read_events(lake, name, ["_known_at"])["_known_at"].dt.epoch("us").to_numpy()
        for name in ("flights-scheduled", "flights-landed")
    }
    assert known["flights-scheduled"].tolist() == (asked["known_at"].to_numpy() // HOUR * HOUR).tolist()
    assert known["flights-landed"].tolist() == (told["known_at"].to_numpy() // HOUR * HOUR + HOUR).tolist()
    assert recorded_lake(project, events, tmp_path, tick=HOUR) == lake.uri
    assert recorded_lake(project, events, tmp_path, tick=2 * HOUR) != lake.uri


def test_labels_that_were_judged_broken_are_not_learned() -> None:
    spec = RunSpec(
        loop=LOOP,
        run="r1",
        attempt=1,
        version="1",
        at=to_datetime(9 * HOUR),
        cause=Cause.SCHEDULE,
        request="labels-1",
        positions={},
        champion=None,
        broken_labels=((to_datetime(4 * HOUR), to_datetime(5 * HOUR)),),
    )
    hours = np.arange(8) * HOUR
    questions = np.array([f"f{n}" for n in range(8)], dtype=object)
    asked = Table(questions=questions, known_at=hours, labels=np.zeros(8, np.int8), columns=())
    past = Past(
        loop=LOOP,
        dataset=Dataset(table=asked, views={}, left_out={}),
        keys=[],
        entities=[],
        inputs={},
        features={},
        label_known_at=hours + 3 * HOUR,
        labels=[],
    )
    data = PastHistory(past, load_project(FLIGHTS).loops[LOOP]).read(spec)

    assert data.table.questions.tolist() == ["f0", "f3", "f4", "f5", "f6"]
    assert data.left_out == {"without_label": 1, "broken_labels": 2}


def test_a_policy_is_checked_as_the_project_is(project: Project, tmp_path: Path) -> None:
    assert [policy.name for policy in read_policies(project, LOOP, [])] == [CURRENT]
    with pytest.raises(BacktestFailed, match=r"no loop 'nope' in .*; found: flight-delay"):
        read_policies(project, "nope", [])
    with pytest.raises(BacktestFailed, match=r"none\.yaml: not there"):
        read_policies(project, LOOP, [tmp_path / "none.yaml"])
    wrong = write(tmp_path, "wrong", cooldown="soon")
    with pytest.raises(BadProject, match=rf"^{re.escape(str(wrong))}:\d+: retrain\.cooldown: 'soon' is no"):
        read_policies(project, LOOP, [wrong])
    other = tmp_path / "other.yaml"
    other.write_text(write(tmp_path, "alike").read_text().replace(f"loop: {LOOP}", "loop: another"))
    with pytest.raises(BacktestFailed, match=r"other\.yaml: declares loop another; a policy for 'flight-delay'"):
        read_policies(project, LOOP, [other])


def test_who_stops_before_anything_counts_is_told_since_when_it_would() -> None:
    march = from_rfc3339("2013-03-01T00:00:00Z")
    assert legend(march).endswith("loss and AUC: of the labelled answers to questions from 2013-03-01T00:00:00Z on")
    assert legend(None).endswith("loss and AUC: of the labelled answers")


def test_the_table_has_a_line_for_each_and_the_chart_is_svg(found: list[Figures], tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=StringIO())

    console.print(table(found))
    draw(found, tmp_path / "chart.svg")

    text = console.export_text()
    lines = text.splitlines()
    assert "…" not in text, "80 characters are enough"
    assert [line.split()[0] for line in lines if line.strip() and line.split()[0] in ("as", "same", "once")] == [
        "as",
        "same",
        "once",
    ]
    assert (tmp_path / "chart.svg").read_text().startswith("<?xml")
