"""What a user may compute from one event: a small expression over its fields, like `arr_delay >= 15`, compiled once.

A loop's label is one (`label.value`), and so is the filter of a windowed view (`tags={"where": "not cancelled"}`).

Allowed are fields, numbers, quoted text, `true`, `false`, comparisons, `and` / `or` / `not`, `+ - * /`, `is null`, `is not
null` and parentheses; nothing can be called, indexed or assigned. Null follows SQL: whatever is computed from a null
is null, except that `false and null` is false and `true or null` is true. A null label means that the event carries none
(a diverted flight has no arrival delay, so it was neither late nor on time), a null filter that the event does not count.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str | None
Evaluate = Callable[[Mapping[str, Any]], Any]

LONGEST = 500
"""Characters. A longer one is a computation: it belongs in the producer, where it can be tested."""
DEEPEST = 20
"""Levels of nesting, far below what the interpreter's own stack allows."""

_ALLOWED = "fields, numbers, quoted text, true, false, comparisons, and, or, not, + - * /, is null and parentheses"
_CONSTANTS: dict[str, Value] = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
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
    ast.Div: operator.truediv,
}


class NotComputable(ValueError):
    """An event holds what cannot be compared or computed; the message says what."""


class BadExpression(ValueError):
    """The text is no expression we allow; the message names the column (from 1) and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A compiled expression; call it with an event."""

    text: str
    fields: tuple[str, ...]
    """Fields it reads, in order of appearance."""
    kind: str
    """`truth` or `number`, what it gives; `any` where that is up to a single field."""
    uses: tuple[tuple[str, str], ...]
    """(field, kind) for every use that needs the field to be a `number`, a `text` or a `truth`."""
    _evaluate: Evaluate = field(repr=False, compare=False)

    def __call__(self, event: Mapping[str, Any]) -> Value:
        """Its value; None when a null decides it. An absent field is null.

        Raises NotComputable when a field holds what cannot be compared or computed.
        """
        try:
            value: Value = self._evaluate(event)
        except (TypeError, OverflowError) as error:
            raise NotComputable(f"{self.text!r} cannot be computed: {error}") from error
        return value

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[[str], Expression], tuple[str]]:
        """Closures do not pickle: a worker process compiles the text again."""
        return compile_expression, (self.text,)


