"""Whole projects: a good one loads, and each mistake is told with file, line, path and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from millstream.contracts.times import DAY, HOUR
from millstream.project import BadProject, load_project
from millstream.project.phrases import Budget, Confirm

ASKED = """\
stream: flights-scheduled
description: The question.
key: flight_id
id: flight_id
time: asked_at
schema:
  type: object
  required: [flight_id, asked_at]
  properties:
    flight_id: {type: string}
    asked_at: {type: string, format: date-time}
    origin: {type: string}
    distance: {type: [number, "null"]}
    crew: {type: array}
"""
LANDED = """\
stream: flights-landed
description: A flight arrived.
key: tailnum
id: flight_id
time: landed_at
lateness: 1h
schema:
  type: object
  required: [flight_id, tailnum, landed_at]
  properties:
    flight_id: {type: string}
    tailnum: {type: string}
    origin: {type: string}
    landed_at: {type: string, format: date-time}
    arr_delay: {type: number}
    on_time: {type: boolean}
"""
LOOP = """\
loop: flight-delay
predict:
  on: flights-scheduled
  features: delay_v1
  inputs: [distance, origin]
label:
  from: flights-landed
  by: flight_id
  value: arr_delay >= 15
  within: 24h
model: {estimator: lightgbm, task: binary, params: {num_leaves: 31}}
train: {history: all, holdout: 7d, first_after: {rows: 20000}, schedule: 30d}
gate: {metric: log_loss}
drift: {window: 5000, columns: all, confirm: 2 of 3, performance: {drop: 5%}}
retrain:
  cooldown: 14d
  budget: 2 per 30d
  on: [drift, performance, schedule, manual]
"""
FILES = {
    "streams/flights-scheduled.yaml": ASKED,
    "streams/flights-landed.yaml": LANDED,
    "loops/flight-delay.yaml": LOOP,
    "features/feature_store.yaml": "project: flights\n",
}
SCHEDULED_FILE, LANDED_FILE, LOOP_FILE, STORE_FILE = FILES


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    name: str
    function: str
    column: str


@dataclass(frozen=True, kw_only=True)
class View:
    stream: str
    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    where: str | None = None
    time_field: str = "landed_at"
    lateness: int = HOUR
    event_id: str | None = "flight_id"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    services: Mapping[str, tuple[str, ...]]
    views: Mapping[str, View]
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)


MEAN = Aggregate(name="mean_delay_3h", function="mean", column="arr_delay")
FEATURES = Catalogue(
    services={"delay_v1": ("origin_landings__mean_delay_3h",)},
    views={"origin_landings": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,))},
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the good project with some files replaced; None leaves a file out."""

    def write(changes: Mapping[str, str | bytes | None] | None = None) -> Path:
        for name, text in (FILES | dict(changes or {})).items():
            if text is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def complaints(project: Path, catalogue: Catalogue | None = FEATURES) -> list[str]:
    with pytest.raises(BadProject) as bad:
        load_project(project, catalogue)
    assert str(bad.value).splitlines() == [str(problem) for problem in bad.value.problems]
    return [str(problem) for problem in bad.value.problems]


def test_a_good_project_loads(write: Write) -> None:
    project = load_project(write(), FEATURES)
    assert sorted(project.streams) == ["flights-landed", "flights-scheduled"]
    assert project.features_path == project.path / "features"
    loop = project.loops["flight-delay"]
    assert loop.predict.inputs == ("distance", "origin")
    assert (loop.label.stream, loop.label.within) == ("flights-landed", 24 * HOUR)
    assert loop.label.value({"arr_delay": 20}) is True
    assert (loop.train.history, loop.train.holdout, loop.train.schedule) == (("all",), 7 * DAY, 30 * DAY)
    assert (loop.drift.columns, loop.drift.confirm) == (None, Confirm(agree=2, windows=3))
    assert loop.drift.performance.drop == 0.05
    assert loop.retrain.budget == Budget(runs=2, period=30 * DAY)
    assert loop.model.params.booster()["num_leaves"] == 31


def test_a_question_is_told_apart_by_the_streams_id_unless_the_loop_says_otherwise(write: Write) -> None:
    event = {"flight_id": "UA1545", "origin": "EWR"}
    assert load_project(write()).loops["flight-delay"].predict.id_of(event) == "UA1545"
    own = LOOP.replace("  inputs:", "  id: origin\n  inputs:")
    predict = load_project(write({LOOP_FILE: own})).loops["flight-delay"].predict
    assert (predict.id, predict.id_of(event)) == ("origin", "EWR")


