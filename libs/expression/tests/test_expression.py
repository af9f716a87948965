"""Expressions: what it computes, what null does, and everything that it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream_expression import BadExpression, NotComputable, compile_expression

LATE = {"arr_delay": 32.0, "carrier": "UA", "cancelled": False, "air_time": 0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("arr_delay >= 15", True),
        ("arr_delay < 15", False),
        ("15 <= arr_delay < 60", True),
        ("arr_delay > 60 or carrier == 'UA'", True),
        ("not cancelled and arr_delay != 32", False),
        ("(arr_delay + 4) * 2 - 2 == 70", True),
        ("arr_delay / 2", 16.0),
        ("-arr_delay <= -15", True),
        ("cancelled == false", True),
        ("diverted is null", True),
        ("arr_delay is not null", True),
        ('carrier >= "AA"', True),
        ("  arr_delay >= 15\n", True),
    ],
)
def test_what_is_written_is_what_is_computed(text: str, value: object) -> None:
    assert compile_expression(text)(LATE) == value


@pytest.mark.parametrize("event", [{"arr_delay": None}, {}])
def test_a_diverted_flight_has_no_arrival_delay_and_so_no_label(event: dict[str, Any]) -> None:
    assert compile_expression("arr_delay >= 15")(event) is None
    assert compile_expression("not arr_delay >= 15")(event) is None
    assert compile_expression("-arr_delay")(event) is None
    assert compile_expression("arr_delay + 1 > 2")(event) is None


def test_null_decides_only_what_the_rest_leaves_open() -> None:
    either, both = compile_expression("cancelled or arr_delay > 15"), compile_expression("cancelled and arr_delay > 15")
    assert either({"cancelled": True}) is True
    assert either({"cancelled": False}) is None
    assert both({"cancelled": False}) is False
    assert both({"cancelled": True}) is None


def test_dividing_by_zero_gives_no_label() -> None:
    assert compile_expression("arr_delay / air_time > 1")(LATE) is None


def test_a_text_where_a_number_belongs_rejects_the_event() -> None:
    with pytest.raises(NotComputable, match="'arr_delay >= 15' cannot be computed"):
        compile_expression("arr_delay >= 15")({"arr_delay": "soon"})


def test_a_number_too_large_for_division_rejects_the_event() -> None:
    with pytest.raises(NotComputable, match="cannot be computed"):
        compile_expression("arr_delay / 2 > 1")({"arr_delay": 10**400})


def test_an_expression_knows_its_fields_and_what_they_must_be() -> None:
    expression = compile_expression("arr_delay >= 15 and not cancelled and carrier == 'UA'")
    assert expression.fields == ("arr_delay", "cancelled", "carrier")
    assert expression.uses == (("arr_delay", "number"), ("cancelled", "truth"), ("carrier", "text"))
    assert expression.kind == "truth"
    assert (compile_expression("arr_delay * 2").kind, compile_expression("cancelled").kind) == ("number", "any")


def test_an_expression_travels_to_a_worker_process_as_its_text() -> None:
    expression = compile_expression("arr_delay >= 15")
    again = pickle.loads(pickle.dumps(expression))  # noqa: S301  (our own bytes, one line above)
    assert again == expression
    assert again(LATE) is True


ALLOWED = (
    "allowed are fields, numbers, quoted text, true, false, comparisons, and, or, not, + - * /, is null and parentheses"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no expression; write one like \"arr_delay >= 15\""),
        (15, '15 is no expression; write one like "arr_delay >= 15"'),
        ("arr_delay >=", f"column 13: cannot be read from here on; {ALLOWED}"),
        ("arr_delay = 15", f"column 11: cannot be read from here on; {ALLOWED}"),
        ("abs(arr_delay) > 15", f"column 1: 'abs(arr_delay)' is not allowed; {ALLOWED}"),
        ("true and event.delay > 1", f"column 10: 'event.delay' is not allowed; {ALLOWED}"),
        ("x ** 2 > 1", f"column 1: 'x ** 2' is not allowed; {ALLOWED}"),
        ("x > 1j", f"column 5: '1j' is not allowed; {ALLOWED}"),
        ("x > 1e999", f"column 5: this number is infinite; {ALLOWED}"),
        ("x in (1, 2)", f"column 1: `in` is not allowed; {ALLOWED}"),
        ("x == null", f"column 1: a comparison with null is always null; write `is null` or `is not null`; {ALLOWED}"),
        ("x is 3", f"column 6: `is` goes with null only; write == to compare; {ALLOWED}"),
        ("'é' < x and 3 < 'a'", f"column 13: compares a number with a text; {ALLOWED}"),
        ("x < true", f"column 1: true and false have no order; {ALLOWED}"),
        ("x and 3", f"column 7: '3' is a number, not a truth; {ALLOWED}"),
        ("'a' + x > 3", f"column 1: \"'a'\" is a text, not a number; {ALLOWED}"),
        ("1 < 2", "'1 < 2' reads no field of the event; write a comparison like \"arr_delay >= 15\""),
        ("'late'", '"\'late\'" is always the same; write a comparison like "arr_delay >= 15"'),
        ("x" * 501, "expression of 501 characters; write at most 500"),
        ("+".join("x" * 30), f"column 1: nested deeper than 20 levels; write it flatter; {ALLOWED}"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place(text: object, message: str) -> None:
    with pytest.raises(BadExpression) as refused:
        compile_expression(text)
    assert str(refused.value) == message


@given(st.text(alphabet="abx_0159.'\"()[]{}<>=!+-*/% \n\\\x00é:;,@#nruleotdis", max_size=60) | st.text(max_size=600))
def test_no_text_at_all_does_more_than_be_refused(text: str) -> None:
    try:
        expression = compile_expression(text)
    except BadExpression:
        return
    try:
        value = expression(dict.fromkeys(expression.fields, 3))
    except NotComputable:
        return
    assert value is None or isinstance(value, bool | int | float | str)
