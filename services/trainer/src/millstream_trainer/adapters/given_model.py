"""A graph that was made elsewhere: read by what a person says of it, asked, and made into one that serving takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import GivenModel
from millstream.contracts.package import BadPackage, Remote, RemoteInput
from millstream.contracts.tasks import Task
from millstream.contracts.times import from_datetime, to_rfc3339
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.learning import Learned
from millstream_trainer.adapters.onnx_graph import IR_VERSION, OUTPUTS
from millstream_trainer.adapters.remote_session import DATATYPES, RemoteSession
from millstream_trainer.domain.encoding import Encoding
from millstream_trainer.domain.gate import FEWEST_ROWS
from millstream_trainer.domain.table import Column, Table
from millstream_trainer.errors import RunFailed

NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64}
TEXT = "tensor(string)"
HAIR = 1e-3
"""How far beyond 0 and 1 a sum of float32 may end. What is further out was never a probability."""
OLDEST_OPSET = 11
"""Since then Clip takes its bounds as inputs."""
ASKED_ROWS = 2_000
"""Of the holdout, for the columns' importance: each column costs one run of them."""
SEED = 0


class Outside:
    """`estimators.Fitted` of a graph that nobody fitted here."""

    rounds = None

    def __init__(self, raw: bytes, said: GivenModel, task: Task, table: Table, session: Any = None) -> None:
        """`table` has all columns of the loop, and rows to ask with; `session`: who is asked, if not the graph `raw`.

        Raises RunFailed: the message is for who wrote `said`.
        """
        self._session = session or _session(raw)
        self._raw, self._task = raw, task
        self._nodes = {node.name: node for node in self._session.get_inputs()}
        self._matrix = bool(said.inputs)
        self._columns = _columns(self._nodes, said.inputs, table)
        self._output = _output(self._session.get_outputs(), said.output, task)
        self._second = self._has_two(table.take(np.arange(2)), said.classes)
        self._bears_nulls(table.take(np.arange(2)))
        self._importance = dict.fromkeys(self.names, 0.0)

    @property
    def names(self) -> list[str]:
        """Columns of the loop that it takes, in its order."""
        return [column.name for column in self._columns]

    @property
    def encoding(self) -> Encoding:
        return Encoding(columns=tuple(self.names), categories={}, one_hot=False)

    def ask(self, table: Table) -> NDArray[np.float64]:
        found = self._run(table).astype(np.float64)
        if self._task is Task.REGRESSION:
            return found.reshape(-1)
        finite = found[np.isfinite(found)]
        if finite.size and not (finite.min() >= -HAIR and finite.max() <= 1 + HAIR):
            raise RunFailed(
                f"output {self._output!r} is from {finite.min():.3g} to {finite.max():.3g}: no probability; name the output "
                "that has probabilities, or end the graph with a Sigmoid or Softmax"
            )
        found = np.clip(found, 0.0, 1.0)
        if self._task is Task.MULTICLASS:
            return found
        chances = found[:, 1] if self._second else found.reshape(-1)
        return np.column_stack([1 - chances, chances])

    def weigh(self, learned: Learned, holdout: Table) -> None:
        """Find what each column is worth: by how much the loss rises when its values are dealt out anew (Breiman 2001)."""
        chance = np.random.default_rng(SEED)
        rows = np.sort(chance.permutation(len(holdout))[:ASKED_ROWS])
        some = holdout.take(rows)
        before = float(learned.answers(some).losses(some.labels).mean())
        risen = []
        for name in self.names:
            column = some.column(name)
            dealt = _with(some, name, column.values[chance.permutation(len(some))])
            risen.append(max(0.0, float(learned.answers(dealt).losses(some.labels).mean()) - before))
        self._importance = self.encoding.shares(np.array(risen))

    def importance(self) -> dict[str, float]:
        return self._importance

    def core(self) -> Any:
        raise RunFailed("a graph that was given has its own columns; nothing is assembled around its core")

    def native(self) -> None:
        """None: nobody goes on from it."""

    def graph(self) -> bytes:
        """As serving takes it: an input of shape (n, 1) a column, the task's own output."""
        from onnx import TensorProto, compose, helper, load_model_from_string, numpy_helper

        model = compose.add_prefix(load_model_from_string(self._raw), "given/")
        opsets = {said.domain: said.version for said in model.opset_import}
        opset = opsets.get("", opsets.get("ai.onnx", 15))
        if opset < OLDEST_OPSET:
            raise RunFailed(f"the graph is of opset {opset}; export it with {OLDEST_OPSET} or newer")
        nodes: list[Any] = []
        constants = [
            numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat"),
            numpy_helper.from_array(np.array(0.0, dtype=np.float32), "nought"),
            numpy_helper.from_array(np.array(1.0, dtype=np.float32), "one"),
            numpy_helper.from_array(np.array(1, dtype=np.int64), "second"),
        ]
        for name, node in self._nodes.items():
            found = name
            if self._matrix:
                nodes.append(helper.make_node("Concat", self.names, [found := "columns"], axis=1))
            elif len(node.shape) == 1:
                nodes.append(helper.make_node("Reshape", [found, "flat"], [found := f"{name}/flat"]))
            if node.type == "tensor(double)":
                nodes.append(helper.make_node("Cast", [found], [f"given/{name}"], to=TensorProto.DOUBLE))
            else:
                nodes.append(helper.make_node("Identity", [found], [f"given/{name}"]))
        nodes += model.graph.node
        nodes.append(helper.make_node("Cast", [f"given/{self._output}"], ["numbers"], to=TensorProto.FLOAT))
        found = "numbers"
        if self._second:
            nodes.append(helper.make_node("Gather", [found, "second"], [found := "chance"], axis=1))
        elif self._task is not Task.MULTICLASS:
            nodes.append(helper.make_node("Reshape", [found, "flat"], [found := "flattened"]))
        kept, bounds = ("Identity", []) if self._task is Task.REGRESSION else ("Clip", ["nought", "one"])
        output = OUTPUTS[self._task]
        nodes.append(helper.make_node(kept, [found, *bounds], [output]))
        kinds = {True: TensorProto.FLOAT, False: TensorProto.STRING}
        whole = helper.make_model(
            helper.make_graph(
                nodes,
                "millstream",
                [helper.make_tensor_value_info(c.name, kinds[c.is_number], [None, 1]) for c in self._columns],
                [
                    helper.make_tensor_value_info(
                        output, TensorProto.FLOAT, [None, None] if self._task is Task.MULTICLASS else [None]
                    )
                ],
                [*model.graph.initializer, *constants],
            ),
            opset_imports=[helper.make_opsetid(domain, number) for domain, number in ({"": opset} | opsets).items()],
            ir_version=max(IR_VERSION, model.ir_version),
            functions=list(model.functions),
            producer_name="millstream-trainer",
        )
        raw: bytes = whole.SerializeToString(deterministic=True)
        return raw

    def _run(self, table: Table) -> NDArray[Any]:
        feeds: dict[str, NDArray[Any]] = {}
        for name, node in self._nodes.items():
            dtype = NUMBERS.get(node.type, object)
            if self._matrix:
                feeds[name] = np.column_stack([table.column(one).values for one in self.names]).astype(dtype)
            else:
                feeds[name] = table.column(name).values.astype(dtype).reshape((-1, 1) if len(node.shape) == 2 else -1)
        try:
            found: NDArray[Any] = self._session.run([self._output], feeds)[0]
        except RunFailed:
            raise
        except Exception as error:  # onnxruntime's errors share no base class
            raise RunFailed(f"the graph cannot be asked with this loop's rows: {error}") from error
        return found

    def _has_two(self, probe: Table, classes: Sequence[str]) -> bool:
        """Whether its output has both classes of a binary task. Raises RunFailed for one of another shape than the task's."""
        shape, rows = self._run(probe).shape, len(probe)
        flat = shape in ((rows,), (rows, 1))
        if self._task is Task.MULTICLASS:
            if not classes:
                raise RunFailed("write classes: the names of the label's values, in the order of the output's columns")
            if shape != (rows, len(classes)):
                raise RunFailed(f"output {self._output!r} has shape {shape} for {rows} rows and {len(classes)} classes")
            return False
        two = self._task is Task.BINARY and shape == (rows, 2)
        if not (flat or two):
            wanted = "(n,), (n, 1) or (n, 2)" if self._task is Task.BINARY else "(n,) or (n, 1)"
            raise RunFailed(
                f"output {self._output!r} has shape {shape} for {rows} rows; a {self._task} model has {wanted}"
            )
        return two

    def _bears_nulls(self, probe: Table) -> None:
        """serving asks every model with two such rows before it answers anybody. Raises RunFailed."""
        nulls: dict[bool, Any] = {True: np.array([np.nan, 0.0], dtype=np.float32)}
        nulls[False] = np.array(["", "\N{REPLACEMENT CHARACTER}"], dtype=object)
        columns = tuple(replace(column, values=nulls[column.is_number]) for column in probe.columns)
        found = self.ask(replace(probe, columns=columns))
        if not np.isfinite(found).all():
            raise RunFailed(
                "the graph has no answer where values are missing, which features often are: begin it with an imputer, or with "
                "Where and IsNaN"
            )


