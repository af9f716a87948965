"""Windows in a row that were not fine: what a person would call one trouble, however many verdicts it took."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from millstream.contracts.events import Finding, WindowJudged, WindowKind
from millstream_cli.answering import Answering

FINE = frozenset({Finding.HEALTHY, Finding.CLEARED})
WORDS = {
    WindowKind.INPUTS: "inputs",
    WindowKind.PERFORMANCE: "performance",
    WindowKind.ESTIMATED: "estimated performance",
    WindowKind.CONTENT: "texts and embeddings",
}


@dataclass(eq=False)
class Trouble:
    """Windows of one version and kind from the first suspicion on."""

    windows: list[WindowJudged] = field(default_factory=list)
    end: WindowJudged | None = None
    """The window that ended it, by the first word that there was: a fine one of the version itself, or, once that version
    answered nobody any more, one of the version that answered instead, which is fine or shows it too. None: no word yet."""
    breaks: list[tuple[datetime, datetime]] = field(default_factory=list)
    """From when until when its windows were broken, one after the other."""
    broken_since: datetime | None = None
    """From when on the first of its newest windows in a row that are broken is: what runs leave out begins there. None: the
    newest is not broken."""

    def add(self, window: WindowJudged, whole: WindowJudged | None) -> None:
        """One more; `whole` is the newest of its kind, of any version, that was not broken."""
        if window.finding is not Finding.BROKEN_DATA:
            self.broken_since = None
        else:
            if self.broken_since is None:
                self.broken_since = window.broken_from(whole)
                self.breaks.append((self.broken_since, window.end))
            self.breaks[-1] = self.broken_since, max(self.breaks[-1][1], window.end)
        self.windows.append(window)

    @property
    def id(self) -> str:
        return self.windows[0].id

    @property
    def kind(self) -> WindowKind:
        return self.windows[0].kind

    @property
    def version(self) -> str:
        return self.windows[0].version

    @property
    def worst(self) -> WindowJudged:
        return max(self.windows, key=lambda one: (one.finding is not Finding.SUSPECTED, one.effect))

    @property
    def broken(self) -> WindowJudged | None:
        """The first window of broken data, if there is one."""
        return next((one for one in self.windows if one.finding is Finding.BROKEN_DATA), None)

    @property
    def began_broken(self) -> bool:
        """Whether nothing was wrong before the data broke but a suspicion."""
        bad = next((one for one in self.windows if one.finding is not Finding.SUSPECTED), None)
        return bad is not None and bad.finding is Finding.BROKEN_DATA

    @property
    def broken_until(self) -> datetime | None:
        """The last question of its last broken window, where a later one is whole and not fine; None: none is."""
        if self.broken is None or self.broken_since is not None:
            return None
        return next(one.end for one in reversed(self.windows) if one.finding is Finding.BROKEN_DATA)

    @property
    def went_on(self) -> bool:
        """Whether whole windows confirmed that something is wrong after the data had broken: that is no break any more."""
        after = itertools.takewhile(lambda one: one.finding is not Finding.BROKEN_DATA, reversed(self.windows))
        return self.broken is not None and any(one.finding is not Finding.SUSPECTED for one in after)

    @property
    def matters(self) -> bool:
        """A suspicion alone is weather."""
        return any(one.finding is not Finding.SUSPECTED for one in self.windows)


def troubles_of(windows: Iterable[WindowJudged], answering: Answering) -> list[Trouble]:
    """Every trouble of one loop, suspicions that came to nothing among them, the oldest first."""
    found: list[Trouble] = []
    now: dict[tuple[WindowKind, str], Trouble] = {}
    """The open ones, and those that another version ended: the labels of what the old one answered go on coming."""
    whole: dict[WindowKind, WindowJudged] = {}
    for window in sorted(windows, key=lambda one: (one.at, one.index)):
        if window.says_nothing:
            continue
        for trouble in now.values():
            if trouble.end is None and _is_word_on(trouble, window, answering):
                trouble.end = window
        place, before = (window.kind, window.version), whole.get(window.kind)
        here = now.get(place)
        if window.finding is not Finding.BROKEN_DATA:
            whole[window.kind] = window
        if window.finding in FINE:
            if here is not None:
                here.end = here.end or window
                del now[place]
            continue
        if here is None or (here.end is not None and answering.answers(window.version, window.at)):
            here = now[place] = Trouble()
            found.append(here)
        here.add(window, before)
    return found


def _is_word_on(trouble: Trouble, window: WindowJudged, answering: Answering) -> bool:
    """Whether the window of another version says what became of a trouble. A suspicion says nothing yet, nor do broken data,
    unless it is they that the trouble is about."""
    if window.kind is not trouble.kind or window.version == trouble.version or window.finding is Finding.SUSPECTED:
        return False
    if window.finding is Finding.BROKEN_DATA and trouble.windows[-1].finding is not Finding.BROKEN_DATA:
        return False
    return answering.champion(window.at) == window.version and not answering.answers(trouble.version, window.at)