def test_question_and_outcome_meet_by_one_key(write: Write) -> None:
    label = load_project(write()).loops["flight-delay"].label
    assert label.key_of({"flight_id": "UA1545"}) == "UA1545"


def test_a_loop_needs_little_more_than_question_and_label(write: Write) -> None:
    short = LOOP[: LOOP.index("model:")]
    loop = load_project(write({LOOP_FILE: short})).loops["flight-delay"]
    assert (loop.retrain.cooldown, loop.train.first_after.rows, loop.gate.tolerance) == (3 * DAY, 20_000, 0.0)


def test_both_endings_of_yaml_are_read_and_nothing_else(write: Write) -> None:
    project = write(
        {SCHEDULED_FILE: None, "streams/asked.yml": ASKED, "streams/notes.txt": "?", "loops/.swp.yaml": "["}
    )
    assert sorted(load_project(project).streams) == ["flights-landed", "flights-scheduled"]


MISTAKES = YAML(typ="safe").load(Path(__file__).with_name("project_mistakes.yaml"))


@pytest.mark.parametrize(
    ("file", "mistake"),
    [pytest.param(file, one, id=one["wrong"][:40]) for file, several in MISTAKES.items() for one in several],
)
def test_one_mistake_is_told_once_with_its_line_and_what_to_write(
    write: Write, file: str, mistake: dict[str, str]
) -> None:
    assert mistake["right"] in FILES[file]
    said = complaints(write({file: FILES[file].replace(mistake["right"], mistake["wrong"])}))
    assert [line.replace(f"{file}:", "line ", 1) for line in said] == [mistake["says"]]


def test_two_files_cannot_claim_one_topic(write: Write) -> None:
    again = LANDED.replace("description", "# the same again\ndescription")
    loop = "# a copy\n" + LOOP
    assert complaints(write({"streams/landed.yml": again, "loops/other.yaml": loop})) == [
        "loops/other.yaml:2: loop: 'flight-delay' is already declared in loops/flight-delay.yaml:1; "
        "rename or remove one of them",
        "streams/landed.yml:1: stream: 'flights-landed' is already declared in streams/flights-landed.yaml:1; "
        "rename or remove one of them",
    ]


def test_the_key_of_question_and_outcome_has_one_type(write: Write) -> None:
    landed = LANDED.replace("flight_id: {type: string}", "flight_id: {type: integer}")
    assert complaints(write({LANDED_FILE: landed})) == [
        "loops/flight-delay.yaml:8: label.by: 'flight_id' is string in flights-scheduled and integer in flights-landed; "
        "write the same type in both streams"
    ]


def test_the_key_of_the_outcome_is_in_every_event_and_never_null(write: Write) -> None:
    loop = LOOP.replace("by: flight_id", "by: origin")
    assert complaints(write({LOOP_FILE: loop})) == [
        "loops/flight-delay.yaml:8: label.by: 'origin' is not in every event of stream flights-landed; "
        "add origin to required in streams/",
        "loops/flight-delay.yaml:8: label.by: 'origin' is not in every event of stream flights-scheduled; "
        "add origin to required in streams/",
    ]
    nullable = [text.replace("origin: {type: string}", "origin: {type: [string, 'null']}") for text in (ASKED, LANDED)]
    changes = {SCHEDULED_FILE: nullable[0], LANDED_FILE: nullable[1], LOOP_FILE: loop}
    assert complaints(write(changes)) == [
        f"loops/flight-delay.yaml:8: label.by: 'origin' of stream {stream} cannot be a key; "
        "name a field of type string or integer, without null"
        for stream in ("flights-landed", "flights-scheduled")
    ]


def test_a_question_without_an_id_cannot_be_answered_once(write: Write) -> None:
    assert complaints(write({SCHEDULED_FILE: ASKED.replace("id: flight_id\n", "", 1)})) == [
        "loops/flight-delay.yaml:2: predict: nothing tells one question from another; "
        "write predict.id, or id in the stream flights-scheduled"
    ]