class Elsewhere(Outside):
    """The same of a model that runs elsewhere: what is packed is how to ask it."""

    def __init__(self, said: GivenModel, task: Task, table: Table, hosts: str) -> None:
        super().__init__(b"", said, task, table, RemoteSession(said.remote, hosts))
        self._url = said.remote.rstrip("/")

    def graph(self) -> bytes:
        return msgspec.json.encode(
            Remote(
                url=self._url,
                inputs=[
                    RemoteInput(
                        name=name,
                        datatype=DATATYPES[node.type],
                        columns=self.names if self._matrix else [name],
                        flat=len(node.shape) == 1,
                    )
                    for name, node in self._nodes.items()
                ],
                output=self._output,
                second=self._second,
            )
        )


def read(
    said: GivenModel, task: Task, packages: PackageStore, learn: Table, holdout: Table, hosts: str = ""
) -> tuple[Outside, Learned]:
    """The model that was given, weighed by the holdout; `hosts`: of those that run elsewhere. Raises RunFailed."""
    found: Outside
    if said.remote:
        found = Elsewhere(said, task, learn, hosts)
    else:
        try:
            raw = packages.given(said.sha256)
        except BadPackage as error:
            raise RunFailed(f"{error}; send it again: millstream register") from error
        found = Outside(raw, said, task, learn)
    learned = Learned(task=task, classes=tuple(said.classes), fitted=found, corrections=())
    found.weigh(learned, holdout)
    return found, learned


