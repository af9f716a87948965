"""A model that was made elsewhere: read by what is said of it, judged as any other, refused in words that help."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from millstream.contracts.events import Cause, Decision, GivenModel, RetrainDecided, RetrainRequested
from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, BadPackage, Reference
from millstream.project import Loop, load_project
from millstream.runtime.http import http_app
from millstream.runtime.packages import GIVEN, MOST_GIVEN, PackageStore
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_trainer.adapters.onnx_graph import Asked
from millstream_trainer.api import LARGEST_GRAPH, add_routes
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed

from .test_trainer_run import SPEC, trained
from .trainer_kit import Office

FOG, LENGTH = "pier_arrivals__mean_delay_6h", "length"
UNTIL = datetime(2013, 2, 15, tzinfo=UTC)
"""The holdout begins three days later."""


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


def elsewhere(table: Table, *, zipmap: bool = False, imputed: bool = True) -> bytes:
    """What somebody fitted in a notebook: scikit-learn's own export, one matrix in, a label and probabilities out."""
    before = table.split(int(UNTIL.timestamp() * 1e6))[0]
    matrix = np.column_stack([before.column(name).values for name in (FOG, LENGTH)])
    steps = [SimpleImputer(), LogisticRegression()] if imputed else [LogisticRegression()]
    fitted = make_pipeline(*steps).fit(np.nan_to_num(matrix), before.labels)
    return to_onnx(fitted, matrix[:1], options={"zipmap": zipmap}, target_opset=15).SerializeToString()


