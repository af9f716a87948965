"""A model that runs elsewhere: judged through its endpoint as any other, packed as how to ask it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import msgspec
import numpy as np
import onnxruntime
import pytest

from millstream.contracts.events import Cause, GivenModel, RetrainRequested
from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, REMOTE_FILE, BadPackage, Remote
from millstream.project import Loop
from millstream.runtime.http import http_app
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import remote_session
from millstream_trainer.adapters.remote_session import RemoteAsked
from millstream_trainer.api import add_routes
from millstream_trainer.domain.gate import LARGEST_DIFFERENCE
from millstream_trainer.errors import RunFailed

from .test_trainer_given import FOG, LENGTH, UNTIL, elsewhere, named
from .test_trainer_given import packages as _packages
from .test_trainer_given import tides_loop as _tides_loop
from .test_trainer_run import SPEC, trained
from .trainer_kit import Office

packages, tides_loop = _packages, _tides_loop
DTYPES: dict[str, Any] = {"FP32": "<f4", "FP64": "<f8"}
KINDS = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(string)": "BYTES", "tensor(int64)": "INT64"}


class Endpoint(ThreadingHTTPServer):
    """An ONNX graph behind the protocol, tensors as bytes: no code of ours."""

    daemon_threads = True

    def __init__(self, graph: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.session = onnxruntime.InferenceSession(graph)
        self.broken = self.drips = False
        self.most: int | None = None
        """Rows of an answer."""
        self.described: Callable[[], None] = lambda: None
        """Called before it says what it takes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2/models/tides"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.described()
        session = self.server.session
        nodes = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
        said = {
            key: [
                {"name": n.name, "datatype": KINDS[n.type], "shape": [s if isinstance(s, int) else -1 for s in n.shape]}
                for n in found
            ]
            for key, found in nodes.items()
        }
        self._say({"name": "tides", **said}, b"")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        at = int(self.headers["inference-header-content-length"])
        head, feeds = json.loads(raw[:at]), {}
        if self.server.broken:
            self.send_error(500, "out of memory")
            return
        if self.server.drips:
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            with suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.02)
            return
        for one in head["inputs"]:
            size = one["parameters"]["binary_data_size"]
            part, at = raw[at : at + size], at + size
            feeds[one["name"]] = _tensor(one["datatype"], part).reshape(one["shape"])
        name = head["outputs"][0]["name"]
        found = self.server.session.run([name], feeds)[0].astype("<f4")[: self.server.most]
        output = {"name": name, "datatype": "FP32", "shape": found.shape}
        self._say({"outputs": [output | {"parameters": {"binary_data_size": found.nbytes}}]}, found.tobytes())

    def _say(self, head: dict[str, Any], binary: bytes) -> None:
        body = json.dumps(head).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body) + len(binary)))
        self.send_header("inference-header-content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body + binary)


def _tensor(datatype: str, raw: bytes) -> np.ndarray[Any, Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPES[datatype])
    texts, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(texts, dtype=object)


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, ships: Any) -> Iterator[Endpoint]:
    graph = named() if getattr(request, "param", "matrix") == "named" else elsewhere(ships.dataset().table)
    server = Endpoint(graph)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def spec_of(url: str, **said: Any) -> Any:
    given = GivenModel(sha256="", remote=url, **{"learned_until": UNTIL, **said})
    return msgspec.structs.replace(SPEC, cause=Cause.MANUAL, given=given)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("matrix", {"inputs": [FOG, LENGTH], "output": "probabilities"}),
        ("named", {"output": "late"}),
    ],
    indirect=["endpoint"],
)
def test_it_goes_through_the_gate_as_a_graph_does(
    tides_loop: Loop, ships: Any, packages: PackageStore, endpoint: Endpoint, said: dict[str, Any]
) -> None:
    data = ships.dataset()
    result = trained(tides_loop, data, packages, spec_of(endpoint.url, **said), hosts="127.0.0.1")
    assert result.passed, result.reason
    assert f"{endpoint.url} is asked" in result.reason
    manifest = packages.manifest(result.model)
    assert {REMOTE_FILE, REFERENCE_FILE} == manifest.files.keys()
    with pytest.raises(BadPackage, match="asked where it runs"):
        packages.file(result.model, manifest, MODEL_FILE)
    raw = packages.file(result.model, manifest, REMOTE_FILE)
    remote = msgspec.json.decode(raw, type=Remote)
    assert sorted(name for one in remote.inputs for name in one.columns) == sorted(one.name for one in manifest.inputs)
    holdout = data.table.split(int(UNTIL.timestamp() * 1e6))[1]
    found = RemoteAsked(raw, manifest.inputs, manifest.output, "127.0.0.1").score(holdout)
    feeds = {
        n.name: np.column_stack([holdout.column(c).values for c in one.columns])
        for n, one in zip(endpoint.session.get_inputs(), remote.inputs, strict=True)
    }
    if said.get("inputs"):
        wanted = endpoint.session.run(["probabilities"], {"X": feeds["X"].astype(np.float32)})[0][:, 1]
        assert np.abs(found - wanted).max() <= LARGEST_DIFFERENCE
    again = msgspec.structs.replace(SPEC, run="r2", version="2", champion=result.model)
    assert "champion" in str(trained(tides_loop, data, packages, again, hosts="127.0.0.1").metrics), (
        "it is compared with"
    )
    endpoint.broken = True
    with pytest.raises(RunFailed, match=r"the champion, version .*, cannot be compared with: .* answers 500"):
        trained(tides_loop, data, packages, again, hosts="127.0.0.1")