def unseen(said: GivenModel, holdout: Table) -> Table:
    """The holdout's rows that it has not learned. Raises RunFailed where they are too few to judge by."""
    rows = holdout.asked_from(from_datetime(said.learned_until) + 1)
    if len(rows) < FEWEST_ROWS:
        raise RunFailed(
            f"the model has learned what was asked until {to_rfc3339(from_datetime(said.learned_until))}; of the holdout "
            f"{len(rows)} rows were asked after that, and {FEWEST_ROWS} are needed to judge it: register it later, or write a "
            "longer train.holdout"
        )
    return rows


def narrowed(table: Table, names: Sequence[str]) -> Table:
    """The same rows with these columns alone, in their order."""
    return replace(table, columns=tuple(table.column(name) for name in names))


def note(said: GivenModel) -> str:
    """What a reader of the run has to know of it."""
    until = to_rfc3339(from_datetime(said.learned_until))
    what = f"{said.remote} is asked" if said.remote else f"graph {said.sha256[:12]}… was given"
    return f"not fitted here: {what}, said to have learned until {until}"


def _session(raw: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise RunFailed(f"onnxruntime cannot read the graph: {error}") from error


def _columns(nodes: dict[str, Any], inputs: Sequence[str], table: Table) -> list[Column]:
    known = {column.name: column for column in table.columns}
    if unknown := [name for name in inputs or nodes if name not in known]:
        way = "" if inputs else "; if its one input is a matrix, write inputs: the columns it has, in their order"
        raise RunFailed(f"the loop has no column {unknown[0]!r}; it has {', '.join(known)}{way}")
    if len(set(inputs)) < len(inputs):
        raise RunFailed("a column is among inputs twice; name each once")
    columns = [known[name] for name in inputs or nodes]
    if inputs:
        if len(nodes) != 1:
            raise RunFailed(
                f"inputs are the columns of one matrix, but the graph has {len(nodes)} inputs: {', '.join(nodes)}"
            )
        (node,) = nodes.values()
        wide = node.shape[1] if len(node.shape) == 2 else None
        if node.type not in NUMBERS or len(node.shape) != 2 or (isinstance(wide, int) and wide != len(inputs)):
            raise RunFailed(f"inputs has {len(inputs)} columns, but {node.name} is {node.type} of shape {node.shape}")
        if texts := [column.name for column in columns if not column.is_number]:
            raise RunFailed(
                f"column {texts[0]} holds texts, and a matrix numbers; give the graph an input of that name"
            )
        return columns
    for column, node in zip(columns, nodes.values(), strict=True):
        fits = node.type in NUMBERS if column.is_number else node.type == TEXT
        if not fits or len(node.shape) not in (1, 2):
            wanted = "float or double" if column.is_number else "string"
            raise RunFailed(
                f"input {node.name} is {node.type} of shape {node.shape}; the column needs {wanted}, [n, 1]"
            )
    return columns


def _output(nodes: Sequence[Any], name: str, task: Task) -> str:
    """Which of them answers. Raises RunFailed."""
    listed = ", ".join(f"{node.name} ({node.type})" for node in nodes)
    numbers: list[str] = [node.name for node in nodes if node.type in NUMBERS]
    if name:
        if name not in numbers:
            maps = "; export with zipmap off" if any("seq(" in node.type for node in nodes) else ""
            raise RunFailed(f"the graph has no output {name!r} of float or double; it has {listed}{maps}")
        return name
    found = [one for one in numbers if one == OUTPUTS[task]] or numbers
    if len(found) != 1:
        raise RunFailed(f"write output: which of the graph's outputs answers; it has {listed}")
    return found[0]


def _with(table: Table, name: str, values: NDArray[Any]) -> Table:
    return replace(
        table,
        columns=tuple(replace(one, values=values) if one.name == name else one for one in table.columns),
    )