def named(*, bias: float = 0.0) -> bytes:
    """A graph that takes the loop's own columns: a flat double, a matrix of one, and a text."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", [FOG], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["cast"], ["no_fog"]),
        helper.make_node("Where", ["no_fog", "zero", "cast"], ["fog"]),
        helper.make_node("Reshape", [LENGTH, "flat"], ["long"]),
        helper.make_node("IsNaN", ["long"], ["unknown"]),
        helper.make_node("Where", ["unknown", "mean", "long"], ["length_"]),
        helper.make_node("LabelEncoder", ["pier"], ["code"], domain="ai.onnx.ml", keys_strings=["north"],
                         values_floats=[10.0], default_float=0.0),
        helper.make_node("Reshape", ["code", "flat"], ["north"]),
        helper.make_node("Sum", ["fog", "north"], ["a"]),
        helper.make_node("Mul", ["length_", "tenth"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Sub", ["c", "offset"], ["d"]),
        helper.make_node("Div", ["d", "width"], ["e"]),
        helper.make_node("Sigmoid", ["e"], ["late"]),
    ]  # fmt: skip
    constants = {"flat": np.array([-1]), "tenth": np.float32(0.1), "mean": np.float32(120.0), "zero": np.float32(0.0)}
    constants |= {"offset": np.float32(26.0 + bias), "width": np.float32(4.0)}
    graph = helper.make_graph(
        nodes,
        "own",
        [
            helper.make_tensor_value_info(FOG, TensorProto.DOUBLE, ["n"]),
            helper.make_tensor_value_info(LENGTH, TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("pier", TensorProto.STRING, ["n", 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("late", "e")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    raw: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return raw


def given(packages: PackageStore, raw: bytes, **said: Any) -> Any:
    """The spec of a run that judges it."""
    model = GivenModel(sha256=packages.give(raw), **{"learned_until": UNTIL, **said})
    return msgspec.structs.replace(SPEC, cause=Cause.MANUAL, given=model)


def test_a_notebooks_export_is_judged_and_packed_as_any_other(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    raw = elsewhere(data.table)
    result = trained(tides_loop, data, packages, given(packages, raw, inputs=[FOG, LENGTH]))
    assert result.passed, result.reason
    assert "not fitted here" in result.reason
    assert "export_difference" in [check.name for check in result.gate]
    manifest = packages.manifest(result.model)
    assert [(one.name, one.source) for one in manifest.inputs] == [(FOG, "feature"), (LENGTH, "input")]
    assert (manifest.task, manifest.output) == ("binary", "probability")
    # What serves answers as the graph that was given.
    import onnxruntime

    holdout = data.table.split(int(UNTIL.timestamp() * 1e6))[1]
    matrix = np.column_stack([holdout.column(name).values for name in (FOG, LENGTH)])
    wanted = onnxruntime.InferenceSession(raw).run(["probabilities"], {"X": matrix})[0][:, 1]
    served = Asked(packages.file(result.model, manifest, MODEL_FILE), manifest.inputs, manifest.output)
    assert np.array_equal(served.score(holdout), wanted)
    model = OnnxRuntime(1).load(packages.file(result.model, manifest, MODEL_FILE), manifest.inputs, manifest.output)
    columns = {name: holdout.column(name).values.astype(np.float32).reshape(-1, 1) for name in (FOG, LENGTH)}
    assert np.array_equal(model.run(columns), wanted), "in serving's own runtime too"
    reference = msgspec.json.decode(packages.file(result.model, manifest, REFERENCE_FILE), type=Reference)
    weights = {column.name: column.importance for column in reference.columns}
    assert weights.keys() == {FOG, LENGTH}
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights[FOG] > weights[LENGTH] > 0


def test_a_graph_with_the_loops_own_columns_needs_no_list_of_them(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    champion = trained(tides_loop, data, packages, given(packages, elsewhere(data.table), inputs=[FOG, LENGTH])).model
    spec = msgspec.structs.replace(given(packages, named(), output="late"), run="r2", version="2", champion=champion)
    result = trained(tides_loop, data, packages, spec)
    assert result.passed, result.reason
    assert [one.name for one in packages.manifest(result.model).inputs] == [FOG, LENGTH, "pier"]
    worse = msgspec.structs.replace(given(packages, named(bias=40.0), output="late"), run="r3", champion=champion)
    rejected = trained(tides_loop, data, packages, worse)
    assert not rejected.passed, "the gate is the same for all"


def test_what_it_has_learned_does_not_judge_it(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data, later = ships.dataset(), datetime(2013, 2, 20, tzinfo=UTC)
    raw = elsewhere(data.table)
    rows = []
    for until in (UNTIL, later):
        judged = trained(tides_loop, data, packages, given(packages, raw, inputs=[FOG, LENGTH], learned_until=until))
        rows.append(packages.manifest(judged.model).lineage.holdout_rows)
    assert rows[1] == int(np.sum(data.table.known_at > later.timestamp() * 1e6))
    assert 0 < rows[1] < rows[0]
    with pytest.raises(RunFailed, match="are needed to judge it: register it later"):
        trained(
            tides_loop,
            data,
            packages,
            given(packages, raw, inputs=[FOG, LENGTH], learned_until=SPEC.at - timedelta(hours=1)),
        )


@pytest.mark.parametrize(
    ("graph", "said", "why"),
    [
        ("matrix", {}, "no column 'X'; it has .*; if its one input is a matrix, write inputs"),
        ("matrix", {"inputs": [FOG, "draught"]}, "no column 'draught'; it has"),
        ("matrix", {"inputs": [FOG]}, "inputs has 1 columns, but X is tensor.float. of shape"),
        ("matrix", {"inputs": [FOG, FOG]}, "among inputs twice"),
        ("matrix", {"inputs": [FOG, "pier"]}, "column pier holds texts"),
        ("matrix", {"inputs": [FOG, LENGTH], "output": "label"}, "no output 'label' of float or double; it has label"),
        ("zipmap", {"inputs": [FOG, LENGTH], "output": "output_probability"}, "export with zipmap off"),
        ("named", {}, "write output: which of the graph's outputs answers; it has late"),
        ("named", {"output": "e"}, "no probability; name the output that has probabilities"),
        ("named", {"inputs": [FOG, LENGTH], "output": "late"}, "columns of one matrix, but the graph has 3 inputs"),
        ("blind", {"inputs": [FOG, LENGTH]}, "no answer where values are missing"),
        ("none", {}, "onnxruntime cannot read the graph"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_words_that_help(
    tides_loop: Loop, ships: Any, packages: PackageStore, graph: str, said: dict[str, Any], why: str
) -> None:
    data = ships.dataset()
    raw = {
        "matrix": lambda: elsewhere(data.table),
        "zipmap": lambda: elsewhere(data.table, zipmap=True),
        "named": named,
        "blind": lambda: elsewhere(data.table, imputed=False),
        "none": lambda: b"no graph",
    }[graph]()
    with pytest.raises(RunFailed, match=why):
        trained(tides_loop, data, packages, given(packages, raw, **said))


def test_a_graph_that_is_gone_or_was_changed_is_not_judged(
    tides_loop: Loop, ships: Any, packages: PackageStore, tmp_path: Path
) -> None:
    spec = given(packages, named(), output="late")
    (tmp_path / "packages" / GIVEN / f"{spec.given.sha256}.onnx").write_bytes(b"another")
    with pytest.raises(RunFailed, match="its hash is another; send it again"):
        trained(tides_loop, ships.dataset(), packages, spec)
    with pytest.raises(BadPackage, match="is not among the packages"):
        packages.given("0" * 64)
    for number in range(MOST_GIVEN + 5):
        packages.give(f"graph {number}".encode())
    assert len(list((tmp_path / "packages" / GIVEN).iterdir())) == MOST_GIVEN
    assert packages.is_given(packages.give(b"the last"))


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(tides.rules)


@pytest.fixture
async def http(office: Office) -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(title="trainer")
    add_routes(app, office.trainer, office.announcer, office.packages)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as found:
        yield found


OCTETS = {"content-type": "application/octet-stream"}


async def test_a_graph_that_is_registered_is_the_next_runs_own_after_a_restart_too(
    office: Office, tides: Any, http: httpx.AsyncClient, until: Callable[[Callable[[], bool]], Any]
) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    sent = await http.put("/v1/loops/tides/given", content=named(), headers=OCTETS)
    assert sent.status_code == 200
    said = {
        "by": "Ada",
        "reason": "the notebook",
        "model": sent.json()["model"],
        "learned_until": "2013-01-05T00:00:00Z",
    }
    taken = await http.post("/v1/loops/tides/register", json=said | {"inputs": ["length"], "output": "late"})
    assert taken.status_code == 202
    (request,) = office.announcer.of(RetrainRequested)
    assert request.id == taken.json()["request"]
    await office.trainer.hear(request)  # decided, and the trainer ends before it runs
    decided = office.announcer.of(RetrainDecided)[-1]
    assert (decided.decision, decided.given) == (Decision.ACCEPTED, request.given)
    successor = office.restarted()
    async with successor.at_work():
        await successor.trainer.resume()
        await until(successor.ended())
    (spec,) = successor.executor.specs
    assert spec.given == GivenModel(
        sha256=said["model"], learned_until=datetime(2013, 1, 5, tzinfo=UTC), inputs=["length"], output="late"
    )
    assert spec.version == "2"


async def test_while_another_run_is_under_way_it_is_declined_not_forgotten_in_it(office: Office, tides: Any) -> None:
    await office.trainer.hear(tides.matured(10))
    model = GivenModel(sha256="0" * 64, learned_until=UNTIL)
    wish = RetrainRequested(id="w", loop="tides", cause=Cause.MANUAL, by="Ada", reason="the notebook", given=model)
    await office.trainer.hear(wish)
    decided = office.announcer.of(RetrainDecided)[-1]
    assert decided.decision is Decision.DECLINED
    assert "is under way, register it after that" in decided.reason
    assert decided.given is None


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"model": "0" * 64}, 404, "unknown_model"),
        ({"model": "../../etc/passwd"}, 422, "bad_body"),
        ({"learned_until": "2013-01-05T00:00:00"}, 422, "bad_body"),
        ({"learned_until": None}, 422, "bad_body"),
        ({"epochs": 3}, 422, "bad_body"),
    ],
)
async def test_what_cannot_be_registered_is_refused_at_the_door(
    office: Office, http: httpx.AsyncClient, change: dict[str, Any], status: int, error: str
) -> None:
    model = (await http.put("/v1/loops/tides/given", content=named(), headers=OCTETS)).json()["model"]
    said = {"by": "Ada", "reason": "the notebook", "model": model, "learned_until": "2013-01-05T00:00:00Z"} | change
    refused = await http.post("/v1/loops/tides/register", json=said)
    assert (refused.status_code, refused.json()["error"]) == (status, error)
    assert not office.announcer.of(RetrainRequested)


async def test_a_graph_is_sent_as_bytes_and_not_without_end(http: httpx.AsyncClient) -> None:
    assert (await http.put("/v1/loops/tides/given", json={})).status_code == 415
    assert (await http.put("/v1/loops/nowhere/given", content=b"", headers=OCTETS)).status_code == 404
    large = OCTETS | {"content-length": str(LARGEST_GRAPH + 1)}
    assert (await http.put("/v1/loops/tides/given", content=b"", headers=large)).status_code == 413


@pytest.mark.parametrize(
    "raw",
    [b"", pickle.dumps({"coef": [1.0]}), b"PK\x03\x04" + bytes(300), b"tree\nversion=v4\n", named()[:-1]],
    ids=["empty", "pickle", "zip", "text", "cut short"],
)
async def test_what_is_no_graph_is_refused_before_it_waits_for_a_run(
    office: Office, http: httpx.AsyncClient, raw: bytes
) -> None:
    refused = await http.put("/v1/loops/tides/given", content=raw, headers=OCTETS)
    assert (refused.status_code, refused.json()["error"]) == (422, "bad_body")
    assert "no ONNX graph" in refused.json()["message"]
    assert not office.packages.graphs
