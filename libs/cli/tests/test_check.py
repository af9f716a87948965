"""`millstream check`: what a person and what a program reads, and when it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from millstream.project import Stream, load_project
from millstream.project.told import TOLD
from millstream_cli.check import check
from millstream_cli.errors import CommandFailed
from millstream_cli.lake_labels import label_notes
from millstream_cli.lake_schemas import lake_problems
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "flights", ignore=shutil.ignore_patterns("data", "__pycache__")))


def replace(project: Path, file: str, right: str, wrong: str) -> None:
    text = (project / file).read_text()
    assert text.count(right) == 1
    (project / file).write_text(text.replace(right, wrong))


def test_the_flights_are_in_order(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(flights) == 0
    assert capsys.readouterr().out == f"✓ {flights}: 3 streams, 1 loop, nothing wrong\n"


def test_streams_and_features_alone_are_in_order(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(flights / "loops")
    assert check(flights) == 0
    assert capsys.readouterr().out == f"✓ {flights}: 3 streams, no loops, nothing wrong\n"


def test_a_program_reads_json(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(flights, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "problems": [],
        "notes": [],
        "streams": ["flights-departed", "flights-landed", "flights-scheduled"],
        "loops": ["flight-delay"],
    }


def test_a_holdout_that_may_never_have_a_label_is_noted(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(flights, "loops/flight-delay.yaml", "holdout: 7d", "holdout: 24h")
    assert check(flights) == 0, "labels may well come sooner than they have to"
    assert capsys.readouterr().out.splitlines()[1:] == [
        "! loops/flight-delay.yaml: train.holdout: 1d is not longer than label.within, 1d: where labels take as long as they "
        "may, nothing in the holdout has one and every run fails; write a holdout longer than 1d, or a shorter label.within "
        "where they come sooner"
    ]
    replace(flights, "loops/flight-delay.yaml", "holdout: 24h", "holdout: 25h")
    check(flights)
    assert "not longer than label.within" not in capsys.readouterr().out


@pytest.mark.parametrize("here", [True, False])
def test_a_loop_that_wants_pytorch_is_told_what_to_install(
    flights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    file = flights / "loops" / "flight-delay.yaml"
    loop = YAML().load(file)
    loop["model"] = {"estimator": "torch", "task": "binary", "params": {"hidden": [32]}}
    YAML().dump(loop, file)
    monkeypatch.setattr("millstream_cli.check.find_spec", lambda name: object() if here or name != "torch" else None)
    assert check(flights) == 0
    _, *said = capsys.readouterr().out.splitlines()
    note = (
        "loops/flight-delay.yaml: model: PyTorch is asked for, which needs torch beside the trainer, not installed here; "
        "pip install 'millstream-trainer[torch]'"
    )
    assert said == ([] if here else [f"! {note}"])
    check(flights, as_json=True)
    assert json.loads(capsys.readouterr().out)["notes"] == ([] if here else [note])


def test_a_feature_service_that_is_not_there_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = flights / "loops" / "flight-delay.yaml"
    loop.write_text(loop.read_text().replace("delay_v1", "delay_v0 # [bold]"))
    assert check(flights) == 2
    problem, count = capsys.readouterr().out.splitlines()
    line = loop.read_text().splitlines().index("  features: delay_v0 # [bold]") + 1
    assert problem == (
        f"loops/flight-delay.yaml:{line}: predict.features: no FeatureService 'delay_v0' in features/; found: delay_v1"
    )
    assert count == f"✗ {flights}: 1 problem"


def test_an_estimator_without_a_module_is_told_with_where_it_was_looked_for(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(flights, "loops/flight-delay.yaml", "estimator: lightgbm", "estimator: mymodels:build")
    text = (flights / "loops" / "flight-delay.yaml").read_text()
    line = text.splitlines().index("  estimator: mymodels:build") + 1
    assert check(flights) == 2
    where = f"loops/flight-delay.yaml:{line}: model.estimator"
    missing = f"no module 'mymodels': no mymodels.py in {flights}, and nothing of that name is installed here"
    assert capsys.readouterr().out.splitlines()[0] == f"{where}: {missing}; write mymodels.py there, or install it"
    (flights / "mymodel.py").write_text("raise SystemExit('nobody runs this to look for it')\n")
    assert check(flights) == 2
    assert "or install it; did you mean 'mymodel'?" in capsys.readouterr().out
    (flights / "mymodel.py").rename(flights / "mymodels.py")
    assert check(flights) == 0


@pytest.mark.parametrize(
    ("entry", "code"),
    [("models.trees:build", 0), ("models.forest:build", 2), ("sklearn.dummy:build", 0), ("__main__:build", 2)],
)
def test_a_module_in_a_package_is_looked_for_without_running_the_package(flights: Path, entry: str, code: int) -> None:
    (flights / "models").mkdir()
    (flights / "models" / "__init__.py").write_text("raise SystemExit('nobody runs this to look for it')\n")
    (flights / "models" / "trees.py").touch()
    replace(flights, "loops/flight-delay.yaml", "estimator: lightgbm", f"estimator: {entry}")
    assert check(flights) == code


def test_a_feature_over_a_field_that_no_event_has_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definitions = flights / "features" / "definitions.py"
    definitions.write_text(definitions.read_text().replace('"arr_delay", 3, TEN_MINUTES', '"arr_dely", 3, TEN_MINUTES'))
    assert check(flights) == 2
    problem, _ = capsys.readouterr().out.splitlines()
    line = definitions.read_text().splitlines().index('    "origin_landings",')
    assert problem == (
        f"features/definitions.py:{line + 1}: origin_landings.mean_delay_3h: no field 'arr_dely' in stream "
        "flights-landed to aggregate; did you mean 'arr_delay'? "
        "known: arr_delay, carrier, dep_delay, dest, flight_id, landed_at, origin, tailnum"
    )


def test_definitions_that_cannot_be_imported_are_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (flights / "features" / "definitions.py").write_text("import nothing_of_that_name\n")
    assert check(flights, as_json=True) == 2
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    [problem] = report["problems"]
    assert problem == {
        "file": "features/definitions.py",
        "line": 1,
        "path": "",
        "message": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
        "remedy": "correct it; `feast plan` in features/ shows the whole traceback",
    }


def test_one_import_that_fails_hides_no_other_mistake_of_its_file(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only lacks the import is not told beside it, and the loop's feature service is not called missing."""
    definitions = flights / "features" / "definitions.py"
    text = definitions.read_text().replace('"arr_delay", 3, TEN_MINUTES', '"arr_dely", 3, TEN_MINUTES')
    head, future, rest = text.partition("from __future__ import annotations\n")
    if not future:
        head, rest = "", text
    extra = "\nLONG = nothing_of_that_name.LONG\nlonger = LONG * 2\nwrong = 1 / 0\n"
    definitions.write_text(f"{head}{future}import nothing_of_that_name\n{rest}{extra}")
    assert check(flights, as_json=True) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [
        (one["path"], one["message"].partition(";")[0]) for one in problems if "arr_dely" not in one["message"]
    ] == [
        ("", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("", "ZeroDivisionError: division by zero"),
    ]
    [hidden] = [one for one in problems if "arr_dely" in one["message"]]
    assert hidden["path"] == "origin_landings.mean_delay_3h"


def test_a_store_class_that_does_not_exist_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = flights / "features" / "feature_store.yaml"
    store.write_text(store.read_text().replace("MillstreamOfflineStore", "MillstreamOflineStore"))
    assert check(flights) == 2
    assert "MillstreamOflineStore" in capsys.readouterr().out


def test_a_broken_stream_is_told_once_although_the_features_read_it_too(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = flights / "streams" / "flights-landed.yaml"
    stream.write_text(stream.read_text().replace("lateness: 2h", "lateness: two hours"))
    assert check(flights) == 2
    problem, count = capsys.readouterr().out.splitlines()
    assert problem.startswith("streams/flights-landed.yaml:7: lateness: 'two hours' is no duration; write ")
    assert count == f"✗ {flights}: 1 problem"


def test_a_slip_in_the_definitions_is_told_beside_those_in_the_streams(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(flights, "streams/flights-landed.yaml", "partitions: 1", "partitions: 0")
    replace(flights, "features/definitions.py", "departed = stream_source(", "departed = stream_sorce(")
    assert check(flights) == 2
    name, stream, _ = capsys.readouterr().out.splitlines()
    assert stream == "streams/flights-landed.yaml:8: partitions: 0 is out of range; write at least 1"
    assert name == (
        "features/definitions.py:14: NameError: name 'stream_sorce' is not defined; "
        "correct it; `feast plan` in features/ shows the whole traceback"
    )


def test_a_stream_that_only_the_definitions_miss_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(flights, "streams/flights-landed.yaml", "lateness: 2h", "lateness: two hours")
    replace(flights, "features/definitions.py", "flights-departed.yaml", "flights-departing.yaml")
    assert check(flights) == 2
    source, stream, _ = capsys.readouterr().out.splitlines()
    assert stream.startswith("streams/flights-landed.yaml:7: lateness: ")
    assert source.startswith("features/definitions.py:14: ")
    assert "flights-departing.yaml: cannot be read" in source


def test_mistakes_of_every_kind_are_told_in_one_go(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(flights, "streams/flights-departed.yaml", "minLength: 2", "minLenght: 2")
    replace(flights, "streams/flights-landed.yaml", "partitions: 1", "partitions: 0")
    replace(flights, "streams/flights-scheduled.yaml", "retention: 7d", "retension: 7d")
    replace(flights, "loops/flight-delay.yaml", "weekday, carrier", "weekdy, carrier")
    replace(flights, "loops/flight-delay.yaml", "within: 24h", "within: a day")
    replace(flights, "loops/flight-delay.yaml", "history: all", "history: 5d")
    replace(flights, "loops/flight-delay.yaml", "columns: all", "columns: [distance, distanse]")
    replace(flights, "features/definitions.py", '"arr_delay", 3, TEN_MINUTES', '"arr_dely", 3, TEN_MINUTES')
    replace(
        flights, "features/definitions.py", '[mean_delay("arr_delay", 24, HOUR),', '[mean_delay("tailnum", 24, HOUR),'
    )
    (flights / "loops" / "second.yaml").write_text("loop: [second\n")
    assert check(flights) == 2
    *problems, count = capsys.readouterr().out.splitlines()
    assert [problem.partition(" known: ")[0] for problem in problems] == [
        "features/definitions.py:95: aircraft_landings.mean_delay_24h: mean of 'tailnum', which is string; "
        "aggregate a number or an integer, or count",
        "features/definitions.py:98: origin_landings.mean_delay_3h: no field 'arr_dely' in stream flights-landed "
        "to aggregate; did you mean 'arr_delay'?",
        "loops/flight-delay.yaml:8: predict.inputs[2]: no field 'weekdy' in stream flights-scheduled; "
        "did you mean 'weekday'?",
        "loops/flight-delay.yaml:14: label.within: 'a day' is no duration; "
        "write days, hours, minutes, seconds like 30d, 2h, 90m, 45s or 1h30m",
        "loops/flight-delay.yaml:24: train.holdout: the holdout takes the whole history, nothing is left to fit; "
        "write a holdout shorter than train.history",
        "loops/flight-delay.yaml:38: drift.columns[1]: 'distanse' is neither an input nor a feature; "
        "did you mean 'distance'?",
        "loops/second.yaml:2: is not YAML (expected ',' or ']', but got '<stream end>'); "
        "check indentation, quotes and colons here",
        "streams/flights-departed.yaml:19: schema.properties.carrier.minLenght: unknown JSON Schema keyword 'minLenght'; "
        "did you mean 'minLength'? own annotations start with x-",
        "streams/flights-landed.yaml:8: partitions: 0 is out of range; write at least 1",
        "streams/flights-scheduled.yaml:9: retension: unknown key 'retension'; did you mean 'retention'?",
    ]
    assert count == f"✗ {flights}: 10 problems"


def test_all_views_that_cannot_be_computed_are_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(flights, "features/definitions.py", 'function="mean"', 'function="median"')
    replace(flights, "loops/flight-delay.yaml", "within: 24h", "within: a day")
    assert check(flights) == 2
    *views, loop, count = capsys.readouterr().out.splitlines()
    assert loop.startswith("loops/flight-delay.yaml:14: label.within: 'a day' is no duration; write ")
    assert len(views) == 15
    assert views[-1] == (
        "features/definitions.py:98: origin_landings: aggregation 'mean_delay_3h': no function 'median'; "
        "there are count, sum, mean, min, max, var, std, first, last, last_5 (the latest five values), count_distinct, "
        "p50, p90, p99"
    )
    assert count == f"✗ {flights}: 16 problems"


def test_a_view_that_cannot_be_computed_hides_nothing_of_the_others(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(flights, "features/definitions.py", "for hours in (1, 3)]", "for hours in (1, 3, 3)]")
    replace(flights, "features/definitions.py", 'view("dest_landings", landed', 'view("Dest_departures", landed')
    replace(flights, "features/definitions.py", '"arr_delay", 3, TEN_MINUTES', '"arr_dely", 3, TEN_MINUTES')
    replace(flights, "features/definitions.py", 'flights-departed.yaml")', 'flights-departed.yaml", lateness="90m")')
    replace(flights, "loops/flight-delay.yaml", "features: delay_v1", "features: delay_v0")
    replace(flights, "loops/flight-delay.yaml", "weekday, carrier", "weekdy, carrier")
    assert check(flights) == 2
    *problems, count = capsys.readouterr().out.splitlines()
    late = "its lateness is 1:30:00, that of stream flights-departed is 2:00:00; write stream_source('../streams/FILE.yaml') "
    assert [problem.partition(": ")[2].partition(" known: ")[0] for problem in problems] == [
        f"origin_departures: {late}without lateness=, which takes it from there",
        f"carrier_departures: {late}without lateness=, which takes it from there",
        "origin_carrier_departures: two aggregations are called 'mean_delay_3h'; give one of them a name=...",
        f"dest_departures: {late}without lateness=, which takes it from there",
        f"aircraft_departures: {late}without lateness=, which takes it from there",
        "Dest_departures: 2 views have this name, another in definitions.py:88; give each one of its own",
        "origin_landings.mean_delay_3h: no field 'arr_dely' in stream flights-landed to aggregate; did you mean 'arr_delay'?",
        "predict.inputs[2]: no field 'weekdy' in stream flights-scheduled; did you mean 'weekday'?",
    ]
    assert count == f"✗ {flights}: 8 problems"


def test_a_folder_that_is_no_project_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "nowhere") == 2
    assert capsys.readouterr().out == (
        f"✗ {tmp_path / 'nowhere'}: no such folder; name a project folder, with streams/, features/ and, for "
        "models, loops/ in it\n"
    )
    assert check(tmp_path) == 2
    assert "features/feature_store.yaml: is missing" in capsys.readouterr().out


def test_a_loop_that_was_asked_and_never_told_gets_a_word(
    flights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, lake = load_project(flights), Lake(str(tmp_path / "lake"))

    def add(stream: Stream, event: dict[str, object]) -> None:
        rows = events_table(
            table_schema(stream.event_schema),
            partition=0,
            offsets=[0],
            event_times=[0],
            known_at=[0],
            ids=["a"],
            events=[event],
        )
        lake.append(stream.name, [LakeBatch(partition=0, end=0, rows=rows)], group="features-lake")

    assert label_notes(project, lake.uri) == [], "nobody has asked"
    add(project.streams["flights-scheduled"], {"flight_id": "a"})
    assert check(flights, lake=lake.uri) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "! loops/flight-delay: label: the lake has questions of flights-scheduled and no label, neither from flights-landed "
        "nor by prediction id (POST /v1/loops/flight-delay/labels of ingest); without one of them no model is trained"
    ]
    add(TOLD, {"loop": "flight-delay", "prediction_id": "b", "value": True})
    assert label_notes(project, lake.uri) == []


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_the_streams_are_held_against_what_the_lake_has_of_them(
    flights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    rows = table_schema({"properties": {"seats": {"type": "number"}}}).empty_table()
    lake = Lake(str(tmp_path / "lake"))
    lake.append("flights-landed", [LakeBatch(partition=0, end=0, rows=rows)], group="features-lake")
    file = flights / "streams" / "flights-landed.yaml"
    replace(flights, "streams/flights-landed.yaml", "  examples:\n", f"    seats: {{ type: {kind} }}\n  examples:\n")
    problems = lake_problems(flights, lake.uri)
    if kind == "integer":
        assert problems == [], "a whole number is a number"
        return
    assert check(flights, lake=lake.uri) == 2
    line = file.read_text().splitlines().index(f"    seats: {{ type: {kind} }}") + 1
    assert capsys.readouterr().out.splitlines()[-2] == (
        f"streams/flights-landed.yaml:{line}: schema.properties.seats: 'seats' is a number in the lake and text "
        "in the stream's schema; give the field a new name, or the events a new stream"
    )
    with pytest.raises(CommandFailed, match="the address carries credentials") as refused:
        lake_problems(flights, "s3://user:secret@mill/lake")
    assert "secret" not in str(refused.value)


def test_the_lake_refuses_a_changed_type_whatever_the_views_say_of_it(
    flights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    landed = load_project(flights).streams["flights-landed"]
    rows = table_schema(landed.event_schema).empty_table()
    lake = Lake(str(tmp_path / "lake"))
    lake.append("flights-landed", [LakeBatch(partition=0, end=0, rows=rows)], group="features-lake")
    replace(flights, "streams/flights-landed.yaml", "arr_delay: { type: number", "arr_delay: { type: string")
    assert check(flights, as_json=True, lake=lake.uri) == 2
    said = json.loads(capsys.readouterr().out)["problems"]
    assert any(one["file"].startswith("features/") and "arr_delay" in one["message"] for one in said)
    assert [(one["file"], one["path"], one["remedy"]) for one in said if "in the lake" in one["message"]] == [
        (
            "streams/flights-landed.yaml",
            "schema.properties.arr_delay",
            "give the field a new name, or the events a new stream",
        )
    ]

    assert check(flights, lake="s3://user:secret@mill/lake") == 2
    out, err = capsys.readouterr()
    assert "arr_delay" in out
    assert err.startswith("millstream: lake s3://…@mill: the address carries credentials")
    assert check(tmp_path / "nowhere", lake=lake.uri) == 2
    shutil.rmtree(flights / "streams")
    assert check(flights, lake=lake.uri) == 2
