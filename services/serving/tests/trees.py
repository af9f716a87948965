"""A gradient-boosted graph as trainer exports one: named columns in, `probability` out. Grown at random, not fitted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, helper

from millstream.contracts.package import InputColumn


def boosted(inputs: Sequence[InputColumn], *, trees: int = 200, leaves: int = 31, seed: int = 7) -> bytes:
    """An ONNX model of `trees` random trees over `inputs`; about half a megabyte at 200 × 31."""
    chance = random.Random(seed)
    nodes = _concatenated(inputs)
    ensemble = _Ensemble()
    for tree in range(trees):
        ensemble.grow(chance, tree, leaves, len(inputs))
    nodes.append(
        helper.make_node(
            "TreeEnsembleClassifier",
            ["columns"],
            ["label", "both"],
            domain="ai.onnx.ml",
            post_transform="LOGISTIC",
            classlabels_int64s=[0, 1],
            **ensemble.attributes(),
        )
    )
    nodes.append(helper.make_node("Gather", ["both", "positive"], ["probability"], axis=1))
    return _model(nodes, inputs, "probability", [None], [helper.make_tensor("positive", TensorProto.INT64, [], [1])])


def softmax(inputs: Sequence[InputColumn], *, classes: int, seed: int = 7) -> bytes:
    """An ONNX model of one random linear layer: `probabilities` of shape (n, classes) out."""
    chance = random.Random(seed)
    weights = [chance.gauss(0, 0.02) for _ in range(len(inputs) * classes)]
    nodes = [
        *_concatenated(inputs),
        helper.make_node("MatMul", ["columns", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    layer = helper.make_tensor("weights", TensorProto.FLOAT, [len(inputs), classes], weights)
    return _model(nodes, inputs, "probabilities", [None, classes], [layer])


def _concatenated(inputs: Sequence[InputColumn]) -> list[Any]:
    """Nodes that make `columns`, (n, inputs), of the inputs."""
    nodes, parts = [], []
    for column in inputs:
        if column.type == "number":
            parts.append(column.name)
            continue
        code = f"{column.name}__code"
        known = ["B6", "UA", "DL", "JFK", "EWR", "LGA"]
        codes = [float(i) for i in range(len(known))]
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [column.name],
                [code],
                domain="ai.onnx.ml",
                keys_strings=known,
                values_floats=codes,
                default_float=-1.0,
            )
        )
        parts.append(code)
    nodes.append(helper.make_node("Concat", parts, ["columns"], axis=1))
    return nodes


def _model(
    nodes: Sequence[Any], inputs: Sequence[InputColumn], output: str, shape: list[int | None], constants: list[Any]
) -> bytes:
    kinds = {"number": TensorProto.FLOAT, "category": TensorProto.STRING}
    graph = helper.make_graph(
        nodes,
        output,
        [helper.make_tensor_value_info(column.name, kinds[column.type], [None, 1]) for column in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        constants,
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    raw: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return raw


class _Ensemble:
    """The node lists of a TreeEnsembleClassifier."""

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, str, int, float, int, int]] = []
        self.weights: list[tuple[int, int, float]] = []

    def grow(self, chance: random.Random, tree: int, leaves: int, columns: int) -> None:
        """Split random leaves until there are enough."""
        children: dict[int, tuple[int, int]] = {}
        open_leaves, count = [0], 1
        while len(open_leaves) < leaves:
            split = open_leaves.pop(chance.randrange(len(open_leaves)))
            children[split] = (count, count + 1)
            open_leaves += [count, count + 1]
            count += 2
        for node in range(count):
            if node in children:
                low, high = children[node]
                self.nodes.append(
                    (tree, node, "BRANCH_LEQ", chance.randrange(columns), chance.uniform(-5, 40), low, high)
                )
            else:
                self.nodes.append((tree, node, "LEAF", 0, 0.0, 0, 0))
                self.weights.append((tree, node, chance.gauss(0, 0.05)))

    def attributes(self) -> dict[str, Any]:
        trees, ids, modes, features, values, low, high = (list(column) for column in zip(*self.nodes, strict=True))
        of_tree, of_node, weights = (list(column) for column in zip(*self.weights, strict=True))
        return {
            "nodes_treeids": trees,
            "nodes_nodeids": ids,
            "nodes_modes": modes,
            "nodes_featureids": features,
            "nodes_values": values,
            "nodes_truenodeids": low,
            "nodes_falsenodeids": high,
            "nodes_missing_value_tracks_true": [1] * len(trees),
            "class_treeids": of_tree,
            "class_nodeids": of_node,
            "class_ids": [1] * len(weights),
            "class_weights": weights,
        }