@pytest.mark.parametrize(
    ("said", "hosts", "why"),
    [
        ({}, "", "is not among the hosts that may be asked .there are none.; add it to MILLSTREAM_MODEL_HOSTS"),
        ({}, "127.0.0.1", "write output: which of the graph's outputs answers|no column 'X'"),
        ({"inputs": [FOG, "draught"]}, "127.0.0.1", "no column 'draught'; it has"),
    ],
)
def test_what_does_not_fit_is_said(
    tides_loop: Loop, ships: Any, packages: PackageStore, endpoint: Endpoint, said: Any, hosts: str, why: str
) -> None:
    with pytest.raises(RunFailed, match=why):
        trained(tides_loop, ships.dataset(), packages, spec_of(endpoint.url, **said), hosts=hosts)


def test_one_that_is_away_or_broken_is_not_judged(
    tides_loop: Loop, ships: Any, packages: PackageStore, endpoint: Endpoint
) -> None:
    said = {"inputs": [FOG, LENGTH], "output": "probabilities"}
    with pytest.raises(RunFailed, match="does not answer"):
        trained(
            tides_loop, ships.dataset(), packages, spec_of("http://127.0.0.1:9/v2/models/x", **said), hosts="127.0.0.1"
        )
    endpoint.broken = True
    with pytest.raises(RunFailed, match="answers 500"):
        trained(tides_loop, ships.dataset(), packages, spec_of(endpoint.url, **said), hosts="127.0.0.1")


@pytest.mark.parametrize(
    ("change", "limit", "why"),
    [
        ({"most": 3}, {}, "rows in: shape .3, 2. out"),
        ({"drips": True}, {"WITHIN": 0.2}, "does not answer: .* bytes within"),
        ({}, {"LARGEST_ANSWER": 500}, "its answer has more than 500 bytes"),
    ],
    ids=["too few rows", "in drops", "without end"],
)
def test_an_answer_has_an_end_and_a_shape(
    tides_loop: Loop,
    ships: Any,
    packages: PackageStore,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    limit: dict[str, Any],
    why: str,
) -> None:
    said = {"inputs": [FOG, LENGTH], "output": "probabilities"}
    for name, value in change.items():
        setattr(endpoint, name, value)

    def limited() -> None:
        """Of the answers alone: whoever asks waits for each piece as long as ever."""
        for name, value in limit.items():
            monkeypatch.setattr(remote_session, name, value)

    endpoint.described = limited
    with pytest.raises(RunFailed, match=why):
        trained(tides_loop, ships.dataset(), packages, spec_of(endpoint.url, **said), hosts="127.0.0.1")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"remote": "http://triton:8000/v2/models/x"}, 202),
        ({"remote": "http://evil/v2/models/x"}, 422),
        ({"remote": "http://triton:8000/v2/models/x", "model": "0" * 64}, 422),
        ({}, 422),
    ],
)
async def test_the_door_takes_a_model_or_where_it_runs(tides: Any, change: dict[str, str], status: int) -> None:
    office = Office(tides.rules)
    app = http_app(title="trainer")
    add_routes(app, office.trainer, office.announcer, office.packages, "triton")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://trainer") as http:
        said = {"by": "Ada", "reason": "the GPU's", "learned_until": "2013-01-05T00:00:00Z"} | change
        found = await http.post("/v1/loops/tides/register", json=said)
    assert found.status_code == status, found.text
    asked = office.announcer.of(RetrainRequested)
    assert [one.given.remote for one in asked] == ([change["remote"]] if status == 202 else [])
