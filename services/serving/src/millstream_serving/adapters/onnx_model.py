"""Models as ONNX graphs in onnxruntime: all preprocessing is in the graph, nothing is unpickled."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn
from millstream_serving.domain.columns import Columns
from millstream_serving.errors import ModelFailed, ModelRefused

_TYPES = {"number": "tensor(float)", "category": "tensor(string)"}


MOST_BOUND = 64
"""Rows of a run whose tensors are kept for the next of as many: handing them over anew costs more than a lone row's trees."""


class OnnxModel:
    """`ports.Model` on one session. Sessions are safe for concurrent runs; what is bound is used by one run at a time."""

    def __init__(self, session: Any, output: str, inputs: Sequence[InputColumn], size: int) -> None:
        self.size = size
        self._session = session
        self._outputs = [output]
        self._names = [column.name for column in inputs]
        shape = session.get_outputs()[0].shape if len(session.get_outputs()) == 1 else []
        self._binds = len(shape) == 1 and all(column.type == "number" for column in inputs)
        self._free: dict[int, list[_Bound]] = {}
        """By rows."""

    def run(self, columns: Columns) -> NDArray[np.float32]:
        rows = len(next(iter(columns.values()))) if columns else 0
        try:
            if self._binds and 0 < rows <= MOST_BOUND:
                free = self._free.setdefault(rows, [])
                try:
                    bound = free.pop()  # in one step: another thread may take the last one
                except IndexError:
                    bound = _Bound(self._session, self._names, self._outputs[0], rows)
                answers = bound.run(columns)
                free.append(bound)  # not after an error: it may hold anything
                return answers
            found: NDArray[np.float32] = self._session.run(self._outputs, columns)[0]
        # onnxruntime's own errors share no base class but Exception.
        except Exception as error:
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        return found


class _Bound:
    """Tensors of one number of rows, in one piece of memory that the session reads and writes as it lies."""

    def __init__(self, session: Any, names: Sequence[str], output: str, rows: int) -> None:
        self._run = session.run_with_iobinding
        self._names = names
        self._cells = np.empty((len(names) * rows, 1), dtype=np.float32)
        self._answers = np.empty(rows, dtype=np.float32)
        self._binding = session.io_binding()
        start, size = self._cells.ctypes.data, rows * self._cells.itemsize
        for place, name in enumerate(names):
            self._binding.bind_input(name, "cpu", 0, np.float32, [rows, 1], start + place * size)
        self._binding.bind_output(output, "cpu", 0, np.float32, [rows], self._answers.ctypes.data)

    def run(self, columns: Columns) -> NDArray[np.float32]:
        # In one call; it refuses columns that have not as many rows as the first, or none.
        np.concatenate([columns[name] for name in self._names], out=self._cells)
        self._run(self._binding)
        return self._answers.copy()


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
        _give_back()
        before = _allocated()
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
        return OnnxModel(session, output, inputs, _size(raw, before, _allocated()))


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33: mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _mallinfo() -> Callable[[], Any] | None:
    found: Any = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if found is not None:
        found.restype = _MallInfo
    return cast("Callable[[], Any] | None", found)


_ask_malloc = _mallinfo()
_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)


def _give_back() -> None:
    """What sessions that were let go have left: malloc keeps it, each thread's for itself, and with models that come and go a
    process would hold twice what they take. Some milliseconds, on the thread of the loading."""
    if _trim is not None:
        _trim(0)


def _allocated() -> int | None:
    """Bytes that are handed out by malloc, in all threads; None where nobody counts them. Not what the process holds: that
    grows with the first session and hardly with the second, which moves into what was freed."""
    if _ask_malloc is None:
        return None
    said = _ask_malloc()
    return int(said.uordblks) + int(said.hblkhd)


TIMES = 10
"""What a session takes beside its graph's bytes, the most that was measured: 10 times at 200 trees (3.8 MB), 6.5 at 1,000."""


def _size(raw: bytes, before: int | None, after: int | None) -> int:
    """What a session takes, its graph's bytes included, which it keeps. What other threads did meanwhile is in it."""
    if before is None or after is None:
        return len(raw) * TIMES
    return max(after - before, 0) + len(raw)
