"""Graphs for the bench of replicas: boosted trees as trainer exports them, and the same trees with a planted fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

OPSETS = {"": 15, "ai.onnx.ml": 3}
SIZE, TURNS = 512, 400
"""The late graph multiplies a matrix of SIZE so often: 0.7 s on one core, seven times the deadline."""


def trees(inputs: Sequence[str], seed: int, fault: str = "") -> bytes:
    """100 trees over number columns, `probability` out; with a `fault` of FAULTS, which strikes where the first input is
    above a half. The rows of a warm-up, nulls and zeros, it bears: what fails there is never obeyed."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(10, 30, (2_000, len(inputs))).astype(np.float32)
    truths = rows @ rng.normal(0, 1, len(inputs)) + rng.normal(0, 50, len(rows)) > 0
    fitted = GradientBoostingClassifier(n_estimators=100, max_depth=5, random_state=seed).fit(rows, truths)
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
    if fault:
        more, held = FAULTS[fault](inputs[0])
        nodes += [*more, helper.make_node("Add", ["sound", "fault"], ["probability"])]
        constants += held
    else:
        nodes.append(helper.make_node("Identity", ["sound"], ["probability"]))
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


Part = tuple[list[Any], list[Any]]
"""Nodes that make `fault`, a number a row that is 0 where it does not strike; and their constants."""


def _struck(column: str) -> Part:
    nodes = [helper.make_node("Greater", [column, "half"], ["struck"])]
    constants = [
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    return nodes, constants


def raises(column: str) -> Part:
    """Looks beyond the end of a table of one."""
    nodes, constants = _struck(column)
    nodes += [
        helper.make_node("Cast", ["struck"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["found"]),
        helper.make_node("Squeeze", ["found", "last"], ["fault"]),
    ]
    return nodes, [*constants, helper.make_tensor("table", TensorProto.FLOAT, [1], [0.0])]


def nan(column: str) -> Part:
    """Takes the logarithm of a negative number."""
    nodes, constants = _struck(column)
    nodes += [
        helper.make_node("Neg", [column], ["negative"]),
        helper.make_node("Log", ["negative"], ["logarithm"]),
        helper.make_node("Where", ["struck", "logarithm", "zero"], ["found"]),
        helper.make_node("Squeeze", ["found", "last"], ["fault"]),
    ]
    return nodes, constants


def late(column: str) -> Part:
    """Multiplies a matrix by another, many times."""
    nodes, constants = _struck(column)
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
    ]
    turned = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32)[::-1].copy(), "turned")
    return nodes, [*constants, turned, helper.make_tensor("turns", TensorProto.INT64, [], [TURNS])]


FAULTS = {"raises": raises, "nan": nan, "late": late}
