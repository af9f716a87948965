"""Texts and embeddings that drift watches: how much of one is kept, in the event, in the package and in a window alike."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

TEXT, EMBEDDING = "text", "embedding"
LONGEST_TEXT = 1_000
"""Characters. What a text is about shows in its first lines, and the topic keeps every one for 30 days."""
WIDEST_VECTOR = 1_024
"""Numbers of an embedding, about 20 KB as JSON: the usual models give 384 to 1,024. A wider one is not watched."""
SAMPLE = 500
"""Rows of either side that are compared. An AUC has a standard error of 0.02 then; twice as many would make it 0.013."""

Content = str | list[float]
LARGEST = 3.4e38
"""Of a number: float32 holds no more."""


def cut(value: Any) -> Content | None:
    """`value` as it is kept; None for what is no text, and no vector of numbers of a width that is watched."""
    if isinstance(value, str):
        return value[:LONGEST_TEXT] or None
    if not isinstance(value, Sequence) or not 0 < len(value) <= WIDEST_VECTOR:
        return None
    if any(type(number) not in (int, float) or not abs(number) <= LARGEST for number in value):
        return None
    return [float(number) for number in value]


def contents(event: Mapping[str, Any], names: Sequence[str]) -> dict[str, Content]:
    """What `event` has of the fields `names`, cut; null ones are left out."""
    return {name: found for name in names if (found := cut(event.get(name))) is not None}


def rank(id: str) -> int:
    """Where a question stands in a draw: those of the lowest rank are a sample, whoever sees them in whatever order."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "big")


def packed(vector: Sequence[float]) -> bytes:
    """A vector as float32, little-endian: a quarter of its JSON."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
