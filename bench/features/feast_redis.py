"""The peer: Feast's own Redis store on the same server, with as many views and features as ours."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
from feast.types import Float64, String
from feast.value_type import ValueType
from workload import ENTITIES

SOURCE = "everything"
"""The push source of all views."""


def opened(folder: Path, url: str, *, features: int) -> FeatureStore:
    """A store with one view of `features` numbers for each of the four entities, all of one push source."""
    at = urlsplit(url)
    folder.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry={"registry_type": "file", "path": str(folder / "peer.db")},
            online_store={"type": "redis", "connection_string": f"{at.hostname}:{at.port},db=1"},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    source = PushSource(name=SOURCE, batch_source=FileSource(name="file", path="x.parquet", timestamp_field="at"))
    entities = [Entity(name=key, value_type=ValueType.STRING) for key in ENTITIES]
    views = [
        FeatureView(
            name=f"peer_{entity.name}",
            entities=[entity],
            ttl=timedelta(0),
            schema=[Field(name=entity.name, dtype=String), *(Field(name=n, dtype=Float64) for n in names(features))],
            source=source,
        )
        for entity in entities
    ]
    with warnings.catch_warnings(action="ignore"):
        store.apply([*entities, *views])
    return store


def names(features: int) -> list[str]:
    return [f"f{n}" for n in range(features)]


def rows(count: int, *, features: int, at: datetime = datetime(2013, 6, 1, tzinfo=UTC)) -> pd.DataFrame:
    """Rows of random entities, a microsecond after one another so that each is newer (an older one is not written)."""
    rng = np.random.default_rng(1)
    columns = {key: [f"{key}{n}" for n in rng.integers(0, known, count)] for key, known in ENTITIES.items()}
    times = pd.date_range(at, periods=count, freq="us")
    return pd.DataFrame(columns | {name: rng.normal(size=count) for name in names(features)} | {"at": times})
