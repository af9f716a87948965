"""Models as ONNX graphs in onnxruntime: all preprocessing is in the graph, nothing is unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn
from millstream_serving.domain.columns import Columns
from millstream_serving.errors import ModelFailed, ModelRefused

_TYPES = {"number": "tensor(float)", "category": "tensor(string)"}


class OnnxModel:
    """`ports.Model` on one session. Sessions are safe for concurrent runs."""

    def __init__(self, session: Any, output: str) -> None:
        self._session = session
        self._outputs = [output]

    def run(self, columns: Columns) -> NDArray[np.float32]:
        try:
            found: NDArray[np.float32] = self._session.run(self._outputs, columns)[0]
        # onnxruntime's own errors share no base class but Exception.
        except Exception as error:
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        return found


class OnnxRuntime:
    """`ports.ModelRuntime`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def load(self, raw: bytes, inputs: Sequence[InputColumn], output: str) -> OnnxModel:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Waiting threads would burn the cores that the other services need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; warnings about graphs are the trainer's business
        try:
            session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            raise ModelRefused("graph", f"onnxruntime cannot read the graph: {error}") from error
        wanted = [(column.name, _TYPES.get(column.type, column.type)) for column in inputs]
        found = [(node.name, node.type) for node in session.get_inputs()]
        if wanted != found:
            odd = next(
                (f"{w} in the manifest, {f} in the graph" for w, f in zip(wanted, found, strict=False) if w != f), ""
            )
            raise ModelRefused("graph", f"{len(wanted)} inputs in the manifest, {len(found)} in the graph; {odd}")
        outputs = {node.name: node.type for node in session.get_outputs()}
        if outputs.get(output) != "tensor(float)":
            raise ModelRefused("graph", f"the graph has no float output {output!r}; found: {outputs}")
        return OnnxModel(session, output)
