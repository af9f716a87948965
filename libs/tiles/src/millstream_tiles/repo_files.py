"""Imports the Python files of a Feast repo, and knows where in them its views and its mistakes stand."""

from __future__ import annotations

import ast
import importlib
import sys
import threading
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from feast import BatchFeatureView, Entity, FeatureService, FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.project import Project
from feast.repo_operations import get_repo_files
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles.errors import BadSource, RepoFault, TilesError
from millstream_tiles.salvage import salvage

_KINDS = (
    DataSource,
    FeatureView,
    BatchFeatureView,
    StreamFeatureView,
    Entity,
    FeatureService,
    OnDemandFeatureView,
    Project,
)
_NO_VIEWS = frozenset({"Aggregation", "Entity", "FeatureService", "Field", "stream_source"})
"""Calls whose name is not that of a view."""
_LOADING = threading.RLock()
"""Definitions are imported under their own names with the repo on sys.path, so one repo at a time."""
_underway = False
"""Whether one is being loaded; who holds the lock and finds it so was called by one of the repo's own files."""


def definitions(repo: Path) -> tuple[list[Any], list[RepoFault]]:
    """The Feast objects that the repo's Python files define, each once, and what is wrong with files that cannot be loaded."""
    found: dict[int, Any] = {}
    faults: dict[RepoFault, None] = {}
    with _alone(), _importing(repo), quiet():
        for file in get_repo_files(repo):
            name = ".".join(file.relative_to(repo.resolve()).with_suffix("").parts)
            try:
                module = importlib.import_module(name)
            except Exception as error:  # noqa: BLE001  (a user's own code)
                # One mistake is not to hide the others of its file.
                module, errors = salvage(name, file)
                faults |= dict.fromkeys(_fault(repo, file, one) for one in errors or [error])
            for thing in vars(module).values():
                if isinstance(thing, _KINDS):
                    found.setdefault(id(thing), thing)
    if not found and not faults:
        remedy = "write views and services in a file like definitions.py"
        faults[RepoFault(message="no Feast definitions", remedy=remedy)] = None
    return list(found.values()), list(faults)


def places(repo: Path, views: Collection[str]) -> dict[str, tuple[str, int]]:
    """File in the repo and line of each of `views` that one statement alone defines, as far as that can be read off."""
    found = every_place(repo)
    return {view: found[view][0] for view in views if len(found.get(view, ())) == 1}


def every_place(repo: Path) -> dict[str, list[tuple[str, int]]]:
    """Files in the repo and lines of what may be a view, by its name.

    A view is in a variable of its own, so that is `x = View(name="x")`, a helper's `x = view("x")`, or a decorated `def x`.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for file in get_repo_files(repo):
        with suppress(OSError, SyntaxError, ValueError):  # what cannot be loaded is told with its own place
            for statement in ast.parse(file.read_bytes()).body:
                for text, line in _names(statement):
                    found.setdefault(text, []).append((file.relative_to(repo.resolve()).as_posix(), line))
    return found


def _names(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    """What `statement` calls the thing that it defines, and the line where it says so."""
    match statement:
        case ast.FunctionDef(name=name, lineno=line, decorator_list=[_, *_]):
            yield name, line
        case ast.Assign(value=ast.Call() as call) | ast.AnnAssign(value=ast.Call() as call) if (
            _called(call) not in _NO_VIEWS
        ):
            named = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
            for value in named or call.args[:1]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value, value.lineno


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _fault(repo: Path, file: Path, error: Exception) -> RepoFault:
    """An exception while `file` was loaded, at the last line of the repo that had a part in it."""
    home = repo.resolve()
    frames: list[tuple[str, int | None]] = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    own = [(Path(name), line) for name, line in frames if Path(name).is_relative_to(home)]
    at, line = own[-1] if own else (file, None)
    where = at.relative_to(home).as_posix()
    if isinstance(error, TilesError):
        fault = RepoFault.of(str(error), file=where, line=line)
        return replace(fault, stream_file=error.file) if isinstance(error, BadSource) else fault
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:500]
    remedy = "correct it; `feast plan` in features/ shows the whole traceback"
    return RepoFault(file=where, line=line, message=f"{type(error).__name__}: {said}", remedy=remedy)


@contextmanager
def _alone() -> Iterator[None]:
    """Raises TilesError where a file that is being loaded loads a repo itself: it would wait for itself, for ever."""
    global _underway
    with _LOADING:
        if _underway:
            raise TilesError(
                "it opens a Feast repo while it is loaded as a part of one; keep programs out of the repo's folder, of which "
                'every Python file is imported, or under if __name__ == "__main__"'
            )
        _underway = True
        try:
            yield
        finally:
            _underway = False


@contextmanager
def _importing(repo: Path) -> Iterator[None]:
    """The repo's modules importable by their plain names; afterwards as if they had never been, bytecode neither."""
    before: dict[str, ModuleType] = dict(sys.modules)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(repo.resolve()))
    importlib.invalidate_caches()
    own = {_top(repo, f) for f in get_repo_files(repo)}
    for name in _loaded(own):
        del sys.modules[name]
    try:
        yield
    finally:
        sys.path.remove(str(repo.resolve()))
        sys.dont_write_bytecode = bytecode
        for name in _loaded(own):
            del sys.modules[name]
        sys.modules.update({n: m for n, m in before.items() if n.partition(".")[0] in own})


def _top(repo: Path, file: Path) -> str:
    return file.relative_to(repo.resolve()).with_suffix("").parts[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without Feast's notices that an entity should have a type (we give it one) and that on-demand views are an experiment."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message=".*value_type.*", category=DeprecationWarning)
        yield


def _loaded(own: Collection[str]) -> list[str]:
    """The modules of these packages. Copied first: another thread may import meanwhile, as a trainer's does MLflow."""
    return [name for name in list(sys.modules) if name.partition(".")[0] in own]
