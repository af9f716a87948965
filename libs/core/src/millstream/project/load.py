"""Reads a project folder; a wrong one is refused before anything starts, with all of its mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from millstream.project.catalogue import FeatureCatalogue
from millstream.project.crosscheck import Unread, loop_problems, view_problems
from millstream.project.loop import Loop
from millstream.project.problem import BadProject, Problem
from millstream.project.reading import read_model
from millstream.project.source import Source, read_source
from millstream.project.stream import Stream

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project that holds together."""

    path: Path
    streams: Mapping[str, Stream]
    loops: Mapping[str, Loop]
    """In each, `predict.id` is filled in."""

    @property
    def features_path(self) -> Path:
        """The Feast repo."""
        return self.path / "features"


class _Folder(Generic[M]):
    """The declarations of one kind: every file is read, whatever is wrong with the others."""

    def __init__(self, project: Path, name: str, key: str, model: type[M]) -> None:
        self.problems: list[Problem] = []
        self.read: dict[str, tuple[Source, M]] = {}
        """What could be read, by its name."""
        claimed: dict[str, Source] = {}
        files = self._files(project, project / name)
        nameless = bool(self.problems)
        for file in files:
            source, problems = read_source(project, file)
            self.problems += problems
            if source is None:
                nameless = True
                continue
            declared = source.data.get(key)
            if isinstance(declared, str) and declared in claimed:
                first = claimed[declared]
                message = f"{declared!r} is already declared in {first.file}:{first.line((key,))}"
                self.problems.append(source.problem((key,), message, "rename or remove one of them"))
            elif isinstance(declared, str):
                claimed[declared] = source
            item, mistakes = (None, []) if problems else read_model(source, model)
            self.problems += mistakes
            if item is not None and isinstance(declared, str):
                self.read.setdefault(declared, (source, item))
            elif not isinstance(declared, str) or any(mistake.path == key for mistake in mistakes):
                nameless = True
        self.unread = Unread(names=frozenset(claimed) - frozenset(self.read), nameless=nameless)

    def _files(self, project: Path, folder: Path) -> list[Path]:
        try:
            names = sorted(folder.iterdir())
        except OSError as error:
            file = folder.relative_to(project).as_posix()
            message = f"folder cannot be read ({error.strerror})"
            remedy = f"create {file}/ with one .yaml file each"
            self.problems.append(Problem(file=file, line=None, path="", message=message, remedy=remedy))
            return []
        return [file for file in names if file.suffix in (".yaml", ".yml") and not file.name.startswith(".")]

    def models(self) -> dict[str, M]:
        return {name: item for name, (_, item) in self.read.items()}


def load_project(path: str | Path, catalogue: FeatureCatalogue | None = None) -> Project:
    """Read and check the project in folder `path`. Raises BadProject with every problem that can be seen.

    Each file is checked by itself, then all against each other; with a `catalogue` also against the Feast repo.
    """
    path = Path(path)
    if not path.is_dir():
        message = f"no folder {str(path)!r}"
        raise BadProject([Problem(file=".", line=None, path="", message=message, remedy="name a project folder")])
    streams, loops = _Folder(path, "streams", "stream", Stream), _Folder(path, "loops", "loop", Loop)
    problems = [*streams.problems, *loops.problems, *_missing(path, streams)]
    known = streams.models()
    for source, loop in loops.read.values():
        problems += loop_problems(source, loop, known, streams.unread, catalogue)
    if catalogue is not None:
        problems += view_problems(catalogue.views, known, streams.unread)
    if problems:
        raise BadProject(problems)
    return Project(
        path=path, streams=known, loops={name: _complete(loop, known) for name, loop in loops.models().items()}
    )


def _missing(path: Path, streams: _Folder[Stream]) -> list[Problem]:
    """What a project cannot do without."""
    missing = []
    if not streams.read and not streams.problems:
        remedy = "declare at least one stream in a .yaml file there"
        missing.append(Problem(file="streams", line=None, path="", message="no stream", remedy=remedy))
    if not (path / "features" / "feature_store.yaml").is_file():
        remedy = "create the Feast repo of the project there"
        file = "features/feature_store.yaml"
        missing.append(Problem(file=file, line=None, path="", message="is missing", remedy=remedy))
    return missing


def _complete(loop: Loop, streams: Mapping[str, Stream]) -> Loop:
    """The loop with its default that only the streams know."""
    if loop.predict.id is not None:
        return loop
    return loop.model_copy(update={"predict": loop.predict.model_copy(update={"id": streams[loop.predict.on].id})})
