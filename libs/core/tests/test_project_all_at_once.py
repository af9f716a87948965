"""However many mistakes a project has, one look tells them all, and none that is only the consequence of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.project import BadProject, load_project

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"
FILES = {
    path.relative_to(EXAMPLE).as_posix(): path.read_text()
    for path in sorted([*EXAMPLE.glob("streams/*.yaml"), *EXAMPLE.glob("loops/*.yaml")])
}
DEPARTED, LANDED, SCHEDULED = (f"streams/flights-{name}.yaml" for name in ("departed", "landed", "scheduled"))
LOOP = "loops/flight-delay.yaml"
FEATURES = SimpleNamespace(services={"delay_v1": ("origin_landings__mean_delay_3h",)}, views={}, places={})

SLIPS = [
    (DEPARTED, "key: tailnum", "key: tailnumber", "schema.properties"),
    (DEPARTED, "id: flight_id", "id: carier", "schema.properties"),
    (DEPARTED, "lateness: 2h", "lateness: two hours", "lateness"),
    (DEPARTED, "retention: 7d", "retension: 7d", "retension"),
    (DEPARTED, "type: object", "type: array", "schema.type"),
    (DEPARTED, "[flight_id, departed_at, tailnum,", "[flight_id, departed_at, tail,", "schema.required[2]"),
    (DEPARTED, "departed_at: { type: string,", "departed_at: { type: integer,", "schema.properties.departed_at"),
    (DEPARTED, 'origin: { type: string, pattern: "^', 'origin: { pattern: "(?=a)', "schema.properties.origin.pattern"),
    (DEPARTED, 'dest: { type: string, pattern: "^[A-Z]{3}$" }', 'dest: { $ref: "#/$defs/a" }', "schema.properties.dest.$ref"),
    (DEPARTED, "minLength: 2", "minLenght: 2", "schema.properties.carrier.minLenght"),
    (DEPARTED, "maxLength: 3", "maxLength: many", "schema.properties.carrier.maxLength"),
    (DEPARTED, "dep_delay: { type: number", "dep_delay: { type: numbr", "schema.properties.dep_delay.type"),
    (LANDED, "partitions: 1 ", "partitions: 0 ", "partitions"),
    (LANDED, "description: A flight arrived", "descripton: A flight arrived", "descripton"),
    (SCHEDULED, "retention: 7d", "retention: !days 7", "retention"),
    (LOOP, "loop: flight-delay", "loop: Flight", "loop"),
    (LOOP, "on: flights-scheduled", "on: flights-scheduled\n  entities: []", "predict.entities"),
    (LOOP, "features: delay_v1", "features: delay_v2", "predict.features"),
    (LOOP, "[distance, scheduled_minute", "[distanse, announced_at", "predict.inputs[0]", "predict.inputs[1]"),
    (LOOP, "by: flight_id", "by: flight", "label.by", "label.by"),
    (LOOP, "value: arr_delay >= 15", "value: arr_dely - 15", "label.value", "label.value"),
    (LOOP, "within: 24h", "within: a day", "label.within"),
    (LOOP, "num_leaves: 31", "num_leave: 31", "model.params.num_leave"),
    (LOOP, "history: all", "history: 5d", "train.holdout"),
    (LOOP, "schedule: 23d", "schedule: 10d", "train.schedule"),
    (LOOP, "metric: log_loss\n", "metric: auc\n", "gate.metric"),
    (LOOP, "window: 5000", "window: 5", "drift.window"),
    (LOOP, "confirm: 2 of 3", "confirm: 3 of 2", "drift.confirm"),
    (LOOP, "budget: 2 per 30d", "budget: 2", "retrain.budget"),
    (LOOP, "schedule, manual]", "schedule, drift]", "retrain.on"),
]  # fmt: skip
"""One slip of the keyboard each: file, what was right, what is wrong, and the paths that are told. None rests on another."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project")
    for name in ("streams", "loops", "features"):
        (path / name).mkdir()
    (path / "features" / "feature_store.yaml").write_text("project: flights\n")
    return path


