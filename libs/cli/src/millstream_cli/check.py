"""`millstream check`: what is wrong with a project, all of it at once, before anything starts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from millstream.project import BadProject, FeatureCatalogue, Problem, Project, load_project


def check(path: str | Path, as_json: bool = False) -> int:
    """Print every problem of the project in folder `path`; the exit code, 0 when there is none and 1 otherwise."""
    project, problems = examine(Path(path))
    if as_json:
        print(json.dumps(_report(project, problems), indent=2))
    else:
        _print(Console(file=sys.stdout, highlight=False, soft_wrap=True), path, project, problems)
    return 1 if project is None else 0


def examine(path: Path) -> tuple[Project | None, list[Problem]]:
    """The project, or its problems; the Feast repo is looked at as soon as it can be."""
    catalogue, broken = _describe(path / "features")
    try:
        project = load_project(path, catalogue)
    except BadProject as error:
        problems = list(error.problems)
        # definitions.py reads the streams: where those are broken, it only repeats them.
        if not any(problem.file.startswith("streams") for problem in problems):
            problems += broken
        return None, problems
    return (None, broken) if broken else (project, [])


def _describe(repo: Path) -> tuple[FeatureCatalogue | None, list[Problem]]:
    """What the Feast repo declares. A missing repo is load_project's to report."""
    if not (repo / "feature_store.yaml").is_file():
        return None, []
    from millstream_tiles.errors import TilesError  # feast takes seconds to import: only for who checks a repo
    from millstream_tiles.registry import describe

    try:
        return describe(repo), []
    except TilesError as error:
        remedy = "correct it; `feast plan` in features/ shows the whole traceback"
        return None, [Problem(file="features", line=None, path="", message=str(error), remedy=remedy)]


def _report(project: Project | None, problems: list[Problem]) -> dict[str, object]:
    return {
        "ok": project is not None,
        "problems": [asdict(problem) for problem in problems],
        "streams": sorted(project.streams) if project else [],
        "loops": sorted(project.loops) if project else [],
    }


def _print(console: Console, path: str | Path, project: Project | None, problems: list[Problem]) -> None:
    if project is not None:
        counts = f"{_count(len(project.streams), 'stream')}, {_count(len(project.loops), 'loop')}"
        console.print(Text.assemble(("✓ ", "green"), f"{path}: {counts}, nothing wrong"))
        return
    for problem in problems:
        where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        field = f"{problem.path}: " if problem.path else ""
        console.print(
            Text.assemble((where, "bold"), ": ", (field, "cyan"), (problem.message, "red"), "; ", problem.remedy)
        )
    console.print(Text.assemble(("✗ ", "red"), f"{path}: {_count(len(problems), 'problem')}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
