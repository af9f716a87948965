"""A view's filter as an Ibis condition, with the meaning that millstream_expression gives it event by event.

Null is SQL's here and there. What differs is said in the condition: dividing by zero gives null, NaN equals nothing (to SQL it
equals itself and is greater than every number) and is not null. Text is ordered by code point in both.

One thing is not equal. Arithmetic, and a comparison of a whole number with a fraction, is done in doubles, so that no event can
make the engine stop with an overflow: integers beyond 2**53 (`LARGEST`) are rounded there, and Python rounds none.

A field must be what the filter takes it for, as `millstream check` demands of the stream's schema; where a column is of another
type, the filter is refused. (Event by event, such a filter is not computable, or text and number are simply not equal.)
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir

from millstream_tiles.definition import View
from millstream_tiles.filters import filter_of
from millstream_tiles.ibis_columns import beyond_us, double, need

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    # NULLIF takes -0.0 for zero, as Python does.
    ast.Div: lambda a, b: a / b.nullif(double(0.0)),
}
_WORDS = {"true": True, "false": False, "null": None}
_INT64 = 2**63


def let_through(view: View, rows: ir.Table) -> ir.Table:
    """The events of `rows` of which the view's filter is true.

    Raises TilesError for a field that `rows` does not have, BadView for one of a type that the filter does not fit.
    """
    if view.where is None:
        return rows
    expression = filter_of(view.where)
    for field in expression.fields:
        need(rows, field, f"view {view.name}: events of stream {view.stream}")
    translation = _Translation(view, rows)
    for field, kind in expression.uses:
        translation.must_be(field, kind)
    if expression.kind == "any":
        translation.must_be(expression.fields[0], "truth")
    elif expression.kind != "truth":
        raise beyond_us(view, f"where: {view.where!r}, which is not true or false,")
    return rows.filter(translation.part(ast.parse(view.where.strip(), mode="eval").body).value)


class _Part(NamedTuple):
    value: Any
    kind: str
    """`whole` (an integer), `fraction` (a double), `text`, `truth`; `other` for a column that can only be null or not."""

    @property
    def as_double(self) -> Any:
        return self.value if self.kind == "fraction" else self.value.cast("float64")


class _Translation:
    """Of one filter over one table; the text was compiled before, so every node is one of those that are allowed."""

    def __init__(self, view: View, rows: ir.Table) -> None:
        self._view, self._rows = view, rows

    def must_be(self, field: str, kind: str) -> None:
        is_ = self._field(field).kind
        if kind != ("number" if is_ in ("whole", "fraction") else is_):
            of = self._rows[field].type()
            raise beyond_us(self._view, f"where: {field!r}, which is {of} where the filter needs a {kind},")

    def part(self, node: ast.expr) -> _Part:
        match node:
            case ast.Constant(value=value):
                return self._constant(value)
            case ast.Name(id=name) if name in _WORDS:
                return self._constant(_WORDS[name])
            case ast.Name(id=name):
                return self._field(name)
            case ast.BoolOp(op=op, values=values):
                either = operator.or_ if isinstance(op, ast.Or) else operator.and_
                return _Part(reduce(either, [self.part(value).value for value in values]), "truth")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                # NOT binds less than IS and =, and Ibis writes no parentheses around it.
                return _Part(self.part(operand).value == ibis.literal(False), "truth")
            case ast.UnaryOp(operand=operand):
                return _Part(-self.part(operand).as_double, "fraction")
            case ast.BinOp(op=op, left=left, right=right):
                value = _ARITHMETIC[type(op)](self.part(left).as_double, self.part(right).as_double)
                return _Part(value, "fraction")
            case ast.Compare(left=left, ops=ops, comparators=rights):
                steps = zip([left, *rights], ops, rights, strict=False)
                return _Part(reduce(operator.and_, [self._step(a, op, b) for a, op, b in steps]), "truth")
        raise AssertionError(f"{ast.dump(node)} is in no expression that compiles")

    def _constant(self, value: Any) -> _Part:
        match value:
            case None:
                return _Part(ibis.null("boolean"), "other")
            case bool():
                return _Part(ibis.literal(value), "truth")
            case str():
                # Neither can be written in SQL; a NUL ends the text there for some engines.
                if "\0" in value or value != value.encode(errors="replace").decode():
                    raise beyond_us(self._view, f"where: the text {value!r}")
                return _Part(ibis.literal(value), "text")
            case int() if -_INT64 <= value < _INT64:
                return _Part(ibis.literal(value, "int64"), "whole")
        try:
            return _Part(double(float(value)), "fraction")
        except OverflowError:
            raise beyond_us(self._view, "where: a number that no double holds") from None

    def _field(self, name: str) -> _Part:
        column = self._rows[name]
        kind = column.type()
        if kind.is_floating():
            return _Part(column.cast("float64"), "fraction")
        if kind.is_integer():
            return _Part(column, "whole")
        return _Part(column, "text" if kind.is_string() else "truth" if kind.is_boolean() else "other")

    def _step(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        """One comparison of a chain."""
        a = self.part(left)
        if isinstance(op, ast.Is | ast.IsNot):
            # Ibis takes NaN for null on Spark; a comparison of it is not null.
            value = a.value == a.value if a.kind == "fraction" else a.value
            return value.notnull() if isinstance(op, ast.IsNot) else value.isnull()
        b = self.part(right)
        compare = _COMPARE[type(op)]
        if "fraction" in (a.kind, b.kind) and {a.kind, b.kind} <= {"whole", "fraction"}:
            x, y = a.as_double, b.as_double
            nan = (x.isnan() | y.isnan()) & (x == y).notnull()
            return ibis.cases((nan, isinstance(op, ast.NotEq)), else_=compare(x, y))
        if a.kind != b.kind or a.kind == "other":
            what = f"where: comparing {ast.unparse(left)} with {ast.unparse(right)}, which are {a.kind} and {b.kind},"
            raise beyond_us(self._view, what)
        return compare(a.value, b.value)