def told(folder: Path, changes: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    """What is said about the flights with some text replaced."""
    for file, text in FILES.items():
        for right, wrong in changes.get(file, []):
            assert text.count(right) == 1, f"{right!r} in {file}"
            text = text.replace(right, wrong)
        (folder / file).write_text(text)
    with pytest.raises(BadProject) as bad:
        load_project(folder, FEATURES)
    return [str(problem) for problem in bad.value.problems]


def where(problem: str) -> tuple[str, str]:
    place, path, _ = problem.split(": ", 2)
    return place.partition(":")[0], path


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip[2])
def test_a_slip_is_told_alone(folder: Path, slip: tuple[str, ...]) -> None:
    file, right, wrong, *paths = slip
    assert [where(problem) for problem in told(folder, {file: [(right, wrong)]})] == [(file, path) for path in paths]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(SLIPS), min_size=2, max_size=12, unique=True))
def test_slips_that_come_together_are_all_told(folder: Path, slips: list[tuple[str, ...]]) -> None:
    changes: dict[str, list[tuple[str, str]]] = {}
    for file, right, wrong, *_ in slips:
        changes.setdefault(file, []).append((right, wrong))
    expected = [(file, path) for file, _, _, *paths in slips for path in paths]
    assert sorted(where(problem) for problem in told(folder, changes)) == sorted(expected)


