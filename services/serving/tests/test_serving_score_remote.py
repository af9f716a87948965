"""A table and a model that runs elsewhere, and a scoring that is stopped while its runs need the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millstream.contracts.package import MANIFEST_FILE, REMOTE_FILE, Remote
from millstream.contracts.tasks import Task
from millstream.runtime.packages import PackageStore
from millstream_serving.adapters import score_job
from millstream_serving.adapters.parquet_table import ParquetTable
from millstream_serving.errors import BadTable
from millstream_serving.handlers.scoring import score as scored

from .conftest import _manifest
from .test_serving_score import flights
from .test_serving_score import mill as _mill

mill = _mill


def test_a_model_that_runs_elsewhere_is_refused_before_anything_is_written(
    mill: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = msgspec.json.encode(Remote(url="http://triton:8000/v2/models/x", inputs=[], output="probability"))
    manifest = _manifest("8", {REMOTE_FILE: hashlib.sha256(raw).hexdigest()})
    files = {REMOTE_FILE: raw, MANIFEST_FILE: msgspec.json.encode(manifest)}
    PackageStore(str(mill / "packages")).save("flight-delay/8-run-1", files)
    pq.write_table(pa.table(flights(5)), mill / "in.parquet")
    monkeypatch.setenv("MILLSTREAM_PROJECT", str(mill / "project"))
    monkeypatch.setenv("MILLSTREAM_PACKAGES", str(mill / "packages"))
    asked = ["flight-delay", "--input", str(mill / "in.parquet"), "--output", str(mill / "out.parquet")]
    assert score_job.main([*asked, "--features", "given", "--version", "8"]) == 2
    said = capsys.readouterr().err
    assert "version 8 of flight-delay is asked at http://triton:8000/v2/models/x: score it there" in said
    assert not (mill / "out.parquet").exists()


async def test_what_runs_may_wait_for_the_event_loop_when_it_is_stopped(mill: Path) -> None:
    """A run that needs the loop to end, and a table whose second piece is bad: it ends all the same."""
    home, begun = asyncio.get_running_loop(), threading.Event()

    async def answer() -> np.ndarray[Any, Any]:
        await asyncio.sleep(0.2)
        return np.full(300, 0.5, np.float32)

    def run(columns: Any) -> Any:
        begun.set()
        return asyncio.run_coroutine_threadsafe(answer(), home).result(30)

    pq.write_table(pa.table(flights(300)), mill / "in.parquet")
    table = ParquetTable(mill / "in.parquet")

    def pieces() -> Any:
        yield from table.pieces(300)
        begun.wait(30)
        raise BadTable("broken")

    manifest = _manifest("7", {})
    loaded: Any = SimpleNamespace(manifest=manifest, task=Task.BINARY, model=SimpleNamespace(run=run))
    out: Any = SimpleNamespace(write=lambda *said: None)
    async with asyncio.timeout(60):
        with pytest.raises(BadTable, match="broken"):
            await scored(loaded, pieces(), out, look_up=False, threads=2, told=lambda rows: None)
