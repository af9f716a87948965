"""Whatever stands in a project's files, `load_project` answers with a project or with BadProject, never otherwise."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from millstream.project import BadProject, load_project

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"
FILES = {
    path.relative_to(EXAMPLE).as_posix(): path.read_text()
    for path in sorted([*EXAMPLE.glob("streams/*.yaml"), *EXAMPLE.glob("loops/*.yaml")])
}
STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    2.5,
    10**30,
    "",
    "x",
    "drift",
    "a b",
    "1h",
    "é",
    "\u2028",
    [],
    ["x"],
    {},
    {"x": {}},
]
STRANGE_SCHEMAS = [
    {"$ref": "#"},
    {"type": "strin"},
    {"enum": []},
    {"$id": "http://["},
    {"$anchor": "a"},
    {"const": [1]},
]
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project")
    for name in ("streams", "loops", "features"):
        (path / name).mkdir()
    (path / "features" / "feature_store.yaml").write_text("project: flights\n")
    return path


def load(folder: Path, files: dict[str, bytes]) -> None:
    """Load and expect nothing but an answer, in which every problem can be read by a person."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        project = load_project(folder)
    except BadProject as bad:
        for problem in bad.problems:
            assert problem.message
            assert problem.remedy
            assert problem.line is None or 1 <= problem.line <= 1 + max(
                content.count(b"\n") + content.count(b"\r") for content in files.values()
            )
            assert "\n" not in str(problem)
    else:
        assert project.streams


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a YAML document."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@FEW
@given(st.integers(0, 2**32), st.sampled_from(sorted(FILES)), st.integers(1, 4))
def test_values_that_nobody_expects(folder: Path, seed: int, file: str, changes: int) -> None:
    chance = random.Random(seed)
    yaml = YAML()
    document = yaml.load(FILES[file])
    for _ in range(changes):
        container, key = chance.choice(list(places(document)))
        match chance.randrange(4):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[chance.choice(["x", "stream", "type", "$ref", "$defs"])] = deepcopy(chance.choice(STRANGE))
            case 2:
                container[key] = deepcopy(chance.choice(STRANGE_SCHEMAS))
            case _:
                container[key] = deepcopy(chance.choice(STRANGE))
        if not list(places(document)):
            break
    text = io.BytesIO()
    yaml.dump(document, text)
    load(folder, {name: content.encode() for name, content in FILES.items()} | {file: text.getvalue()})


@FEW
@given(st.integers(0, 2**32), st.sampled_from(sorted(FILES)), st.integers(1, 6))
def test_slips_of_the_keyboard(folder: Path, seed: int, file: str, changes: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(FILES[file].encode())
    for _ in range(changes):
        start = chance.randrange(len(raw))
        end = min(len(raw), start + chance.choice([0, 1, 1, 3, 40]))
        insert = chance.choice(
            [
                b"",
                b" ",
                b"\t",
                b"\n",
                b":",
                b"- ",
                b"{",
                b"]",
                b"&a ",
                b"*a",
                b"!x ",
                b"'",
                b"%",
                b"\xff",
                b"\r",
                b"? ",
                b"|\n",
                b"<<: ",
            ]
        )
        raw[start:end] = insert
    load(folder, {name: content.encode() for name, content in FILES.items()} | {file: bytes(raw)})


@FEW
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_files_that_are_no_yaml_at_all(folder: Path, content: bytes) -> None:
    load(folder, {name: text.encode() for name, text in FILES.items()} | {"streams/flights-landed.yaml": content})
