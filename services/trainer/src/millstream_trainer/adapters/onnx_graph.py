"""One ONNX graph with all preprocessing inside: named columns in, answers out; and how such a graph is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn
from millstream.contracts.tasks import Task
from millstream_trainer.domain.correction import Correction
from millstream_trainer.domain.encoding import Encoding
from millstream_trainer.domain.table import NUMBER, Table

OUTPUTS = {Task.BINARY: "probability", Task.MULTICLASS: "probabilities", Task.REGRESSION: "value"}
"""Shapes: (n,), (n, classes), (n,)."""
OPSET, ML_OPSET, IR_VERSION = 15, 3, 8
"""Old enough for every runtime that serves, new enough for what is used here. A core may need a newer opset; the nodes around
it mean the same up to 18."""
UNKNOWN = -1.0
"""Code of a missing or unknown category: no split of the trees names it, which is where LightGBM sends missing ones."""
ASKED = 50
"""Single rows that the time of one is measured by; the median of them, since other processes take their turns."""


def assemble(
    core: Any, encoding: Encoding, inputs: Sequence[InputColumn], task: Task, corrections: Sequence[Correction]
) -> bytes:
    """The graph of a model, with one input of shape (n, 1) per column, in their order.

    `core`: ONNX model from the matrix `columns` to probabilities (n, classes) or a mean, its last output.
    """
    from onnx import TensorProto, compose, helper

    graph = compose.add_prefix(core, "model/").graph
    opset = max([OPSET, *(said.version for said in core.opset_import if said.domain in ("", "ai.onnx"))])
    nodes = _encoded(encoding, inputs)
    nodes += _needed(graph, found := graph.output[-1].name)
    for node in nodes:
        for position, name in enumerate(node.input):
            if name == graph.input[0].name:
                node.input[position] = "columns"
    constants = _Constants(list(graph.initializer))
    for number, correction in enumerate(corrections):
        corrected = f"corrected{number}"
        nodes += correction_nodes(correction, found, corrected, constants)
        found = corrected
    if task is not Task.REGRESSION:
        # Float32 sums of a forest's shares end a hair above 1.
        low, high = constants.floats("nought", np.array(0.0)), constants.floats("one", np.array(1.0))
        nodes.append(helper.make_node("Clip", [found, low, high], ["chances"]))
        found = "chances"
    output, shape = OUTPUTS[task], [None]
    if task is Task.BINARY:
        nodes.append(helper.make_node("Gather", [found, constants.ints("positive", [], [1])], [output], axis=1))
    elif task is Task.REGRESSION:
        nodes.append(helper.make_node("Reshape", [found, constants.ints("flat", [1], [-1])], [output]))
    else:
        shape = [None, None]
        nodes.append(helper.make_node("Identity", [found], [output]))
    kinds = {True: TensorProto.FLOAT, False: TensorProto.STRING}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "millstream",
            [helper.make_tensor_value_info(i.name, kinds[i.type == NUMBER], [None, 1]) for i in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            constants.tensors,
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="millstream-trainer",
    )
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw


class _Constants:
    """The tensors of a graph."""

    def __init__(self, tensors: list[Any]) -> None:
        self.tensors = tensors

    def floats(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        return self._add(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))

    def ints(self, name: str, shape: list[int], values: list[int]) -> str:
        from onnx import TensorProto, helper

        return self._add(helper.make_tensor(name, TensorProto.INT64, shape, values))

    def _add(self, tensor: Any) -> str:
        self.tensors.append(tensor)
        return str(tensor.name)


def _encoded(encoding: Encoding, inputs: Sequence[InputColumn]) -> list[Any]:
    """Columns to the matrix `columns`, as `Encoding.matrix` does it."""
    from onnx import helper

    nodes, parts = [], []
    for column in inputs:
        if column.type == NUMBER:
            parts.append(column.name)
            continue
        known = encoding.categories[column.name]
        code = f"{column.name}/code"
        # LabelEncoder refuses an empty vocabulary; "" is null and unknown anyway.
        keys, codes = list(known) or [""], [float(i) for i in range(len(known))] or [UNKNOWN]
        if not encoding.one_hot:
            parts.append(code)
        elif not known:
            continue
        else:
            parts.append(f"{column.name}/known")
        encoder: dict[str, Any] = {"keys_strings": keys, "values_floats": codes, "default_float": UNKNOWN}
        nodes.append(helper.make_node("LabelEncoder", [column.name], [code], domain="ai.onnx.ml", **encoder))
        if encoding.one_hot:
            nodes += _one_hot(code, f"{column.name}/known", len(known))
    nodes.append(helper.make_node("Concat", parts, ["columns"], axis=1))
    return nodes


def _one_hot(code: str, into: str, width: int) -> list[Any]:
    from onnx import TensorProto, helper, numpy_helper

    places = numpy_helper.from_array(np.arange(width, dtype=np.float32).reshape(1, width))
    return [
        helper.make_node("Constant", [], [f"{into}/places"], value=places),
        helper.make_node("Equal", [code, f"{into}/places"], [f"{into}/truth"]),
        helper.make_node("Cast", [f"{into}/truth"], [into], to=TensorProto.FLOAT),
    ]


def _needed(graph: Any, output: str) -> list[Any]:
    """The nodes that `output` is made by: converters also give a label, which nobody reads."""
    wanted, kept = {output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def correction_nodes(correction: Correction, chances: str, into: str, constants: _Constants) -> list[Any]:
    """The arithmetic of `domain.correction`, from probabilities (n, classes) to such."""
    from onnx import helper

    from millstream.contracts.tasks import SMALLEST
    from millstream_trainer.domain.correction import Isotonic, Sigmoid, Unweighted

    step = 0

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        nonlocal step
        step += 1
        nodes.append(helper.make_node(kind, list(inputs), [f"{into}/{step}"], **attributes))
        return f"{into}/{step}"

    nodes: list[Any] = []
    low = constants.floats(f"{into}/low", np.array(SMALLEST))
    one = constants.floats(f"{into}/one", np.array(1.0))
    if isinstance(correction, Unweighted):
        found = node("Div", chances, constants.floats(f"{into}/weights", correction.weights))
    elif isinstance(correction, Sigmoid):
        inside = node("Clip", chances, low, constants.floats(f"{into}/high", np.array(1 - SMALLEST)))
        odds = node("Log", node("Div", inside, node("Sub", one, inside)))
        sloped = node("Mul", odds, constants.floats(f"{into}/slopes", correction.slopes))
        found = node("Sigmoid", node("Add", sloped, constants.floats(f"{into}/offsets", correction.offsets)))
    else:
        assert isinstance(correction, Isotonic)
        wide = node("Unsqueeze", chances, constants.ints(f"{into}/last", [1], [2]))
        past = node("Sub", wide, constants.floats(f"{into}/starts", correction.starts))
        ramp = node("Div", past, constants.floats(f"{into}/widths", correction.widths))
        ramp = node("Clip", ramp, constants.floats(f"{into}/zero", np.array(0.0)), one)
        risen = node("Mul", ramp, constants.floats(f"{into}/rises", correction.rises))
        total = node("ReduceSum", risen, constants.ints(f"{into}/axis", [1], [2]), keepdims=0)
        found = node("Clip", node("Add", total, constants.floats(f"{into}/first", correction.first)), low, one)
    sums = node("ReduceSum", found, constants.ints(f"{into}/across", [1], [1]), keepdims=1)
    nodes.append(helper.make_node("Div", [found, sums], [into]))
    return nodes


class Asked:
    """A graph that is asked as serving asks it."""

    def __init__(self, graph: bytes, inputs: Sequence[InputColumn], output: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Several threads add up the trees of a batch in another order, and the gate's numbers would differ in the last bits.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._inputs = inputs
        self._output = output

    def score(self, table: Table) -> NDArray[np.float32]:
        """The answer to every row. Raises KeyError naming an input that `table` has no column for."""
        answers: NDArray[np.float32] = self._session.run([self._output], self._feeds(table))[0]
        return answers

    def milliseconds(self, table: Table) -> float:
        """Time of one row."""
        rows = [self._feeds(table.take(np.array([i % len(table)]))) for i in range(ASKED)]
        self._session.run([self._output], rows[0])
        times = []
        for feeds in rows:
            began = time.perf_counter()
            self._session.run([self._output], feeds)
            times.append(time.perf_counter() - began)
        return float(np.median(times) * 1000)

    def _feeds(self, table: Table) -> dict[str, NDArray[Any]]:
        feeds = {}
        for declared in self._inputs:
            column = table.column(declared.name)
            if column.type != declared.type:
                raise KeyError(f"{declared.name} was a {declared.type} and is a {column.type} now")
            dtype = np.float32 if declared.type == NUMBER else object
            feeds[declared.name] = column.values.astype(dtype).reshape(-1, 1)
        return feeds
