"""The CRD of loops: made from the model, of one mind with it on the examples, and structural."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from millstream.project.resource import loop_definition
from millstream.project.source import read_source

ROOT = Path(__file__).parents[3]
CRD = loop_definition()
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]
LOOPS = sorted(ROOT.glob("examples/*/loops/*.yaml"))


def parts(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, f"{path}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")


def test_the_committed_crd_is_current() -> None:
    committed = YAML(typ="safe").load(ROOT / "deploy" / "crds" / "millstreamloops.yaml")
    assert committed == CRD, "run `make generate`"


def test_it_is_structural_as_api_servers_want_it() -> None:
    for path, part in parts(SCHEMA, "loop"):
        free = part.get("x-kubernetes-preserve-unknown-fields") or part.get("x-kubernetes-int-or-string")
        assert "type" in part or free, path
        assert not part.keys() & {"$ref", "anyOf", "const", "additionalProperties", "default", "title"}, path
        assert isinstance(part.get("exclusiveMinimum", True), bool), path


@pytest.mark.parametrize("file", LOOPS, ids=lambda path: path.stem)
def test_the_examples_pass_as_they_are(file: Path) -> None:
    source, problems = read_source(file.parents[1], file)
    assert source is not None
    assert not problems
    validator = jsonschema_rs.Draft4Validator(SPEC)
    assert [error.message for error in validator.iter_errors(source.data)] == []
    unknown = [name for name in source.data if name not in SPEC["properties"]]
    assert not unknown


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("predict", {"on": "Flights", "features": "delay_v1", "inputs": ["distance"]}),
        ("predict", {"features": "delay_v1", "inputs": ["distance"]}),
        ("retrain", {"mode": "sometimes"}),
        ("train", {"folds": 11}),
        ("drift", {"auc": 0.5}),
        ("rollout", {"shadow": "many"}),
    ],
)
def test_what_is_wrong_by_itself_is_refused_by_the_api_server(section: str, wrong: dict[str, Any]) -> None:
    right = YAML(typ="safe").load(ROOT / "examples" / "flights" / "loops" / "flight-delay.yaml")
    assert not jsonschema_rs.Draft4Validator(SPEC).is_valid({**right, section: wrong})
