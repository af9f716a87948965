"""Fits PyTorch modules so that the same table gives the same model, and asks them."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream.project.params import TorchFit, TorchParams, growing
from millstream_trainer.adapters import torch_modules
from millstream_trainer.adapters.estimators import How, Lesson, Start, Watch
from millstream_trainer.adapters.torch_modules import Network, Prepared, prepared
from millstream_trainer.domain.encoding import Encoding, Matrix, by_column
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed

Build = Callable[[How, int, int], Any]
"""A module that is not fitted yet, from the widths of its input and its scores."""

OPSET = 18
"""The first that PyTorch's exporter writes; assembling knows it."""
AT_ONCE = 16_384
"""Rows asked at a time, so that a wide module does not hold all rows of a history in all its layers."""
LOOKED_AT = 5_000
"""Rows by which importance is measured: a share of the mean to one in a hundred."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedNetwork:
    """A fitted network and what it takes to ask it."""

    network: Network
    encoding: Encoding
    rounds: int
    weights: NDArray[np.float64]
    """Of the matrix's columns: how far the scores move with a standard deviation of each, in the mean over training rows."""

    def ask(self, table: Table) -> NDArray[np.float64]:
        matrix = torch.from_numpy(self.encoding.matrix(table))
        with _alone(0), torch.no_grad():
            parts = [self.network(part) for part in torch.split(matrix, AT_ONCE)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        return self.encoding.shares(self.weights)

    def native(self) -> tuple[str, bytes]:
        # Copied: weights that a module uses twice would share memory, which the format does not know.
        state = {name: tensor.detach().clone().contiguous() for name, tensor in self.network.state_dict().items()}
        return "safetensors", safetensors.torch.save(state)

    def core(self) -> Any:
        rows = torch.zeros(3, len(self.encoding.owners))
        chatty = logging.getLogger("torch")
        level = chatty.level
        chatty.setLevel(logging.ERROR)  # it names each optional library that is not there
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    self.network,
                    (rows,),
                    dynamo=True,
                    input_names=["columns"],
                    output_names=["answers"],
                    dynamic_shapes=({0: torch.export.Dim("rows")},),
                    opset_version=OPSET,
                    verbose=False,
                )
        # The exporter runs the user's module, and has errors of its own.
        except Exception as error:
            first, *_ = str(error.__cause__ or error).split("\n")  # the rest is the exporter's advice on itself
            why = f"{type(error).__name__}: {first[:300]}"
            raise RunFailed(
                f"{type(self.network.module).__name__} cannot be exported to ONNX ({why}); write a forward of tensor "
                "operations alone, which does the same for one row as for many"
            ) from error
        finally:
            chatty.setLevel(level)
        return _plain(program.model_proto)


