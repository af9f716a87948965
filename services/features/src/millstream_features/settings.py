"""Every knob of features, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.settings import ServiceSettings


class Settings(ServiceSettings, RegistrySettings):
    valkey: str = "redis://127.0.0.1:6379/0"
    """Online store: Redis 7 or newer, or Valkey; a cluster by any of its nodes, redis+cluster://host:6379,host:6379."""
    shards: Annotated[int, Field(ge=1, le=256)] | None = None
    """Parts of the online store, each atomic by itself; the same for features and serving, never changed while it has data.
    None: as features/feature_store.yaml says, else 1 on one server and 12 on a cluster."""
    namespace: str = "millstream"
    """Prefix of every key, so that several projects can share a server."""
    lake: str = "lake"
    """Folder or `s3://bucket/prefix` of the Delta tables. A bucket's credentials, region and endpoint come from the `AWS_…`
    variables that its own tools read, or from the pod's role; an address that carries a password is refused."""
    data: Path = Path("data/features")
    """This replica's own folder: the compiled Feast registry."""

    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port, on the same host, of Feast's `ServingService` over gRPC, which its Java and Go clients speak. None: not served, as
    most clients speak HTTP."""

    fetch_max_records: int = 20_000
    """Largest poll; the tiles apply it in parts."""
    part: Literal["all", "tiles", "lake", "skew"] = "all"
    """Which of its groups this process is in. On a busy stream each is a deployment of its own that scales on its own lag:
    in one process they share a core, and the lake takes half of it."""

    lake_rows: int = 20_000
    """Append when this many rows wait: about 40 MB in memory, one Parquet file that is worth opening."""
    lake_age: float = 10.0
    """Append rows that waited this many seconds, so that history is never older than that."""
    lake_quiet: float = 0.35
    """Append when nothing came for this many seconds: what waits for the lake (a training run) need not wait for more.
    Longer than a poll of the lake's waits for records (0.2 s), or every poll would be an append."""
    lake_buffer_rows: int = 100_000
    """Stop reading while this many rows wait: bounds memory when the lake's storage is slow."""
    lake_tidy_every: Annotated[float, Field(ge=0)] = 3600.0
    """Seconds between two looks at each table for small files to join and unused ones to delete; 0: never. Appends leave up to
    8,640 files a day (`lake_age`), of which an hour's do not slow a reader yet."""
    lake_tidy_mb: Annotated[int, Field(ge=1)] = 128
    """Most megabytes of one table that are rewritten at a time: 5 s on a busy core, since a stop waits for it, and 0.6 GB of
    memory meanwhile. A date that is larger is left to `millstream lake compact`."""
    lake_keep_days: Annotated[float, Field(ge=0)] = 7.0
    """Days that a file stays after nothing uses it any more, for readers that began before; 1 or more, 0: for ever."""

    skew_every: float = 10.0
    """Seconds between two looks at sampled predictions. A look takes 0.05 s of CPU on a year of flights, whether it checks
    one prediction or a hundred."""
    skew_patience: float = 60.0
    """Seconds for the lake to get what the streams had when a sample was drawn; it appends every `lake_age` at the latest."""

    @field_validator("lake_keep_days")
    @classmethod
    def _readers_need_a_day(cls, days: float) -> float:
        if 0 < days < 1:
            raise ValueError(
                "a training run or a join may still read a file of today: write 1 or more days, or 0 for ever"
            )
        return days