def test_the_asking_event_carries_what_features_are_looked_up_by(write: Write) -> None:
    by_aircraft = View(stream="flights-landed", keys=("tailnum",), aggregates=(MEAN,))
    catalogue = Catalogue(services={"delay_v1": ("aircraft__mean_delay_3h",)}, views={"aircraft": by_aircraft})
    assert complaints(write(), catalogue) == [
        "loops/flight-delay.yaml:4: predict.features: FeatureService 'delay_v1' is looked up by 'tailnum', "
        "which stream flights-scheduled does not carry; known: asked_at, crew, distance, flight_id, origin"
    ]


def test_views_fit_the_streams_that_they_aggregate(write: Write) -> None:
    def mean(column: str, function: str = "mean") -> tuple[Aggregate, ...]:
        return (Aggregate(name="x", function=function, column=column),)

    views = {
        "ok": View(stream="flights-landed", keys=("origin",), aggregates=mean("tailnum", "count")),
        "events": View(stream="flights-landed", keys=("origin",), aggregates=(*mean("", "count"), *mean("*", "count"))),
        "a": View(stream="flights-land", keys=(), aggregates=()),
        "b": View(stream="flights-landed", keys=("orgin",), aggregates=mean("arr_dely")),
        "c": View(stream="flights-landed", keys=("origin",), aggregates=mean("tailnum")),
        "planes": View(stream="flights-landed", keys=("origin",), aggregates=mean("tailnum", "count_distinct")),
        "punctual": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), where="on_time"),
        "d": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), where="tailnum > 3 and arr_dely < 1"),
        "e": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), where="not tailnum"),
        "f": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), where="arr_delay"),
        "g": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), time_field="left_at"),
        "h": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), lateness=2 * HOUR),
        "i": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), event_id=None),
    }
    assert complaints(write(), Catalogue(services={"delay_v1": ()}, views=views)) == [
        "features: a: no stream 'flights-land' in streams/; did you mean 'flights-landed'? "
        "known: flights-landed, flights-scheduled",
        "features: b: no field 'orgin' in stream flights-landed to join by; did you mean 'origin'? "
        "known: arr_delay, flight_id, landed_at, on_time, origin, tailnum",
        "features: b.x: no field 'arr_dely' in stream flights-landed to aggregate; did you mean 'arr_delay'? "
        "known: arr_delay, flight_id, landed_at, on_time, origin, tailnum",
        "features: c.x: mean of 'tailnum', which is string; aggregate a number or an integer, or count",
        "features: d.where: no field 'arr_dely' in stream flights-landed; did you mean 'arr_delay'? "
        "known: arr_delay, flight_id, landed_at, on_time, origin, tailnum",
        "features: e.where: 'not tailnum' needs a truth and 'tailnum' of stream flights-landed is string; "
        "compare like with like",
        "features: f.where: 'arr_delay' is not true or false; compare it, like arr_delay > 0",
        "features: g: its time is 'left_at', that of stream flights-landed is 'landed_at'; write timestamp_field='landed_at'",
        "features: h: its lateness is 2:00:00, that of stream flights-landed is 1:00:00; "
        "write stream_source('../streams/FILE.yaml') without lateness=, which takes it from there",
        "features: i: it knows no id of its events, that of stream flights-landed is 'flight_id'; "
        "write stream_source('../streams/FILE.yaml'), or id='flight_id': else what is told twice counts twice",
    ]


def test_a_lateness_that_cannot_be_read_is_held_against_no_view(write: Write) -> None:
    views = {"a": View(stream="flights-landed", keys=("origin",), aggregates=(MEAN,), lateness=3 * HOUR)}
    changes = {LANDED_FILE: LANDED.replace("lateness: 1h", "lateness: three hours")}
    [told] = complaints(write(changes), Catalogue(services={"delay_v1": ()}, views=views))
    assert told.startswith("streams/flights-landed.yaml:6: lateness: 'three hours' is no duration")


def test_a_view_that_was_found_by_its_name_is_told_with_its_line(write: Write) -> None:
    views = {"a": View(stream="flights-land", keys=(), aggregates=())}
    catalogue = Catalogue(services={"delay_v1": ()}, views=views, places={"a": ("views.py", 7)})
    assert complaints(write(), catalogue) == [
        "features/views.py:7: a: no stream 'flights-land' in streams/; did you mean 'flights-landed'? "
        "known: flights-landed, flights-scheduled"
    ]


