"""`make bench-serving`: what serving answers on one core, beside its peers, as JSON in bench/out/serving.json.

The server has one core; Kafka, Valkey and the load share another. Ours and theirs run in turns, and the best of a few runs
counts (a neighbour can only make one worse). What is not asked for stays in the file as it was; see bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import feast_serve
from batch import batch
from batch_lookup import batch_lookup
from door import Door
from kafka_way import backlog
from load import Asked, ask
from mill import Mill, running
from peer import PEERS, answers_as, body_of
from peer import running as peer
from record import console, measure
from workload import GIVEN_QUESTIONS, LOOP, QUESTIONS, given, infer_body, predict_body, question

from millstream.testing.ports import free_port

OUT = Path(__file__).parents[1] / "out" / "serving.json"
PARTS = ("infer", "predict", "kafka", "soak", "cold", "peers", "batch")
CLOSE = ("lean", "fastapi")
"""The peers that `infer` runs beside ours; `peers` runs all."""
INFER, PREDICT = f"/v2/models/{LOOP}/infer", f"/v1/loops/{LOOP}/predict"
LIBRARIES = ("aiokafka", "fastapi", "msgspec", "numpy", "onnxruntime", "uvicorn", "uvloop")


class Bench:
    """What each part does with the servers."""

    def __init__(self, mill: Mill, asked: argparse.Namespace) -> None:
        self._mill, self._asked = mill, asked
        self._run = 0
        self._first = 0

    def infer(self) -> dict[str, Any]:
        """v2, raw features, one row; in turns with the two nearest peers."""
        return self._beside(CLOSE)

    def peers(self) -> dict[str, Any]:
        """The same beside all peers, or those of `--peer`; one that cannot run here is named with its reason."""
        return self._beside(tuple(self._asked.peer or PEERS))

    def predict(self) -> dict[str, Any]:
        """Features looked up, in turns with Feast's own server, which only looks up."""
        ours, theirs = [], []
        for _ in range(self._asked.runs):
            ours.append(self._ours(PREDICT, predict_body()))
            folder = self._mill.root / f"feast-{self._run}"
            with feast_serve.running(self._mill.valkey, folder, free_port()) as door:
                theirs.append(self._asked_of("feast serve", door, feast_serve.PATH, feast_serve.body()))
        best, peer_best = (max(runs, key=lambda run: run.rps) for runs in (ours, theirs))
        return {
            **{f"predict_{name}": value for name, value in asdict(best).items()},
            "predict_vs_feast_serve": round(best.rps / peer_best.rps, 2),
            "feast_serve": asdict(peer_best),
        }

    def kafka(self) -> dict[str, Any]:
        with_features = self._most(QUESTIONS, question)
        raw = self._most(GIVEN_QUESTIONS, given)
        return {"kafka_predictions_per_second": with_features, "kafka_raw_per_second": raw}

    def batch(self) -> dict[str, Any]:
        """A table whose features are given, and one whose features are looked up: processes of their own, which ask nobody."""
        return batch(self._asked.runs) | batch_lookup(self._asked.runs)

    def soak(self) -> dict[str, Any]:
        """Requests of both kinds until there are enough; memory from the end of the first tenth on."""
        with self._mill.serving() as door:
            asked, errors, grown = 0, 0, 0.0
            began, first = time.perf_counter(), 0.0
            while asked < self._asked.requests:
                for path, body in ((INFER, infer_body()), (PREDICT, predict_body())):
                    self._run += 1
                    found = ask(door, path, body, self._asked.seconds, self._run)
                    asked, errors = asked + found.requests, errors + found.errors
                rss = door.rss_mb()
                if not first and asked >= self._asked.requests / 10:
                    first = rss
                grown = rss - (first or rss)
                console.print(f"soak: {asked:,} requests, {errors} errors, {rss:.0f} MiB", highlight=False)
        return {
            "soak_requests": asked,
            "soak_errors": errors,
            "soak_rss_growth_mb": round(grown, 1),
            "soak_rss_mb": round(rss, 1),
            "soak_seconds": round(time.perf_counter() - began),
        }

    def cold(self) -> dict[str, Any]:
        """From the start of the process until it is ready with its models, the best of the runs."""
        times = []
        for _ in range(self._asked.runs):
            began = time.perf_counter()
            with self._mill.serving():
                times.append(time.perf_counter() - began)
        return {"cold_start_s": round(min(times), 2)}

    def _beside(self, names: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, list[Asked]] = {}
        missing: dict[str, str] = {}
        for _ in range(self._asked.runs):
            found.setdefault("ours", []).append(self._ours(INFER, infer_body()))
            for name in names:
                if name in missing:
                    continue
                try:
                    found.setdefault(name, []).append(self._theirs(name))
                except Exception as error:  # noqa: BLE001  (a peer that is not to be had is no reason to measure nothing)
                    missing[name] = str(error)[-500:]
                    found.pop(name, None)
                    console.print(f"{name}: {error}", highlight=False)
        best = {name: max(runs, key=lambda run: run.rps) for name, runs in found.items() if runs}
        ours = best["ours"]
        ratios = {name: round(ours.rps / run.rps, 2) for name, run in best.items() if name != "ours"}
        return {
            **{f"infer_{name}": value for name, value in asdict(ours).items()},
            "infer_vs": {name: ratio for name, ratio in ratios.items() if name != "lean"},
            "infer_vs_lean": ratios.get("lean"),
            "infer_peers": {name: asdict(run) for name, run in best.items()},
            "infer_missing": missing,
        }

    def _ours(self, path: str, body: bytes) -> Asked:
        """Raises RuntimeError where we answer another number than the model's."""
        with self._mill.serving() as door:
            if path == INFER:
                answers_as(self._mill.model, door, path, body)
            return self._asked_of("ours", door, path, body)

    def _theirs(self, name: str) -> Asked:
        """Raises RuntimeError for a peer that answers another number than its model's, or errors: it has no speed."""
        with peer(name, self._mill.model, self._mill.root / f"peer-{name}", free_port()) as door:
            path, body = PEERS[name].path, body_of(PEERS[name])
            answers_as(self._mill.model, door, path, body)
            found = self._asked_of(name, door, path, body)
        if found.errors:
            raise RuntimeError(f"{found.errors} of {found.requests} requests failed")
        return found

    def _asked_of(self, name: str, door: Door, path: str, body: bytes) -> Asked:
        self._run += 2
        ask(door, path, body, 3, self._run - 1)  # what a server learns in its first seconds is not what is asked
        found = ask(door, path, body, self._asked.seconds, self._run)
        if found.errors:
            console.print(f"{name}: {found.errors} errors; {door.log.read_text()[-800:]}", highlight=False)
        console.print(f"{name}: {found}", highlight=False)
        return found

    def _most(self, stream: str, make: Callable[[int], dict[str, object]]) -> int:
        found = []
        for _ in range(self._asked.runs):
            first, self._first = self._first, self._first + self._asked.questions
            found.append(asyncio.run(backlog(self._mill, stream, make, self._asked.questions, first)))
            console.print(f"{stream}: {found[-1]:,.0f} answers/s", highlight=False)
        return round(max(found))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/serving", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again for another")
    parser.add_argument("--peer", choices=PEERS, action="append", help="of `peers` this one alone; may be given again")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of a run of requests")
    parser.add_argument("--questions", type=int, default=200_000, help="of a run over Kafka")
    parser.add_argument("--requests", type=int, default=5_000_000, help="of the soak")
    asked = parser.parse_args()
    with asyncio.Runner() as runner:
        opened = running()
        mill = runner.run(opened.__aenter__())
        try:
            bench = Bench(mill, asked)
            measure(bench, asked.only or PARTS, OUT, LIBRARIES)
        finally:
            runner.run(opened.__aexit__(None, None, None))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