class Torch:
    """See `estimators.Estimator`. Fitted by AdamW on shuffled batches; the loss of the validation slice ends it early."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def fit(
        self, lesson: Lesson, how: How, *, against: Lesson | None = None, watch: Watch | None = None
    ) -> FittedNetwork:
        params = _fit_of(how)
        encoding = by_column(lesson.table) if how.start is None else how.start.encoding
        matrix = encoding.matrix(lesson.table)
        with _alone(how.seed):
            columns = torch.from_numpy(matrix)
            if how.start is None:
                network = self._new(how, encoding, matrix, lesson.target)
                _check(network, columns[:2], _outputs(how))
            else:
                state = safetensors.torch.load(how.start.model)
                network = self._gone_on(how, state)
                network.load_state_dict(state)
            checked = _Checked(encoding, against) if against and (params.early_stopping or watch) else None
            epochs = _fitted(network, columns, lesson, params, how, checked, watch)
            network.eval()
            weights = _weights(network, columns)
        before = 0 if how.start is None else how.start.rounds
        return FittedNetwork(network=network, encoding=encoding, rounds=before + epochs, weights=weights)

    def refuses(self, start: Start, how: How) -> str | None:
        found = safetensors.torch.load(start.model)
        with _alone(how.seed):
            network = self._gone_on(how, found)
        now, then = ({name: tuple(t.shape) for name, t in state.items()} for state in (network.state_dict(), found))
        for name in sorted(now.keys() | then.keys()):
            if now.get(name) != then.get(name):
                was, is_ = then.get(name, "not there"), now.get(name, "not there")
                return f"the module is another one: {name} of version {start.version} is {was}, and {is_} now"
        return None

    def _new(self, how: How, encoding: Encoding, matrix: Matrix, target: NDArray[Any]) -> Network:
        """Not fitted, with the scales of these rows. Raises RunFailed."""
        flags = [i for i, owner in enumerate(encoding.owners) if owner in encoding.categories]
        center, spread = _scale_of(how.task, target)
        return self._network(how, prepared(matrix, flags), center, spread)

    def _gone_on(self, how: How, state: dict[str, torch.Tensor]) -> Network:
        """Not fitted, with the scales of `state`, which is still to be loaded. Raises RunFailed."""
        mean, scale, gaps = (state[f"prepare.{name}"].numpy() for name in ("mean", "scale", "gaps"))
        return self._network(how, Prepared(mean, scale, gaps), float(state["center"]), float(state["spread"]))

    def _network(self, how: How, prepare: Prepared, center: float, spread: float) -> Network:
        module = self._build(how, prepare.width, _outputs(how))
        if not isinstance(module, torch.nn.Module):
            raise RunFailed(
                f"model.estimator: the function takes inputs and outputs and returned a {type(module).__name__}; "
                "return a torch.nn.Module, or take (task, params, seed) alone"
            )
        return Network(prepare, module, how.task, center=center, spread=spread)


def perceptron(how: How, inputs: int, outputs: int) -> torch.nn.Module:
    assert isinstance(how.params, TorchParams)
    return torch_modules.perceptron(inputs, outputs, how.params.hidden, how.params.dropout)


class _Checked:
    """The rows that an early stop and a search look at."""

    def __init__(self, encoding: Encoding, lesson: Lesson) -> None:
        self._columns = torch.from_numpy(encoding.matrix(lesson.table))
        self._target = torch.from_numpy(lesson.target)
        self._weights = torch.from_numpy(_row_weights(lesson))

    def loss(self, network: Network) -> float:
        network.eval()
        with torch.no_grad():
            rows = zip(torch.split(self._columns, AT_ONCE), torch.split(self._target, AT_ONCE), strict=True)
            losses = torch.cat([network.losses(columns, target) for columns, target in rows])
        return float((losses * self._weights).sum() / self._weights.sum())


def _fitted(
    network: Network,
    columns: torch.Tensor,
    lesson: Lesson,
    params: TorchFit,
    how: How,
    checked: _Checked | None,
    watch: Watch | None,
) -> int:
    """Fit `network` in place; the epochs that it keeps. Raises RunFailed."""
    target, weights = torch.from_numpy(lesson.target), torch.from_numpy(_row_weights(lesson))
    weights = weights / weights.mean()
    optimizer = torch.optim.AdamW(network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay)
    asked = params.begun if how.start is None else params.added
    best, kept, state = np.inf, asked, None
    for epoch in range(asked):
        network.train()
        for batch in torch.split(torch.randperm(len(columns)), params.batch_size):
            if len(batch) == 1 and len(columns) > 1:
                continue  # batch normalization knows no spread of one row
            loss = (network.losses(columns[batch], target[batch]) * weights[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            raise RunFailed(
                f"the loss is {float(loss.detach())} after {epoch + 1} epochs; write a smaller {_named(how)}.learning_rate"
            )
        if checked is None:
            continue
        found = checked.loss(network)
        if watch is not None:
            watch(epoch, found)
        if not params.early_stopping:
            continue
        if found < best:
            best, kept, state = found, epoch + 1, copy.deepcopy(network.state_dict())
        elif epoch + 1 - kept >= params.early_stopping:
            break
    if state is not None:
        network.load_state_dict(state)
    return kept


def _weights(network: Network, columns: torch.Tensor) -> NDArray[np.float64]:
    """Mean of |d score / d column| over rows, times the column's standard deviation: as `coef_` of standardized columns."""
    some = columns[:: max(1, len(columns) // LOOKED_AT)]
    inside = network.prepare(some).detach().requires_grad_(True)
    network.module(inside).abs().sum().backward()
    if inside.grad is None:  # a module that detaches its input: nothing is known of its columns
        return np.ones(columns.shape[1])
    moved = (inside.grad.abs().mean(dim=0) * inside.detach().std(dim=0)).to(torch.float64).numpy()
    width = columns.shape[1]
    found = moved[:width].copy()
    np.add.at(
        found, network.prepare.gaps.numpy(), moved[width:]
    )  # that a value is missing says something of its column
    return np.asarray(found, dtype=np.float64)


def _check(network: Network, rows: torch.Tensor, outputs: int) -> None:
    """What the user's module gives. Raises RunFailed."""
    network.eval()
    try:
        with torch.no_grad():
            found = network.module(network.prepare(rows))
    except Exception as error:  # it is the user's code
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise RunFailed(
            f"{type(network.module).__name__} cannot be asked ({why}); it takes float32 of shape (rows, inputs), and "
            f"there are {network.prepare.width} inputs"
        ) from error
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != (len(rows), outputs):
        raise RunFailed(
            f"{type(network.module).__name__} gives {shape} for {len(rows)} rows; it must give scores of shape "
            f"({len(rows)}, {outputs}): (rows, outputs)"
        )


def _plain(model: Any) -> Any:
    """Without the exporter's notes: they hold paths of this machine, and the graph is to be the same on each."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _scale_of(task: Task, target: NDArray[Any]) -> tuple[float, float]:
    return (float(target.mean()), float(target.std()) or 1.0) if task is Task.REGRESSION else (0.0, 1.0)


def _outputs(how: How) -> int:
    """Scores of a row: a logit, one for each class, or the standardized mean."""
    return how.classes if how.task is Task.MULTICLASS else 1


def _fit_of(how: How) -> TorchFit:
    found = growing(how.params) or TorchFit()
    assert isinstance(found, TorchFit)
    return found


def _named(how: How) -> str:
    return "model.params" if isinstance(how.params, TorchParams) else "model.params.fit"


def _row_weights(lesson: Lesson) -> NDArray[np.float32]:
    return (np.ones(len(lesson.target)) if lesson.weights is None else lesson.weights).astype(np.float32)


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """One thread, seeded, deterministic, and nobody else's PyTorch is changed by it.

    Several threads add up in another order and give another model; of a table's width they gain little.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)
