"""How much of a text or a vector is kept, wherever it is kept."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from millstream.contracts.content import LONGEST_TEXT, WIDEST_VECTOR, contents, cut, packed, rank


def test_a_long_text_is_cut_and_an_empty_one_is_none() -> None:
    assert cut("late again") == "late again"
    assert cut("x" * 5_000) == "x" * LONGEST_TEXT
    assert cut("") is None


@pytest.mark.parametrize(
    "value",
    [None, 7, True, {"a": 1}, [], ["a"], [1.0, None], [1.0, math.nan], [1e300], [True], [0.0] * (WIDEST_VECTOR + 1)],
)
def test_what_is_no_text_and_no_vector_is_none(value: Any) -> None:
    assert cut(value) is None


def test_whole_numbers_are_numbers_of_a_vector() -> None:
    assert cut([1, -2.5]) == [1.0, -2.5]


def test_an_event_gives_what_it_has_of_the_fields() -> None:
    event = {"remark": "late", "echo": [1.0], "other": "x", "note": None}
    assert contents(event, ["remark", "echo", "note", "gone"]) == {"remark": "late", "echo": [1.0]}


def test_a_packed_vector_is_float32_little_endian() -> None:
    assert packed([1.0, -2.5]) == struct.pack("<ff", 1.0, -2.5)


def test_a_rank_is_spread_evenly_and_stays() -> None:
    ranks = [rank(f"question-{n}") / 2**56 for n in range(4_000)]
    assert abs(sum(ranks) / len(ranks) - 0.5) < 0.02
    assert rank("question-7") == rank("question-7")
