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