def test_every_slip_at_once_word_for_word(folder: Path) -> None:
    changes: dict[str, list[tuple[str, str]]] = {}
    for file, right, wrong, *_ in SLIPS:
        changes.setdefault(file, []).append((right, wrong))
    assert [problem.partition(" known: ")[0] for problem in told(folder, changes)] == [
        "loops/flight-delay.yaml:2: loop: 'Flight' is no name; write lowercase letters, digits and single "
        "dashes, like flights-departed",
        "loops/flight-delay.yaml:7: predict.entities: unknown key 'entities';",
        "loops/flight-delay.yaml:8: predict.features: no FeatureService 'delay_v2' in features/; found: delay_v1",
        "loops/flight-delay.yaml:9: predict.inputs[0]: no field 'distanse' in stream flights-scheduled; did "
        "you mean 'distance'?",
        "loops/flight-delay.yaml:9: predict.inputs[1]: 'announced_at' is the event time, which only ever "
        "grows; let the producer send what matters of it, like the minute of the day",
        "loops/flight-delay.yaml:13: label.by: no field 'flight' in stream flights-landed; did you mean 'flight_id'?",
        "loops/flight-delay.yaml:13: label.by: no field 'flight' in stream flights-scheduled; did you mean "
        "'flight_id'?",
        "loops/flight-delay.yaml:14: label.value: 'arr_dely - 15' is a number, and task binary learns true "
        "or false; compare it, like arr_delay >= 15",
        "loops/flight-delay.yaml:14: label.value: no field 'arr_dely' in stream flights-landed; did you mean "
        "'arr_delay'?",
        "loops/flight-delay.yaml:15: label.within: 'a day' is no duration; write days, hours, minutes, "
        "seconds like 30d, 2h, 90m, 45s or 1h30m",
        "loops/flight-delay.yaml:21: model.params.num_leave: unknown key 'num_leave'; did you mean 'num_leaves'?",
        "loops/flight-delay.yaml:25: train.holdout: the holdout takes the whole history, nothing is left to "
        "fit; write a holdout shorter than train.history",
        "loops/flight-delay.yaml:27: train.schedule: shorter than retrain.cooldown, so most scheduled runs "
        "would be declined; write a longer one, or a shorter cooldown",
        "loops/flight-delay.yaml:30: gate.metric: unknown 'auc';",
        "loops/flight-delay.yaml:38: drift.window: 5 is out of range; write at least 100",
        "loops/flight-delay.yaml:41: drift.confirm: '3 of 2' can never be true; write the smaller number "
        "first, like 2 of 3",
        "loops/flight-delay.yaml:46: retrain.budget: 2 is no budget; write it like 4 per 30d",
        "loops/flight-delay.yaml:47: retrain.on: 'drift' stands there twice; name it once",
        "streams/flights-departed.yaml:7: lateness: 'two hours' is no duration; write days, hours, minutes, "
        "seconds like 30d, 2h, 90m, 45s or 1h30m",
        "streams/flights-departed.yaml:9: retension: unknown key 'retension'; did you mean 'retention'?",
        "streams/flights-departed.yaml:11: schema.type: events are JSON objects; write type: object",
        "streams/flights-departed.yaml:12: schema.required[2]: 'tail' is not in properties; declare it under "
        "properties; did you mean 'tailnum'?",
        "streams/flights-departed.yaml:13: schema.properties: the id field 'carier' is not in properties; "
        "did you mean 'carrier'?",
        "streams/flights-departed.yaml:13: schema.properties: the key field 'tailnumber' is not in "
        "properties; did you mean 'tailnum'?",
        "streams/flights-departed.yaml:15: schema.properties.departed_at: the time field 'departed_at' is "
        "not an RFC 3339 time; write {type: string, format: date-time}",
        "streams/flights-departed.yaml:17: schema.properties.origin.pattern: '(?=a)[A-Z]{3}$' is no pattern that we "
        "run; write a regular expression without look-around and back-references",
        "streams/flights-departed.yaml:18: schema.properties.dest.$ref: '#/$defs/a' leads nowhere; refer to #/$defs;",
        'streams/flights-departed.yaml:19: schema.properties.carrier.maxLength: "many" is not of type '
        '"integer"; write what JSON Schema 2020-12 allows there',
        "streams/flights-departed.yaml:19: schema.properties.carrier.minLenght: unknown JSON Schema keyword "
        "'minLenght'; did you mean 'minLength'? own annotations start with x-",
        "streams/flights-departed.yaml:20: schema.properties.dep_delay.type: unknown type 'numbr'; did you "
        "mean 'number'?",
        "streams/flights-landed.yaml:3: descripton: unknown key 'descripton'; did you mean 'description'?",
        "streams/flights-landed.yaml:8: partitions: 0 is out of range; write at least 1",
        "streams/flights-scheduled.yaml:9: retention: tag '!days' is not allowed; write plain text, numbers, "
        "lists and keys",
    ]


@pytest.mark.parametrize(
    ("file", "changes", "path"),
    [
        (LOOP, {"cooldown: 20d": "cooldown: soon", "schedule: 23d": "schedule: 2d"}, "retrain.cooldown"),
        (LOOP, {"cooldown: 20d": "coldown: 20d", "schedule: 23d": "schedule: 2d"}, "retrain.coldown"),
        (LOOP, {"schedule: 23d": "schedule: monthly"}, "train.schedule"),
        (LOOP, {"schedule: 23d": "schedul: 30d"}, "train.schedul"),
        (LOOP, {"history: all": "history: 5d", "holdout: 7d": "holdout: short"}, "train.holdout"),
        (LOOP, {"\nretrain:": "\nretrian:", "schedule: 23d": "schedule: 2d"}, "retrian"),
        (LOOP, {"\npredict:": "\npredit:"}, "predit"),
        (LOOP, {"  on: flights-scheduled": "  'on': 5"}, "predict.on"),
        (LOOP, {"distance, scheduled": "5, scheduled", "columns: all": "columns: [distance]"}, "predict.inputs[0]"),
        (LOOP, {"value: arr_delay >= 15": "value: [arr_delay]"}, "label.value"),
        (SCHEDULED, {"\nid: flight_id": "\nidd: flight_id"}, "idd"),
        (SCHEDULED, {"\nkey: flight_id": "\nkye: flight_id"}, "kye"),
        (DEPARTED, {"departed_at: { type: string, format": "departed_at: { typ: string, formt"}, "schema.properties"),
        (DEPARTED, {"  properties:": "  propertys:"}, "schema.propertys"),
        (DEPARTED, {"  required:": "  requird:"}, "schema.requird"),
        (DEPARTED, {"tailnum: { type: string }": "tailnum: { $ref: '#/$defs/no' }"}, "schema.properties.tailnum.$ref"),
        (DEPARTED, {"tailnum: { type: string }": "tail: { type: string }"}, "schema.required[2]"),
        (DEPARTED, {"tailnum: { type: string }": "tailnum: { type: !text string }"}, "schema.properties.tailnum.type"),
    ],
)  # fmt: skip
def test_what_only_follows_from_a_slip_is_not_told(folder: Path, file: str, changes: dict[str, str], path: str) -> None:
    problems = [where(problem) for problem in told(folder, {file: list(changes.items())})]
    assert {place for place, _ in problems} == {file}
    assert all(told_at.startswith(path) for _, told_at in problems)