def compile_expression(text: object) -> Expression:
    """Compile `text`. Raises BadExpression with the column and what is allowed."""
    if not isinstance(text, str) or not text.strip():
        raise BadExpression(f'{text!r} is no expression; write one like "arr_delay >= 15"')
    text = text.strip()
    if len(text) > LONGEST:
        raise BadExpression(f"expression of {len(text)} characters; write at most {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        # Python reports the end of the text as offset 0 or as another line, and words its messages anew each release.
        column = min(error.offset, len(text) + 1) if error.offset and error.lineno == 1 else len(text) + 1
        raise BadExpression(f"column {column}: cannot be read from here on; allowed are {_ALLOWED}") from error
    except (ValueError, RecursionError, MemoryError, Warning) as error:
        raise BadExpression(f"cannot be read ({error}); allowed are {_ALLOWED}") from error
    compiler = _Compiler(text)
    top = compiler.part(tree.body, depth=1)
    if top.kind in ("text", "null"):
        raise BadExpression(f'{text!r} is always the same; write a comparison like "arr_delay >= 15"')
    if not compiler.fields:
        raise BadExpression(f'{text!r} reads no field of the event; write a comparison like "arr_delay >= 15"')
    return Expression(
        text=text,
        fields=tuple(compiler.fields),
        kind=top.kind,
        uses=tuple(compiler.uses),
        _evaluate=top.evaluate,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    evaluate: Evaluate
    kind: str
    """`number`, `text`, `truth`, `null`, or `any` for a field whose type the expression does not know."""
    name: str | None = None
    """The field, when the part is one."""


class _Compiler:
    """Turns the syntax tree into closures, refusing every node that is not in the table."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: dict[str, None] = {}
        self.uses: dict[tuple[str, str], None] = {}

    def part(self, node: ast.expr, *, depth: int) -> _Part:
        if depth > DEEPEST:
            raise self._refuse(node, f"nested deeper than {DEEPEST} levels; write it flatter")
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return self._constant(node, value)
            case ast.Name(id=name) if name in _CONSTANTS:
                return self._constant(node, _CONSTANTS[name])
            case ast.Name(id=name):
                self.fields[name] = None
                return _Part(evaluate=lambda event: event.get(name), kind="any", name=name)
            case ast.BoolOp(op=op, values=values):
                parts = [self._must(value, "truth", depth) for value in values]
                return _Part(evaluate=_either(parts) if isinstance(op, ast.Or) else _all(parts), kind="truth")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Part(evaluate=_not(self._must(operand, "truth", depth)), kind="truth")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _Part(evaluate=_minus(self._must(operand, "number", depth)), kind="number")
            case ast.BinOp(op=arithmetic, left=left, right=right) if type(arithmetic) in _ARITHMETIC:
                sides = self._must(left, "number", depth), self._must(right, "number", depth)
                return _Part(evaluate=_both(_ARITHMETIC[type(arithmetic)], *sides), kind="number")
            case ast.Compare(left=left, ops=ops, comparators=rights):
                return self._comparison(node, [left, *rights], ops, depth)
            case _:
                raise self._refuse(node, f"{ast.get_source_segment(self.text, node)!r} is not allowed")

    def _constant(self, node: ast.expr, value: Value) -> _Part:
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise self._refuse(node, "this number is infinite")
        kind = {bool: "truth", str: "text", type(None): "null"}.get(type(value), "number")
        return _Part(evaluate=lambda event: value, kind=kind)

    def _must(self, node: ast.expr, kind: str, depth: int) -> Evaluate:
        """The part of `node`, which has to be of `kind`."""
        part = self.part(node, depth=depth + 1)
        if part.name is not None:
            self.uses[part.name, kind] = None
        elif part.kind != kind:
            raise self._refuse(node, f"{ast.get_source_segment(self.text, node)!r} is a {part.kind}, not a {kind}")
        return part.evaluate

    def _comparison(self, node: ast.expr, sides: list[ast.expr], ops: list[ast.cmpop], depth: int) -> _Part:
        steps: list[Evaluate] = []
        for left, op, right in zip(sides, ops, sides[1:], strict=False):
            if isinstance(op, ast.Is | ast.IsNot):
                steps.append(self._is_null(left, right, negated=isinstance(op, ast.IsNot), depth=depth))
            elif type(op) in _COMPARE:
                steps.append(_both(_COMPARE[type(op)], *self._same(left, right, op, depth)))
            else:
                raise self._refuse(node, "`in` is not allowed")
        return _Part(evaluate=steps[0] if len(steps) == 1 else _all(steps), kind="truth")

    def _same(self, left: ast.expr, right: ast.expr, op: ast.cmpop, depth: int) -> tuple[Evaluate, Evaluate]:
        """Both sides of a comparison, which have to be of one kind; an order needs numbers or text."""
        a, b = self.part(left, depth=depth + 1), self.part(right, depth=depth + 1)
        if "null" in (a.kind, b.kind):
            raise self._refuse(left, "a comparison with null is always null; write `is null` or `is not null`")
        kind = b.kind if a.kind == "any" else a.kind
        if b.kind not in ("any", kind):
            raise self._refuse(left, f"compares a {a.kind} with a {b.kind}")
        if kind == "truth" and not isinstance(op, ast.Eq | ast.NotEq):
            raise self._refuse(left, "true and false have no order")
        for side in (a, b):
            if side.name is not None and kind != "any":
                self.uses[side.name, kind] = None
        return a.evaluate, b.evaluate

    def _is_null(self, left: ast.expr, right: ast.expr, *, negated: bool, depth: int) -> Evaluate:
        if self.part(right, depth=depth + 1).kind != "null":
            raise self._refuse(right, "`is` goes with null only; write == to compare")
        evaluate = self.part(left, depth=depth + 1).evaluate
        return (lambda event: evaluate(event) is not None) if negated else (lambda event: evaluate(event) is None)

    def _refuse(self, node: ast.expr, message: str) -> BadExpression:
        column = len(self.text.encode()[: node.col_offset].decode()) + 1 if node.lineno == 1 else 1
        return BadExpression(f"column {column}: {message}; allowed are {_ALLOWED}")


def _both(operation: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(event: Mapping[str, Any]) -> Any:
        a, b = left(event), right(event)
        if a is None or b is None:
            return None
        try:
            return operation(a, b)
        except ZeroDivisionError:
            return None

    return evaluate


def _not(operand: Evaluate) -> Evaluate:
    def evaluate(event: Mapping[str, Any]) -> bool | None:
        value = operand(event)
        return None if value is None else not value

    return evaluate


def _minus(operand: Evaluate) -> Evaluate:
    def evaluate(event: Mapping[str, Any]) -> Any:
        value = operand(event)
        return None if value is None else -value

    return evaluate


def _all(parts: list[Evaluate]) -> Evaluate:
    def evaluate(event: Mapping[str, Any]) -> bool | None:
        unknown = False
        for part in parts:
            value = part(event)
            if value is None:
                unknown = True
            elif not value:
                return False
        return None if unknown else True

    return evaluate


def _either(parts: list[Evaluate]) -> Evaluate:
    def evaluate(event: Mapping[str, Any]) -> bool | None:
        unknown = False
        for part in parts:
            value = part(event)
            if value is None:
                unknown = True
            elif value:
                return True
        return None if unknown else False

    return evaluate
