"""The editors' schemas: current, sound, and of one mind with the models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import millstream.project
from millstream.project.loop import Loop
from millstream.project.reference import project_pages
from millstream.project.schemas import project_schemas
from millstream.project.source import read_source

COMMITTED = Path(millstream.project.__file__).parent / "schemas"
EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"
SCHEMAS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in project_schemas().items()}


def test_the_committed_schemas_are_current() -> None:
    committed = {path.name: path.read_text() for path in COMMITTED.iterdir()}
    assert committed == project_schemas(), "run `make generate`"


@pytest.mark.parametrize("file", sorted(EXAMPLE.glob("*/flight*.yaml")), ids=lambda path: path.name)
def test_an_editor_finds_nothing_wrong_with_the_flights(file: Path) -> None:
    source, problems = read_source(EXAMPLE, file)
    assert source is not None
    assert not problems
    kind = "stream" if file.parent.name == "streams" else "loop"
    jsonschema_rs.Draft202012Validator(SCHEMAS[f"{kind}.schema.json"]).validate(source.data)


def test_an_editor_underlines_a_typo() -> None:
    validator = jsonschema_rs.Draft202012Validator(SCHEMAS["loop.schema.json"])
    assert not validator.is_valid({"loop": "x", "predict": {}, "label": {}, "retrian": {}})


@pytest.mark.parametrize(("said", "fine"), [("0s", False), ("0d00h", False), ("10d", True), ("1h30m", True)])
def test_an_editor_underlines_a_duration_of_nothing_where_the_loop_refuses_it(said: str, fine: bool) -> None:
    knobs = SCHEMAS["loop.schema.json"]["$defs"]["Retrain"]["properties"]
    assert jsonschema_rs.Draft202012Validator(knobs["cooldown"]).is_valid(said) is fine
    assert jsonschema_rs.Draft202012Validator(knobs["warm_up"]).is_valid(said)
    page = project_pages()["loop.md"]
    assert "| `cooldown` | duration above `0s`, like `30d`, `1h30m` |" in page
    assert "| `warm_up` | duration, like `30d`, `1h30m` |" in page


def test_defaults_are_shown_as_a_file_would_write_them() -> None:
    loop, stream = SCHEMAS["loop.schema.json"], SCHEMAS["stream.schema.json"]
    assert stream["properties"]["lateness"]["default"] == "1h"
    assert loop["$defs"]["Train"]["properties"]["history"]["default"] == "all"
    assert loop["$defs"]["Retrain"]["properties"]["budget"]["default"] == "4 per 30d"
    assert loop["$defs"]["Drift"]["properties"]["confirm"]["default"] == "2 of 3"


def test_a_loop_written_back_is_the_loop_that_was_read() -> None:
    source, _ = read_source(EXAMPLE, EXAMPLE / "loops" / "flight-delay.yaml")
    assert source is not None
    loop = Loop.model_validate(source.data)
    assert Loop.model_validate(loop.model_dump(mode="json")) == loop


@pytest.mark.parametrize("name", ["loop", "stream"])
def test_a_page_has_every_key_and_its_links_lead_somewhere(name: str) -> None:
    page, schema = project_pages()[f"{name}.md"], SCHEMAS[f"{name}.schema.json"]
    keys = {key for part in [schema, *schema.get("$defs", {}).values()] for key in part.get("properties", {})}
    assert keys == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    headings = {heading.replace(".", "") for heading in re.findall(r"^##+ `([\w.]+)`$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings
    for path in re.findall(r"\]\(\.\./([^)]+)\)", page):
        assert (EXAMPLE.parents[1] / path).exists(), path


def test_every_knob_says_why() -> None:
    obvious = {"description", "predict", "label", "model", "train", "gate", "drift", "retrain"}
    for schema in SCHEMAS.values():
        for part in [schema, *schema.get("$defs", {}).values()]:
            for name, knob in part.get("properties", {}).items():
                assert name in obvious or "description" in knob or "$ref" in knob, f"{part['title']}.{name}"
