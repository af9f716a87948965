"""Why an online value differs: tries out what could have gone wrong, and says which events would explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from millstream_tiles.alone import value_of
from millstream_tiles.definition import View
from millstream_tiles.key_events import Fate, Marked
from millstream_tiles.recount import Event
from millstream_tiles.service_views import Logs
from millstream_tiles.skew import Number, differ, place

MOST = 200
"""Events that are tried out for each guess, the nearest to the question first; each try is a recount of the window."""


class Guess(StrEnum):
    """What could have gone wrong online, in the order in which it is first tried."""

    AGREES = "online agrees with the recount"
    MISSING = "missing when the features were read (not applied by then, or lost from the store)"
    APPLIED_EARLY = "applied already, but known only after the question"
    DUPLICATE_COUNTED = "a copy that was counted again"
    LATE_COUNTED = "late, and counted all the same"
    PASSED_OVER = "missing when the features were read, though later events of the partition were counted"
    APPLIED_TWICE = "applied twice"
    UNEXPLAINED = "no event of the lake explains it"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The first guess that gives the online value."""

    guess: Guess
    events: tuple[Event, ...] = ()
    """Those that make the difference."""


def explain_value(
    view: View, logs: Logs, events: Sequence[Marked], key: Sequence[object], t: int, online: Number
) -> Explanation:
    """Which events would make `online` out of the value at `t`. `events` are those of `key_events.marked` at `t`.

    Each guess is tried by a recount, so what is found does give that number; another cause may give the same one. Most cost
    is in large windows: `MOST` recounts a guess.
    """
    aggregate = logs.aggregate
    oldest, newest = aggregate.tile_range(t)
    inside = [m for m in events if oldest <= m.event.event_time // aggregate.slide <= newest]
    counted = [m.event for m in inside if m.fate is Fate.COUNTED]

    def gives(chosen: Sequence[Event]) -> bool:
        return not differ(place(value_of(view, aggregate, chosen, key, t), logs.place), online)

    def of(fate: Fate) -> list[Event]:
        return [m.event for m in inside if m.fate is fate]

    if gives(counted):
        return Explanation(guess=Guess.AGREES)
    for guess, changed, fate_events in _guesses(counted, of):
        if gives(changed):
            return Explanation(guess=guess, events=tuple(fate_events))
    return Explanation(guess=Guess.UNEXPLAINED)


def _guesses(
    counted: list[Event], of: Callable[[Fate], list[Event]]
) -> Iterator[tuple[Guess, list[Event], list[Event]]]:
    """(guess, the events that would then have counted, those that make the difference); `counted` by known-at."""
    for n in range(1, min(len(counted), MOST) + 1):
        yield _missing(counted[:-n], counted[-n:]), counted[:-n], counted[-n:]
    early = of(Fate.UNKNOWN)
    for n in range(1, min(len(early), MOST) + 1):
        yield Guess.APPLIED_EARLY, counted + early[:n], early[:n]
    for guess, fate in ((Guess.DUPLICATE_COUNTED, Fate.DUPLICATE), (Guess.LATE_COUNTED, Fate.LATE)):
        extra = of(fate)
        for event in extra[:MOST]:
            yield guess, [*counted, event], [event]
        if len(extra) > 1:
            yield guess, counted + extra, extra
    for n in range(max(0, len(counted) - MOST), len(counted)):
        others = counted[:n] + counted[n + 1 :]
        yield _missing(others, [counted[n]]), others, [counted[n]]
    for event in counted[-MOST:]:
        yield Guess.APPLIED_TWICE, [*counted, event], [event]


def _missing(counted: Sequence[Event], missing: Sequence[Event]) -> Guess:
    """What can be said of `missing`. No log says how far the store was when it was asked, but a partition is applied in order:
    what lies before an event that counted was not waiting any more.
    """
    last: dict[int, int] = {}
    for event in counted:
        last[event.partition] = max(event.offset, last.get(event.partition, -1))
    passed = all(event.offset < last.get(event.partition, -1) for event in missing)
    return Guess.PASSED_OVER if passed else Guess.MISSING
