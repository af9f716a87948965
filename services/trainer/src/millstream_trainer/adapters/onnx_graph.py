"""One ONNX graph with all preprocessing inside: named columns in, `probability` out; and how such a graph is asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn
from millstream_trainer.adapters.lightgbm_model import Fitted
from millstream_trainer.domain.table import NUMBER, Table

OUTPUT = "probability"
OPSET, ML_OPSET, IR_VERSION = 15, 3, 8
"""Old enough for every runtime that serves, new enough for what is used here."""
UNKNOWN = -1.0
"""Code of a missing or unknown category: no split of the trees names it, which is where LightGBM sends missing ones."""


def export(fitted: Fitted, table: Table) -> bytes:
    """The graph of `fitted`, with one input of shape (n, 1) per column of `table`, in its order."""
    from onnx import TensorProto, helper

    inputs, nodes, parts = [], [], []
    for column in table.columns:
        kind = TensorProto.FLOAT if column.is_number else TensorProto.STRING
        inputs.append(helper.make_tensor_value_info(column.name, kind, [None, 1]))
        known = () if column.is_number else fitted.categories[column.name]
        if column.is_number:
            parts.append(column.name)
        else:
            # LabelEncoder refuses an empty vocabulary; "" is null and unknown anyway.
            nodes.append(
                helper.make_node(
                    "LabelEncoder",
                    [column.name],
                    [f"{column.name}__code"],
                    domain="ai.onnx.ml",
                    keys_strings=list(known) or [""],
                    values_floats=[float(i) for i in range(len(known))] or [UNKNOWN],
                    default_float=UNKNOWN,
                )
            )
            parts.append(f"{column.name}__code")
    nodes.append(helper.make_node("Concat", parts, ["__columns"], axis=1))
    trees = _trees(fitted, len(table.columns))
    del trees.input[:], trees.output[:]
    trees.input.append("__columns")
    trees.output.extend(["__label", "__probabilities"])
    nodes += [
        trees,
        helper.make_node("Gather", ["__probabilities", "__positive"], [OUTPUT], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "millstream",
        inputs,
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None])],
        [helper.make_tensor("__positive", TensorProto.INT64, [], [1])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="millstream-trainer",
    )
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw


def _trees(fitted: Fitted, columns: int) -> Any:
    """The trees as one node, from onnxmltools; the rest of its graph (label, casts) is not needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # upstream: it warns about the label's shape, and the label is dropped here
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        model = convert_lightgbm(
            fitted.booster,
            initial_types=[("columns", FloatTensorType([None, columns]))],
            zipmap=False,
            target_opset=OPSET,
        )
    return next(node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier")


def score(graph: bytes, inputs: Sequence[InputColumn], table: Table) -> NDArray[np.float32]:
    """Ask a graph about every row. Raises KeyError naming an input that `table` has no column for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Several threads add up the trees of a batch in another order, and the gate's numbers would differ in the last bits.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for declared in inputs:
        column = table.column(declared.name)
        if column.type != declared.type:
            raise KeyError(f"{declared.name} was a {declared.type} and is a {column.type} now")
        dtype = np.float32 if declared.type == NUMBER else object
        feeds[declared.name] = column.values.astype(dtype).reshape(-1, 1)
    answers: NDArray[np.float32] = session.run([OUTPUT], feeds)[0]
    return answers
