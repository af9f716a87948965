"""Every service has the same rooms, so whoever knows one finds the way in all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "features", "trainer", "serving", "drift")
ROOMS = {
    *("__init__.py", "__main__.py", "app.py", "settings.py", "subscribers.py", "api.py", "handlers.py", "ports.py"),
    *(
        "errors.py",
        "metrics.py",
        "py.typed",
        "domain",
        "adapters",
        "api",
        "handlers",
        "api",
    ),  # a folder where there are several nouns
}
SOURCES = sorted(
    path
    for folder in ("libs", "services", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if not {".venv", "node_modules"} & set(path.parts)
)
MODULES = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]
LONGEST = 400


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package(service: str) -> Path:
    return ROOT / "services" / service / "src" / f"millstream_{service}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_room_of_its_own_invention(service: str) -> None:
    found = {entry.name for entry in package(service).iterdir() if entry.name != "__pycache__"}

    assert found <= ROOMS, f"{where(package(service))} has rooms that no other service has"


def test_there_are_five_services() -> None:
    assert {entry.name for entry in (ROOT / "services").iterdir() if entry.is_dir()} == set(SERVICES)


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_a_module_opens_with_the_sentence_a_colleague_would_say(path: Path) -> None:
    text = path.read_text()
    said = ast.get_docstring(ast.parse(text))

    assert said, f"{where(path)} has no docstring"
    assert len(said.splitlines()[0]) > 15, f"{where(path)} opens with {said!r}"


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_a_file_stays_readable(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines < LONGEST, f"{where(path)} has {lines} lines; one noun per file"
