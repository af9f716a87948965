"""Feast's own feature server, which predicts nothing: 20 stored values of one entity from its Redis store, on the same core."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from door import Door, opened
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.types import Float64, String
from feast.value_type import ValueType
from workload import ENTITY, FEATURES, VIEW

PATH = "/get-online-features"
NAMES = [name.removeprefix(f"{VIEW}__") for name in FEATURES]
_STORE = """\
project: peer
provider: local
registry: peer.db
entity_key_serialization_version: 3
online_store: {{type: redis, connection_string: "{host}:{port},db=1"}}
offline_store: {{type: dask}}
"""


def body() -> bytes:
    return json.dumps({"features": [f"{VIEW}:{name}" for name in NAMES], "entities": {ENTITY: ["A7"]}}).encode()


@contextmanager
def running(valkey: str, folder: Path, port: int) -> Iterator[Door]:
    """One worker, as ours is one; never replaced for having answered a thousand requests."""
    at = urlsplit(valkey)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(_STORE.format(host=at.hostname, port=at.port))
    _fill(folder)
    feast = str(Path(sys.executable).parent / "feast")
    args = [feast, "-c", str(folder), "serve", "-p", str(port), "--no-access-log", "--max-requests", "0"]
    with opened("feast", args, port=port, env={}, log=folder / "log", path="/health") as door:
        yield door


def _fill(folder: Path) -> None:
    store = FeatureStore(repo_path=str(folder))
    source = PushSource(name="push", batch_source=FileSource(name="file", path="x.parquet", timestamp_field="at"))
    entity = Entity(name=ENTITY, value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[entity],
        ttl=timedelta(0),
        schema=[Field(name=ENTITY, dtype=String), *(Field(name=name, dtype=Float64) for name in NAMES)],
        source=source,
    )
    with warnings.catch_warnings(action="ignore"):
        store.apply([entity, view])
        rows = {ENTITY: [f"A{n}" for n in range(100)], "at": [datetime.now(UTC)] * 100}
        values = np.random.default_rng(1).normal(10, 30, (len(NAMES), 100))
        store.push("push", pd.DataFrame(rows | dict(zip(NAMES, values, strict=True))))
