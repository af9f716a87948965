"""Says that a name is not known, and which ones are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 20
"""Names of a long list that help; the rest would push the message off the screen."""


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """`no loop 'fligth-delay'; did you mean 'flight-delay'? known: …`"""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"no {what} {name!r}; {hint}known: {listed or 'none'}"
