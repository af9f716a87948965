"""Reads a project folder; a wrong one is refused before anything starts, with all of its mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from millstream.project.catalogue import FeatureCatalogue
from millstream.project.crosscheck import Unread, loop_faults, view_problems
from millstream.project.loop import UNREAD_LOOP, Loop
from millstream.project.own_code import estimator_faults
from millstream.project.problem import BadProject, Problem, visible
from millstream.project.reading import Reading, read_model
from millstream.project.source import Source, read_source
from millstream.project.stream import UNREAD_STREAM, Stream

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

    def __init__(
        self, project: Path, name: str, key: str, model: type[M], stand_ins: Mapping[str, Any], *, needed: bool = True
    ) -> None:
        """A folder that is not `needed` may be missing: then nothing of its kind is declared."""
        self.problems: list[Problem] = []
        self.drafts: list[tuple[Source, Reading[M]]] = []
        """Every file that holds a mapping, with what could be made of it."""
        self.names: dict[str, Source] = {}
        """Every name that is declared, by whatever file."""
        folder = project / name
        files = self._files(project, folder) if needed or folder.exists() else []
        self.nameless = bool(self.problems)
        """A broken file does not even tell what it declares."""
        for file in files:
            source, problems = read_source(project, file)
            self.problems += problems
            if source is None:
                self.nameless = True
                continue
            reading = read_model(source, model, stand_ins, folder)
            self.problems += reading.problems
            self.drafts.append((source, reading))
            declared = source.data.get(key)
            if not isinstance(declared, str) or not reading.reads(key):
                self.nameless = True
            if not isinstance(declared, str):
                continue
            first = self.names.setdefault(declared, source)
            if first is not source:
                message = f"{declared!r} is already declared in {first.file}:{first.line((key,))}"
                self.problems.append(source.problem((key,), message, "rename or remove one of them"))

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


def load_project(path: str | Path, catalogue: FeatureCatalogue | None = None, *, own_code: bool = False) -> Project:
    """Read and check the project in folder `path`. Raises BadProject with every problem that can be seen.

    Each file is checked by itself, then all against each other; with a `catalogue` also against the Feast repo, with `own_code`
    also whether the modules that loops name are there: where models are trained they are, not in every service. Without
    loops/ it is streams and features alone.
    """
    path = Path(path)
    if not path.is_dir():
        remedy = "name a project folder, with streams/, features/ and, for models, loops/ in it"
        raise BadProject([Problem(file=str(path), line=None, path="", message="no such folder", remedy=remedy)])
    streams = _Folder(path, "streams", "stream", Stream, UNREAD_STREAM)
    loops = _Folder(path, "loops", "loop", Loop, UNREAD_LOOP, needed=False)
    problems = [*streams.problems, *loops.problems, *_missing(path, streams)]
    known = _known(streams)
    unread = Unread(
        names=frozenset(streams.names).difference(known),
        nameless=streams.nameless,
        lateness=frozenset(r.item.name for _, r in streams.drafts if r.item is not None and not r.reads("lateness")),
    )
    for source, reading in loops.drafts:
        if reading.item is not None:
            faults = [*reading.item.faults(), *loop_faults(reading.item, known, unread, catalogue)]
            faults += estimator_faults(reading.item, path) if own_code else []
            problems += [source.problem(f.path, f.message, f.remedy) for f in visible(faults, reading.gaps)]
    if catalogue is not None:
        problems += view_problems(catalogue, known, unread)
    if problems:
        raise BadProject(problems)
    read = [reading.item for _, reading in loops.drafts if reading.item is not None]
    return Project(path=path, streams=known, loops={loop.name: _complete(loop, known) for loop in read})


def load_streams(path: str | Path) -> Mapping[str, Stream]:
    """The streams of a project folder, whatever else is in it. Raises BadProject."""
    streams = _Folder(Path(path), "streams", "stream", Stream, UNREAD_STREAM)
    if streams.problems:
        raise BadProject(streams.problems)
    return _known(streams)


def streams_that_read(path: str | Path) -> Mapping[str, Stream]:
    """The streams of a project folder whose schema can be read, whatever is wrong with the rest of it."""
    return _known(_Folder(Path(path), "streams", "stream", Stream, UNREAD_STREAM))


def _known(streams: _Folder[Stream]) -> dict[str, Stream]:
    """The streams that loops and views can be held against, whatever is wrong with the rest of their files."""
    readings = [
        reading
        for _, reading in streams.drafts
        if all(map(reading.reads, ("stream", "id", "time", "format", "schema")))
    ]
    return {reading.item.name: reading.item for reading in readings if reading.item is not None}


STORE = (
    "{project: NAME, online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}, "
    "offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}}"
)
"""The least that a feature_store.yaml says; the services put their own servers in it."""


def _missing(path: Path, streams: _Folder[Stream]) -> list[Problem]:
    """What a project cannot do without."""
    missing = []
    if not streams.drafts and not streams.problems:
        remedy = "declare at least one stream in a .yaml file there"
        missing.append(Problem(file="streams", line=None, path="", message="no stream", remedy=remedy))
    if not (path / "features" / "feature_store.yaml").is_file():
        remedy = f"create the Feast repo of the project there, which begins with this: {STORE}"
        file = "features/feature_store.yaml"
        missing.append(Problem(file=file, line=None, path="", message="is missing", remedy=remedy))
    return missing


def _complete(loop: Loop, streams: Mapping[str, Stream]) -> Loop:
    """The loop with its default that only the streams know."""
    if loop.predict.id is not None:
        return loop
    return loop.model_copy(update={"predict": loop.predict.model_copy(update={"id": streams[loop.predict.on].id})})
