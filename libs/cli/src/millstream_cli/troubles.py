"""Windows in a row that were not fine: what a person would call one trouble, however many verdicts it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millstream.contracts.events import Finding, WindowJudged, WindowKind

FINE = frozenset({Finding.HEALTHY, Finding.CLEARED})
WORDS = {
    WindowKind.INPUTS: "inputs",
    WindowKind.PERFORMANCE: "performance",
    WindowKind.ESTIMATED: "estimated performance",
    WindowKind.CONTENT: "texts and embeddings",
}


@dataclass(eq=False)
class Trouble:
    """Windows of one version and kind from the first suspicion on; `whole` is the fine one that ended it, if any did."""

    windows: list[WindowJudged] = field(default_factory=list)
    whole: WindowJudged | None = None

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
    def broken(self) -> bool:
        return any(one.finding is Finding.BROKEN_DATA for one in self.windows)

    @property
    def matters(self) -> bool:
        """A suspicion alone is weather."""
        return any(one.finding is not Finding.SUSPECTED for one in self.windows)


def troubles_of(windows: Iterable[WindowJudged]) -> list[Trouble]:
    """Every trouble of one loop, suspicions that came to nothing among them, the oldest first."""
    found: list[Trouble] = []
    now: dict[tuple[WindowKind, str], Trouble] = {}
    for window in sorted(windows, key=lambda one: (one.at, one.index)):
        place = (window.kind, window.version)
        if window.finding in FINE:
            if place in now:
                now.pop(place).whole = window
            continue
        if place not in now:
            now[place] = Trouble()
            found.append(now[place])
        now[place].windows.append(window)
    return found


def cure_of(trouble: Trouble, windows: Iterable[WindowJudged]) -> WindowJudged | None:
    """The verdict that says whether the trouble is over: one about it, else the fine window that ended it, else the first
    word of a later version. None while nobody can say."""
    ids = {one.id for one in trouble.windows}
    last = trouble.windows[-1]
    later = None
    about = None
    for window in windows:
        if window.about in ids:
            if window.finding in (Finding.CLEARED, Finding.NOT_CLEARED) and (about is None or window.at > about.at):
                about = window
        elif (
            window.finding is Finding.CLEARED
            and window.about is None
            and window.kind is trouble.kind
            and window.version != trouble.version
            and window.at > last.at
            and (later is None or window.at < later.at)
        ):
            later = window
    return about or trouble.whole or later
