"""Whose answer goes out where two models scored a question, and what goes on record of the other's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from millstream.contracts.events import OtherAnswer
from millstream_serving.domain.scores import Output, Scores

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Roles, as `PredictionServed.variant` and `OtherAnswer.role` name them."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model with what it said."""

    role: str
    version: str
    scores: Scores


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question."""

    role: str
    version: str
    output: Output
    ms: float
    """Model time a question of who answered."""
    other: OtherAnswer | None = None
    fallback: str = ""
    """Why it was not answered by whose turn it was."""


def given(trusted: Side, guarded: Side | None, turns: Sequence[bool]) -> list[Given | None]:
    """One answer a question; `turns` says where it is the guarded side's turn. None where nobody has an answer to give.

    Where the guarded side fails in its turn the trusted one answers. The reverse never happens: a challenger in the shadow
    answers nobody, not even where the champion has no answer.
    """
    if guarded is None:
        role, version, ms = trusted.role, trusted.version, trusted.scores.ms
        said = trusted.scores.outputs
        return [one if one is None else Given(role=role, version=version, output=one, ms=ms) for one in said]
    found: list[Given | None] = []
    for row, turn in enumerate(turns):
        if not turn:
            found.append(_by(trusted, guarded, row))
            continue
        first = _by(guarded, trusted, row)
        found.append(first or _by(trusted, guarded, row, fallback=guarded.scores.failures[row]))
    return found


def _by(side: Side, other: Side | None, row: int, fallback: str = "") -> Given | None:
    output = side.scores.outputs[row]
    if output is None:
        return None
    unasked = None
    if other is not None:
        unasked = OtherAnswer(
            version=other.version,
            role=other.role,
            output=other.scores.outputs[row] or {},
            failure=other.scores.failures[row],
            ms=round(other.scores.ms, 4),
        )
    return Given(
        role=side.role, version=side.version, output=output, ms=side.scores.ms, other=unasked, fallback=fallback
    )
