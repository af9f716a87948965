"""Graphs for the bench of replicas: boosted trees as trainer exports them, and what strikes behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

OPSETS = {"": 15, "ai.onnx.ml": 3}
RANGES = {"distance": 3_000, "scheduled_minute": 1_440, "weekday": 7}
"""Up to where an input of the question goes; the other columns are features, which are null while the bench asks."""
SIZE, TURNS = 512, 400
"""The late graph multiplies a matrix of SIZE so often: 0.7 s on one core, seven times the deadline."""

Part = tuple[list[Any], list[Any]]
"""Nodes and their constants."""
After = Callable[[], Part]
"""What makes `probability` of `sound`, the trees' own. The rows of a warm-up, nulls and zeros, it bears: what fails there
is never obeyed."""


def trees(inputs: Sequence[str], seed: int, after: After | None = None) -> bytes:
    """100 trees over number columns, `probability` out."""
    fitted, rows = _fitted(tuple(inputs), seed)
    model = to_onnx(fitted, rows[:1], options={"zipmap": False}, target_opset=OPSETS)
    graph = model.graph
    (columns,) = (node.name for node in graph.input)
    _, both = (node.name for node in graph.output)
    nodes = [
        helper.make_node("Concat", list(inputs), [columns], axis=1),
        *graph.node,
        helper.make_node("Gather", [both, "positive"], ["sound"], axis=1),
    ]
    constants = [*graph.initializer, helper.make_tensor("positive", TensorProto.INT64, [], [1])]
    more, held = after() if after else ([helper.make_node("Identity", ["sound"], ["probability"])], [])
    nodes += more
    used = {name for node in nodes for name in node.input}
    constants = [one for one in (*constants, *held) if one.name in used]
    made = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in inputs],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    raw: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return raw


@cache
def _fitted(inputs: tuple[str, ...], seed: int) -> tuple[Any, Any]:
    """Trees on rows of which the question's inputs tell most, and those rows."""
    rng = np.random.default_rng(seed)
    tops = np.array([RANGES.get(name, 1) for name in inputs])
    rows = rng.uniform(0, tops, (2_000, len(inputs))).astype(np.float32)
    weights = rng.normal(0, 1, len(inputs)) * np.where(tops > 1, 4, 1)
    truths = (rows / tops - 0.5) @ weights + rng.normal(0, 1, len(rows)) > 0
    made = GradientBoostingClassifier(n_estimators=100, max_depth=5, learning_rate=0.02, random_state=seed)
    return made.fit(rows, truths), rows


_ADDED = helper.make_node("Add", ["sound", "fault"], ["probability"])
"""`fault` is 0 where it does not strike."""


def struck(column: str, above: float) -> Part:
    nodes = [helper.make_node("Greater", [column, "bar"], ["struck"])]
    constants = [
        helper.make_tensor("bar", TensorProto.FLOAT, [], [above]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    return nodes, constants


def raises(column: str, above: float) -> Part:
    """Where the column is above that, looks beyond the end of a table of one."""
    nodes, constants = struck(column, above)
    nodes += [
        helper.make_node("Cast", ["struck"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["found"]),
        helper.make_node("Squeeze", ["found", "last"], ["fault"]),
        _ADDED,
    ]
    return nodes, [*constants, helper.make_tensor("table", TensorProto.FLOAT, [1], [0.0])]


def nan(column: str, above: float) -> Part:
    """Where the column is above that, takes the logarithm of a negative number."""
    nodes, constants = struck(column, above)
    nodes += [
        helper.make_node("Neg", [column], ["negative"]),
        helper.make_node("Log", ["negative"], ["logarithm"]),
        helper.make_node("Where", ["struck", "logarithm", "zero"], ["found"]),
        helper.make_node("Squeeze", ["found", "last"], ["fault"]),
        _ADDED,
    ]
    return nodes, constants


def late(column: str, above: float, turns: int) -> Part:
    """Where the column is above that in one row, multiplies a matrix by another, so often."""
    nodes, constants = struck(column, above)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("MatMul", ["before", "turned"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
    )
    nodes += [
        helper.make_node("Cast", ["struck"], ["strikes"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["strikes"], ["any"], keepdims=0),
        helper.make_node("Mul", ["any", "turns"], ["times"]),
        helper.make_node("Loop", ["times", "", "turned"], ["matrix"], body=body),
        helper.make_node("ReduceMean", ["matrix"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["fault"]),
        _ADDED,
    ]
    turned = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32)[::-1].copy(), "turned")
    return nodes, [*constants, turned, helper.make_tensor("turns", TensorProto.INT64, [], [turns])]
