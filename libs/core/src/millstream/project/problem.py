"""What is wrong with a project, where, and what to write instead: one `Problem` a mistake, all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from millstream.errors import BadSetup

Path = tuple[str | int, ...]
"""Where in a file: keys and list positions from its root."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A mistake inside one value, before it is known in which file and line that value stands."""

    path: Path = ()
    """From the value that was looked at."""
    message: str
    remedy: str
    rests_on: tuple[Path, ...] | None = None
    """The values that it was judged by, where those are not just the one at `path`."""
    hides: tuple[Path, ...] = ()
    """Values that nobody can judge before it is mended, besides those it rests on."""

    @property
    def basis(self) -> tuple[Path, ...]:
        return (self.path,) if self.rests_on is None else self.rests_on

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def visible(faults: Iterable[Fault], gaps: Collection[Path]) -> list[Fault]:
    """Those of `faults` that are no mere consequence: no value they rest on is one of `gaps`, lies in one or holds one."""
    within = set(gaps)
    around = {gap[:length] for gap in within for length in range(len(gap) + 1)}

    def touched(path: Path) -> bool:
        return path in around or any(path[:length] in within for length in range(len(path)))

    return [fault for fault in faults if not any(map(touched, fault.basis))]


def gaps_of(faults: Iterable[Fault]) -> set[Path]:
    """What nobody can judge before `faults` are mended."""
    return {path for fault in faults for path in (*fault.basis, *fault.hides)}


class Refused(ValueError):
    """Several faults of one value at once: what our validators raise, so that none hides another."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(f"{dotted(f.path)}: {f}" if f.path else str(f) for f in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake of a project, as a person reads it."""

    file: str
    """Relative to the project folder, with forward slashes; the folder as it was named where that is what is missing."""
    line: int | None
    """From 1; None when the file, or a folder, is what is missing."""
    path: str
    """Like `predict.features`; empty for the file as a whole."""
    message: str
    """What is wrong."""
    remedy: str
    """What to write instead."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, f"{self.message}; {self.remedy}") if part)


class BadProject(BadSetup):
    """The project cannot run as written. Nothing was started; `problems` names every mistake that could be seen."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.path, p.message))
        super().__init__("\n".join(str(problem) for problem in ordered))
        self.problems = tuple(ordered)


def dotted(path: Path) -> str:
    """`("predict", "inputs", 2)` as people say it: `predict.inputs[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def known(names: Iterable[str]) -> str:
    """`known: a, b, c`, cut where nobody reads on."""
    return _listed("known", names)


def found(names: Iterable[str]) -> str:
    return _listed("found", names)


def nearest(wrong: str, names: Iterable[str]) -> str:
    """`did you mean 'retrain'? known: ...`; without the question where nothing is near."""
    names = sorted(names)
    close = difflib.get_close_matches(wrong[:60], names, n=1)
    return f"did you mean {close[0]!r}? {known(names)}" if close else known(names)


def meant(wrong: str, absent: Iterable[str]) -> str | None:
    """Which of the `absent` keys the unknown key `wrong` is a slip for."""
    close = difflib.get_close_matches(wrong[:60], sorted(absent), n=1)
    return close[0] if close else None


def _listed(word: str, names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{word}: {shown or 'none'}"
