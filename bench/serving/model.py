"""One model for all: LightGBM's trees, as a booster for the peers that read one, as ONNX for the others and for us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from onnx import TensorProto, helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

TREES, LEAVES = 100, 31
OPSETS = {"": 15, "ai.onnx.ml": 3}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    booster: str
    matrix: bytes
    """ONNX of one input `columns` (n, k)."""
    named: bytes
    """ONNX of one input a column, `probability` out: as trainer makes them."""


def fitted(columns: Sequence[str], seed: int = 7) -> Fitted:
    rng = np.random.default_rng(seed)
    rows = rng.normal(10, 30, (5_000, len(columns))).astype(np.float32)
    truths = rows @ rng.normal(0, 1, len(columns)) + rng.normal(0, 50, len(rows)) > 0
    params = {"objective": "binary", "num_leaves": LEAVES, "verbose": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, truths), TREES)
    matrix = convert_lightgbm(
        booster, initial_types=[("columns", FloatTensorType([None, len(columns)]))], zipmap=False, target_opset=15
    )
    graph = matrix.graph
    nodes = [
        helper.make_node("Concat", list(columns), ["columns"], axis=1),
        *graph.node,
        helper.make_node("Gather", [graph.output[-1].name, "positive"], ["probability"], axis=1),
    ]
    named = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in columns],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        [*graph.initializer, helper.make_tensor("positive", TensorProto.INT64, [], [1])],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return Fitted(
        booster=booster.model_to_string(),
        matrix=matrix.SerializeToString(),
        named=helper.make_model(named, opset_imports=opsets, ir_version=8).SerializeToString(),
    )
