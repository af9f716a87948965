"""`millstream check`: what is wrong with a project, all of it at once, before anything starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from millstream.project import BadProject, FeatureCatalogue, Problem, Project, load_project
from millstream.project.catalogue import DescribedView
from millstream.project.duration import to_text
from millstream.project.params import TorchFit, growing
from millstream_cli.errors import CommandFailed

if TYPE_CHECKING:
    from millstream_tiles.errors import RepoFault


@dataclass(frozen=True, kw_only=True)
class _Partly:
    """What is known of a Feast repo in which something is wrong."""

    views: Mapping[str, DescribedView]
    places: Mapping[str, tuple[str, int]]
    services: None = None


def check(path: str | Path, as_json: bool = False, lake: str | None = None, against: str | None = None) -> int:
    """Print every problem of the project in folder `path`; the exit code, 0 when there is none and 2 otherwise.

    With a `lake` also whether its tables can take the streams' events as they are declared now, and which loops have questions
    there and no label of either kind (a note); with `against` (a git ref, a
    folder, an ingest's address) also what the streams' schemas break of those there. 2 as of any command that is
    given a project which cannot run; 1 is left for what fails while it runs. Raises CommandFailed for a lake that cannot be
    read.
    """
    project, problems = examine(Path(path))
    remarks: list[str] = []
    if project is None and lake is not None:
        problems = _with_lake(Path(path), problems, lake)
    elif project is not None:
        from millstream_cli.schema_changes import change_problems

        problems = change_problems(project, against)
        if lake is not None:
            from millstream_cli.lake_labels import label_notes
            from millstream_cli.lake_schemas import lake_problems

            problems += lake_problems(project.path, lake)
            remarks = label_notes(project, lake)
        remarks = [*notes(project), *remarks]
        project = None if problems else project
    if as_json:
        print(json.dumps(_report(project, problems, remarks), indent=2))
    else:
        _print(Console(file=sys.stdout, highlight=False, soft_wrap=True), Path(path), project, problems, remarks)
    return 2 if project is None else 0


def examine(path: Path) -> tuple[Project | None, list[Problem]]:
    """The project, or all of its problems that can be seen."""
    catalogue, faults = _describe(path / "features")
    try:
        project, problems = load_project(path, catalogue, own_code=True), []
    except BadProject as error:
        project, problems = None, list(error.problems)
    # The definitions read the streams' files: what is wrong with those is told in their own words already.
    told = {(path / problem.file).resolve() for problem in problems}
    broken = [fault for fault in faults if fault.stream_file is None or fault.stream_file.resolve() not in told]
    if not broken:
        return project, problems
    return None, list(BadProject([*problems, *map(_problem, broken)]).problems)


def _with_lake(path: Path, problems: Sequence[Problem], lake: str) -> list[Problem]:
    """And those that the lake has with a stream: who mends the views first would learn last that it cannot change.

    A lake that cannot be read is one line on stderr; it hides nothing that is wrong with the files.
    """
    from millstream_cli.lake_schemas import lake_problems

    try:
        return list(BadProject([*problems, *lake_problems(path, lake)]).problems)
    except CommandFailed as error:
        print(f"millstream: {error}", file=sys.stderr)
        return list(problems)


def notes(project: Project) -> list[str]:
    """What is right in the files and may still end every run."""
    return [*_holdout_notes(project), *_torch_notes(project)]


def _holdout_notes(project: Project) -> list[str]:
    """`label.within` is the most that a label may take; of what most take no file tells."""
    return [
        f"loops/{name}.yaml: train.holdout: {to_text(loop.train.holdout)} is not longer than label.within, "
        f"{to_text(loop.label.within)}: where labels take as long as they may, nothing in the holdout has one and every run "
        f"fails; write a holdout longer than {to_text(loop.label.within)}, or a shorter "
        "label.within where they come sooner"
        for name, loop in sorted(project.loops.items())
        if loop.train.holdout <= loop.label.within
    ]


def _torch_notes(project: Project) -> list[str]:
    """PyTorch that this machine has not: the trainer's may have it."""
    asking = sorted(name for name, loop in project.loops.items() if isinstance(growing(loop.model.params), TorchFit))
    missing = [name for name in ("torch", "onnxscript", "safetensors") if find_spec(name) is None]
    return [
        f"loops/{name}.yaml: model: PyTorch is asked for, which needs {', '.join(missing)} beside the trainer, "
        "not installed here; pip install 'millstream-trainer[torch]'"
        for name in asking
        if missing
    ]


def _describe(repo: Path) -> tuple[FeatureCatalogue | None, Sequence[RepoFault]]:
    """What the Feast repo declares. A missing repo is load_project's to report."""
    if not (repo / "feature_store.yaml").is_file():
        return None, []
    from millstream_tiles.errors import BadRepo, RepoFault, TilesError
    from millstream_tiles.registry import describe  # feast takes seconds to import: only for who checks a repo
    from millstream_tiles.repo_files import places

    try:
        return describe(repo), []
    except BadRepo as error:
        return _Partly(views=error.views, places=places(repo, error.views)), error.faults
    except TilesError as error:
        return None, [RepoFault.of(str(error))]


def _problem(fault: RepoFault) -> Problem:
    file = f"features/{fault.file}" if fault.file else "features"
    return Problem(file=file, line=fault.line, path=fault.path, message=fault.message, remedy=fault.remedy)


def _report(project: Project | None, problems: list[Problem], remarks: Sequence[str]) -> dict[str, object]:
    return {
        "ok": project is not None,
        "problems": [asdict(problem) for problem in problems],
        "notes": [] if project is None else list(remarks),
        "streams": sorted(project.streams) if project else [],
        "loops": sorted(project.loops) if project else [],
    }


def _print(
    console: Console, path: Path, project: Project | None, problems: list[Problem], remarks: Sequence[str]
) -> None:
    if project is not None:
        counts = f"{_count(len(project.streams), 'stream')}, {_count(len(project.loops), 'loop')}"
        console.print(Text.assemble(("✓ ", "green"), f"{path}: {counts}, nothing wrong"))
        for note in remarks:
            console.print(Text.assemble(("! ", "yellow"), note))
        return
    if not path.is_dir():
        for problem in problems:
            console.print(Text.assemble(("✗ ", "red"), str(problem)))
        return
    for problem in problems:
        where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        field = f"{problem.path}: " if problem.path else ""
        console.print(
            Text.assemble((where, "bold"), ": ", (field, "cyan"), (problem.message, "red"), "; ", problem.remedy)
        )
    console.print(Text.assemble(("✗ ", "red"), f"{path}: {_count(len(problems), 'problem')}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"
