"""What can go wrong with tiles, each error saying what happens next."""

from __future__ import annotations


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


class BadRepo(TilesError):
    """A Feast repo folder that cannot be loaded; the message names the file."""


class StoreUnavailable(TilesError):
    """The online store did not answer, or is not able to now. Nothing is known to be applied; try again later."""


class LakeUnavailable(TilesError):
    """The lake cannot be read or written now. Nothing was lost; call again, a repeated append adds nothing twice."""


class LakeBehind(TilesError):
    """The lake does not have all that was waited for; the message says up to which offsets it has and who writes it."""


class LakeSchemaRefused(TilesError):
    """Events have another type than the lake's column; the message names the column and says what to do."""