def test_a_slip_beside_an_unreadable_required_value_is_told_too(folder: Path) -> None:
    """The loop below has no readable question at all; its label is judged all the same."""
    changes = [
        ("on: flights-scheduled", "on: [flights]"),
        ("by: flight_id", "by: flight"),
        ("arr_delay >= 15", "dest > 15"),
    ]
    assert [where(problem)[1] for problem in told(folder, {LOOP: changes})] == ["predict.on", "label.by", "label.value"]


def test_settings_that_rest_on_wrong_params_hide_nothing(folder: Path) -> None:
    changes = [
        ("on: flights-scheduled", "on: flights-schedule"),
        ("features: delay_v1", "features: delay_v2"),
        ("  params: #", "  settings: [{max_bin: 3}, {max_bin: many}]\n  params: #"),
        ("num_leaves: 31", "num_leave: 31"),
    ]
    assert [where(problem)[1] for problem in told(folder, {LOOP: changes})] == [
        *("predict.on", "predict.features", "model.params.num_leave"),
    ]


def test_a_stream_that_cannot_be_read_is_known_by_its_name(folder: Path) -> None:
    changes = {SCHEDULED: [("time: announced_at", "time: announced")], LOOP: [("on: flights-scheduled", "on: flights")]}
    question, _ = told(folder, changes)
    assert question.endswith("known: flights-departed, flights-landed, flights-scheduled")


def test_a_missing_schema_is_asked_for_by_its_proper_name(folder: Path) -> None:
    [problem] = told(folder, {DEPARTED: [(FILES[DEPARTED][FILES[DEPARTED].index("schema:\n") :], "")]})
    assert problem == (
        "streams/flights-departed.yaml:2: 'schema' is missing; write schema: JSON Schema 2020-12 of one event: "
        "an object that requires the key, id and time fields"
    )


def test_pattern_properties_and_references_are_told_where_they_stand(folder: Path) -> None:
    schema = """dep_delay: { type: number,
      patternProperties: { "(": {}, "ok": { $ref: other.yaml } },
      allOf: [{ $ref: "#/properties/dest" }, { $ref: "#/$defs/a" }],"""
    problems = told(folder, {DEPARTED: [("dep_delay: { type: number,", schema)]})
    assert [problem.partition(";")[0] for problem in problems] == [
        "streams/flights-departed.yaml:21: schema.properties.dep_delay.patternProperties.(: '(' is no pattern that we run",
        "streams/flights-departed.yaml:21: schema.properties.dep_delay.patternProperties.ok.$ref: "
        "'other.yaml' is outside of this file",
        "streams/flights-departed.yaml:22: schema.properties.dep_delay.allOf[1].$ref: '#/$defs/a' leads nowhere",
    ]
