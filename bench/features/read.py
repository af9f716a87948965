"""Reading features: one question and a thousand at a time, 20 windowed features of four views, from a real Valkey."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from feast import FeatureStore
from feast_redis import SOURCE, names, opened, rows
from workload import ENTITIES

from millstream.testing.valkey import EmbeddedValkey
from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.read_plan import Request
from millstream_tiles.reader import WindowReader

MINUTE, HOUR = 60_000_000, 3_600_000_000
NOON = 1_370_088_000_000_000
EVENTS = 200_000
FUNCTIONS = (Function.MEAN, Function.COUNT, Function.MIN, Function.MAX, Function.STD)


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a read takes."""

    one_ms_p50: float
    one_ms_p99: float
    entities_per_second: float
    """In reads of 1,000 questions."""
    feast_ms_p50: float
    """Feast's `get_online_features` of as many stored values from its own Redis store, read in turns with ours."""
    ping_ms_p50: float
    """The server's answer to a bare PING in the same turns: what no read can be faster than on this machine as it is."""


def views() -> dict[str, View]:
    return {
        f"by_{key}": View(
            name=f"by_{key}",
            stream="departures",
            keys=(key,),
            time_field="at",
            lateness=HOUR,
            event_id=None,
            aggregates=tuple(
                Aggregate(name=f"{f}_1h", function=f, column="delay", window=HOUR, slide=10 * MINUTE) for f in FUNCTIONS
            ),
        )
        for key in ENTITIES
    }


async def read(*, rounds: int = 2_000) -> Read:
    """Two hours of departures applied, then read back as of their end."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        valkey = EmbeddedValkey(Path(name) / "valkey", None, log_dir=Path(name) / "logs")
        with valkey.running():
            await _fill(valkey.url)
            reader = WindowReader(valkey.url, "bench", views())
            peer = _peer(Path(name) / "feast", valkey.url)
            one, theirs, pings = [], [], []
            for seed in range(rounds):
                one.append(_timed(reader, _questions(1, seed)))
                if seed % 4 == 0:
                    theirs.append(_peer_timed(peer, _questions(1, seed)))
                    pings.append(_ping_timed(reader))
            many = [_timed(reader, _questions(1_000, seed)) for seed in range(max(10, rounds // 40))]
            await reader.aclose()
    one.sort()
    return Read(
        one_ms_p50=round(statistics.median(one) * 1e3, 3),
        one_ms_p99=round(one[int(len(one) * 0.99)] * 1e3, 3),
        entities_per_second=round(1_000 / statistics.median(many)),
        feast_ms_p50=round(statistics.median(theirs) * 1e3, 3),
        ping_ms_p50=round(statistics.median(pings) * 1e3, 3),
    )


async def _fill(url: str) -> None:
    rng = np.random.default_rng(1)
    at = NOON + np.sort(rng.integers(0, 2 * HOUR, EVENTS))
    columns = {key: [f"{key}{n}" for n in rng.integers(0, count, EVENTS)] for key, count in ENTITIES.items()}
    delays = rng.normal(10, 30, EVENTS).tolist()
    writer = TileWriter(ValkeyTileStore(url, "bench"), views().values(), "bench")
    for first in range(0, EVENTS, 5_000):
        part = slice(first, first + 5_000)
        await writer.write(
            EventBatch(
                stream="departures",
                partition=0,
                start=first,
                end=first + 4_999,
                offsets=np.arange(first, first + 5_000),
                event_time=at[part],
                known_at=at[part],
                ids=None,
                columns={name: values[part] for name, values in columns.items()} | {"delay": delays[part]},
            )
        )


def _peer(folder: Path, url: str) -> FeatureStore:
    """Feast's store with a row for every entity."""
    store = opened(folder, url, features=len(FUNCTIONS))
    known = max(ENTITIES.values())
    frame = rows(known, features=len(FUNCTIONS))
    for key, count in ENTITIES.items():
        frame[key] = [f"{key}{n % count}" for n in range(known)]
    store.push(SOURCE, frame)
    return store


def _peer_timed(store: FeatureStore, requests: list[Request]) -> float:
    asked = [f"peer_{key}:{name}" for key in ENTITIES for name in names(len(FUNCTIONS))]
    row = {key: values[0] for _, columns in requests for key, values in columns.items()}
    began = time.perf_counter()
    response = store.get_online_features(asked, [row], full_feature_names=True)
    seconds = time.perf_counter() - began
    assert None not in response.to_dict()[f"peer_airport__{names(1)[0]}"], "there is a row for every entity"
    return seconds


def _questions(count: int, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [
        (f"by_{key}", {key: [f"{key}{n}" for n in rng.integers(0, known, count)]}) for key, known in ENTITIES.items()
    ]


def _timed(reader: WindowReader, requests: list[Request]) -> float:
    began = time.perf_counter()
    reader.read(requests, NOON + 2 * HOUR)
    return time.perf_counter() - began


def _ping_timed(reader: WindowReader) -> float:
    client = reader.client.sync()
    began = time.perf_counter()
    client.ping()
    return time.perf_counter() - began
