"""The onnxruntime adapter: what it refuses, and that a row's answer does not depend on its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from millstream.contracts.package import InputColumn
from millstream.contracts.tasks import Task
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.app import _onnx
from millstream_serving.domain.columns import Columns, empty_columns
from millstream_serving.domain.scores import outputs_of
from millstream_serving.errors import ModelFailed, ModelRefused
from millstream_serving.settings import Settings

from .trees import boosted, softmax

INPUTS = [
    InputColumn(name="distance", source="input", type="number"),
    InputColumn(name="carrier", source="input", type="category"),
    *(InputColumn(name=f"view__delay_{i}", source="feature", type="number") for i in range(16)),
]


@pytest.fixture(scope="module")
def graph() -> bytes:
    return boosted(INPUTS)


def flights(rows: int) -> Columns:
    numbers = np.random.default_rng(7)
    columns: Columns = {}
    for column in INPUTS:
        if column.type == "number":
            values = numbers.uniform(-10, 60, rows).astype(np.float32)
            values[numbers.random(rows) < 0.1] = np.nan
            columns[column.name] = values.reshape(-1, 1)
        else:
            columns[column.name] = numbers.choice(np.array(["B6", "UA", "", "ZZ"], dtype=object), (rows, 1))
    return columns


@pytest.mark.parametrize("size", [1, 2, 7, 45, 128, 500])
def test_a_row_is_answered_alike_in_any_batch(graph: bytes, size: int) -> None:
    """Bit by bit: delivery cuts batches as it likes, and the answers must not show where."""
    model = OnnxRuntime(threads=1).load(graph, INPUTS, "probability")
    columns = flights(500)
    whole = model.run(columns)
    pieces = [
        model.run({name: values[start : start + size] for name, values in columns.items()})
        for start in range(0, 500, size)
    ]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert len(set(whole.tolist())) > 400


def test_nulls_and_strangers_get_a_probability(graph: bytes) -> None:
    found = OnnxRuntime(threads=1).load(graph, INPUTS, "probability").run(empty_columns(INPUTS))
    assert found.shape == (2,)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        (INPUTS[1:], "probability", "17 inputs in the manifest, 18 in the graph"),
        ([INPUTS[1], INPUTS[0], *INPUTS[2:]], "probability", "'carrier'"),
        (INPUTS, "score", "no float output 'score'"),
    ],
)
def test_a_graph_that_is_not_as_its_manifest_says_is_refused(
    graph: bytes, inputs: list[InputColumn], output: str, said: str
) -> None:
    with pytest.raises(ModelRefused, match=said):
        OnnxRuntime(threads=1).load(graph, inputs, output)


def test_a_graph_of_several_classes_gives_each_its_probability() -> None:
    model = OnnxRuntime(threads=1).load(softmax(INPUTS, classes=3), INPUTS, "probabilities")
    columns = {
        name: np.nan_to_num(values) if values.dtype != object else values for name, values in flights(45).items()
    }
    whole = model.run(columns)
    assert whole.shape == (45, 3)
    outputs = outputs_of(Task.MULTICLASS, ["early", "on time", "late"], whole)
    assert all(output and set(output) == {"early", "on time", "late"} for output in outputs)
    assert np.allclose(whole.sum(axis=1), 1.0, atol=1e-6)
    alone = [model.run({name: values[row : row + 1] for name, values in columns.items()}) for row in range(45)]
    assert np.concatenate(alone).tobytes() == whole.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_has_as_many_threads_as_the_setting_says(graph: bytes, threads: int) -> None:
    """Not as many as there are cores, which is what onnxruntime takes where nobody says."""
    model: Any = _onnx(Settings(model_threads=threads)).load(graph, INPUTS, "probability")
    options = model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(ModelRefused, match="cannot read the graph"):
        OnnxRuntime(threads=1).load(b"MZ\x90", INPUTS, "probability")


def test_a_run_that_fails_says_so(graph: bytes) -> None:
    model = OnnxRuntime(threads=1).load(graph, INPUTS, "probability")
    columns = flights(3) | {"distance": np.zeros((2, 1), dtype=np.float32)}
    with pytest.raises(ModelFailed):
        model.run(columns)
