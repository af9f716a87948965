"""The peers, each in an environment of its own (`peers/locks`), run on the same core in the same minute."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from door import Door, opened
from environment import installed
from model import Fitted
from workload import COLUMNS, infer_body, values

HERE = Path(__file__).parent / "peers"
CLOSE = 1e-5
"""Of a float32 graph to the booster's doubles: 2e-7 were seen."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    args: tuple[str, ...]
    """Of its environment's Python; `{port}` and `{folder}` are filled in."""
    path: str
    ready: str
    body: str = "v2"
    """What it is asked: `v2`, `row` ({"features": […]}) or `split` (MLflow's dataframe_split)."""


def _app(name: str) -> tuple[str, ...]:
    uvicorn = ("-m", "uvicorn", f"{name}_peer:app", "--port", "{port}", "--no-access-log", "--log-level", "warning")
    return (*uvicorn, "--loop", "uvloop", "--http", "httptools", "--app-dir", str(HERE))


PEERS = {
    "lean": Peer(
        args=_app("lean"),
        path="/predict",
        ready="/readyz",
        body="row",
    ),
    "fastapi": Peer(
        args=_app("fastapi"),
        path="/predict",
        ready="/readyz",
        body="row",
    ),
    "mlserver": Peer(
        args=("{bin}/mlserver", "start", "{folder}"),
        path="/v2/models/delays/infer",
        ready="/v2/health/ready",
    ),
    "kserve": Peer(
        args=(str(HERE / "kserve_peer.py"), "--http_port", "{port}", "--enable_grpc", "false"),
        path="/v2/models/delays/infer",
        ready="/v2/health/ready",
    ),
    "mlflow": Peer(
        args=("-m", "mlflow", "models", "serve", "-m", "{folder}/mlflow", "-p", "{port}", "--env-manager", "local"),
        path="/invocations",
        ready="/ping",
        body="split",
    ),
    "bentoml": Peer(
        args=("-m", "bentoml", "serve", "bentoml_peer:Delays", "--port", "{port}", "--working-dir", str(HERE)),
        path="/predict",
        ready="/readyz",
        body="row",
    ),
}


def body_of(peer: Peer) -> bytes:
    row = values(0)
    if peer.body == "row":
        return _json({"features": row})
    if peer.body == "split":
        return _json({"dataframe_split": {"columns": COLUMNS, "data": [row]}})
    return infer_body()


def answers_as(model: Fitted, door: Door, path: str, body: bytes) -> None:
    """Ask once. Raises RuntimeError where the answer does not have the number that the model gives to the row."""
    request = urllib.request.Request(door.url + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"it answers {error.code}: {error.read()[:300]!r}") from error
    truth = float(lightgbm.Booster(model_str=model.booster).predict(np.array([values(0)]))[0])
    if not any(abs(number - truth) < CLOSE for number in _numbers(json.loads(said))):
        raise RuntimeError(f"it answers {said[:300]!r} where its model says {truth:.6f}")


def _numbers(said: object) -> Iterator[float]:
    if isinstance(said, dict | list):
        for one in said.values() if isinstance(said, dict) else said:
            yield from _numbers(one)
    elif isinstance(said, float):
        yield said


@contextmanager
def running(name: str, model: Fitted, folder: Path, port: int) -> Iterator[Door]:
    peer, python = PEERS[name], installed(f"peers-serving-{name}", HERE / "locks" / f"{name}.txt")
    _write(name, model, folder, port, python)
    args = [str(python), *(one.format(port=port, folder=folder, bin=python.parent) for one in peer.args)]
    env = {
        "BENCH_MODEL": str(folder),
        "PYTHONPATH": "",
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    with opened(name, args, port=port, env=env, log=folder / "log", path=peer.ready) as door:
        yield door


def _write(name: str, model: Fitted, folder: Path, port: int, python: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "booster.txt").write_text(model.booster)
    (folder / "model.onnx").write_bytes(model.matrix)
    if name == "mlserver":
        # In process, as the fastest way that it has; metrics and probes on ports of their own.
        settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0}
        (folder / "settings.json").write_text(_json(settings | {"debug": False}).decode())
        said = {
            "name": "delays",
            "implementation": "mlserver_lightgbm.LightGBMModel",
            "parameters": {"uri": str(folder / "booster.txt")},
        }
        (folder / "model-settings.json").write_text(_json(said).decode())
    if name == "mlflow":
        code = (
            "import lightgbm, mlflow.lightgbm, sys, shutil; shutil.rmtree(sys.argv[2], ignore_errors=True); "
            "mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2])"
        )
        subprocess.run([str(python), "-c", code, str(folder / "booster.txt"), str(folder / "mlflow")], check=True)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
