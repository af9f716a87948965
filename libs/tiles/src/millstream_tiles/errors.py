"""What can go wrong with tiles, each error saying what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream_tiles.definition import View


class TilesError(Exception):
    """Base of the errors of millstream_tiles."""


class BadView(TilesError):
    """A view that Millstream cannot compute. The message names the view, the mistake and what to write instead."""

    def __init__(self, view: str, problem: str) -> None:
        super().__init__(f"{view}: {problem}")
        self.view = view
        self.problem = problem


class BadSource(TilesError):
    """A stream source that cannot be read: no such file, a missing key, a duration that is none."""

    def __init__(self, problem: str, file: Path | None = None) -> None:
        super().__init__(problem)
        self.file = file
        """The stream's file, when one was named."""


@dataclass(frozen=True, kw_only=True)
class RepoFault:
    """One mistake of a Feast repo."""

    file: str = ""
    """In the repo, with forward slashes; empty where it is not known which."""
    line: int | None = None
    path: str = ""
    """The view, or the setting of feature_store.yaml."""
    message: str
    remedy: str
    stream_file: Path | None = None
    """The stream's file, where it is that which cannot be read."""

    @classmethod
    def of(cls, problem: str, *, file: str = "", line: int | None = None, path: str = "") -> RepoFault:
        """From a text that says what is wrong and, after a semicolon, what to write."""
        message, _, remedy = problem.partition("; ")
        return cls(file=file, line=line, path=path, message=message, remedy=remedy or "write another value")

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, f"{self.message}; {self.remedy}") if part)


class BadRepo(TilesError):
    """A Feast repo folder that cannot be used; the message names every mistake that could be seen."""

    def __init__(self, repo: Path | str, faults: Sequence[RepoFault], views: Mapping[str, View] | None = None) -> None:
        super().__init__("\n".join(f"{repo}{'/' if fault.file else ': '}{fault}" for fault in faults))
        self.faults = tuple(faults)
        self.views = views or {}
        """The windowed views that nothing is wrong with as far as can be seen."""


class BadAddress(TilesError):
    """A URL of the online store that says neither a server nor a cluster; the message says what to write."""


class ShardsDiffer(TilesError):
    """The online store keeps a namespace in another number of shards than we were told: nothing was read or written."""

    def __init__(self, namespace: str, stored: int, told: int) -> None:
        super().__init__(
            f"the online store keeps {namespace!r} in {stored} shards, but shards is {told} here; "
            f"set shards to {stored}, or use another namespace and rebuild its views"
        )
        self.stored = stored


class StoreUnavailable(TilesError):
    """The online store did not answer, or is not able to now. Nothing is known to be applied; try again later."""


class ViewNotReady(StoreUnavailable):
    """The online store has no tiles for a view as it is defined here; the message says how to fill it. Until then any number
    would be a wrong one."""


class RebuildRefused(TilesError):
    """A rebuild, or the removal of a view, cannot go on; the message says why and what to do first."""


class LakeUnavailable(TilesError):
    """The lake cannot be read or written now. Nothing was lost; call again, a repeated append adds nothing twice."""


class LakeRefused(TilesError):
    """A lake that cannot be kept as it is set up; the message says what to change. Trying again changes nothing."""


class LakeBehind(TilesError):
    """The lake does not have all that was waited for; the message says up to which offsets it has and who writes it."""


class LakeSchemaRefused(TilesError):
    """Events have another type than the lake's column; the message names the column and says what to do."""