def test_without_a_catalogue_the_features_are_taken_on_trust(write: Write) -> None:
    loop = LOOP.replace("delay_v1", "delay_v2").replace("columns: all", "columns: [whatever]")
    assert load_project(write({LOOP_FILE: loop})).loops["flight-delay"].drift.columns == ("whatever",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "streams/flights-landed.yaml: is empty; write the declaration, or remove the file"),
        (b"# soon\n", "streams/flights-landed.yaml: is empty; write the declaration, or remove the file"),
        (b"null\n", "streams/flights-landed.yaml: is empty; write the declaration, or remove the file"),
        (b"\n- a\n", "streams/flights-landed.yaml:2: is not a mapping; write keys and values, like stream: my-stream"),
        (b"stream: a\nkey: \xff\n", "streams/flights-landed.yaml:2: is not UTF-8; save it as UTF-8"),
        (b"stream: \x00", "streams/flights-landed.yaml: is not YAML (unacceptable character #x0000: special characters "
         "are not allowed); check indentation, quotes and colons"),
        (b"#" * 300_000, "streams/flights-landed.yaml: is larger than 256 KiB; keep project files to what a person writes"),
        (b"stream: " + b"[" * 900, "streams/flights-landed.yaml: is nested deeper than 40 levels; write it flatter"),
        (b"a: 1\n---\nb: 2\n", "streams/flights-landed.yaml:2: is not YAML (but found another document); "
         "check indentation, quotes and colons here"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_declaration_is_told(write: Write, content: bytes, complaint: str) -> None:
    assert complaints(write({LANDED_FILE: content})) == [complaint]


@pytest.mark.parametrize(
    "bomb",
    [
        "schema: &a [*a, *a]\n",
        "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '1'] * 9)}]\n" for i in range(12)),
        "schema: " + "[" * 60 + "]" * 60 + "\n",
    ],
)
def test_a_few_lines_that_stand_for_billions_are_refused(write: Write, bomb: str) -> None:
    [complaint] = complaints(write({LANDED_FILE: bomb}))
    assert complaint.endswith("write it flatter, with fewer aliases")


def test_a_short_anchor_is_welcome(write: Write) -> None:
    landed = LANDED.replace("tailnum: {type: string}", "tailnum: &text {type: string}").replace(
        "origin: {type: string}", "origin: *text"
    )
    assert load_project(write({LANDED_FILE: landed})).streams["flights-landed"].types_of("origin") == {"string"}


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert complaints(tmp_path / "nowhere") == [
        f"{tmp_path / 'nowhere'}: no such folder; name a project folder, with streams/, features/ and, for models, "
        "loops/ in it"
    ]
    assert complaints(tmp_path) == [
        "features/feature_store.yaml: is missing; create the Feast repo of the project there, which begins with this: "
        "{project: NAME, online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}, "
        "offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}}",
        "streams: folder cannot be read (No such file or directory); create streams/ with one .yaml file each",
    ]


def test_streams_and_features_alone_are_a_project(write: Write) -> None:
    project = write({LOOP_FILE: None})
    assert not (project / "loops").exists()
    found = load_project(project)
    assert found.loops == {}
    assert set(found.streams) == {"flights-scheduled", "flights-landed"}
    (project / "loops").write_text("no folder")
    assert complaints(project, None) == [
        "loops: folder cannot be read (Not a directory); create loops/ with one .yaml file each"
    ]


def test_a_project_without_a_stream_is_told(write: Write) -> None:
    project = write({SCHEDULED_FILE: None, LANDED_FILE: None, LOOP_FILE: None, "loops/notes.md": ""})
    (project / "streams").mkdir()
    assert complaints(project, None) == ["streams: no stream; declare at least one stream in a .yaml file there"]


def test_a_folder_in_a_files_place_is_told(write: Write) -> None:
    project = write({LANDED_FILE: None})
    (project / LANDED_FILE).mkdir()
    assert complaints(project) == [
        "streams/flights-landed.yaml: cannot be read (Is a directory); make it a readable file"
    ]


def test_the_flights_example_loads() -> None:
    project = load_project(Path(__file__).parents[3] / "examples" / "flights")
    assert sorted(project.streams) == ["flights-departed", "flights-landed", "flights-scheduled"]
    assert list(project.loops) == ["flight-delay"]
