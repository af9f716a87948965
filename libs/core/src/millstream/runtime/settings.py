"""The knobs that all five services share, each with its reason. They come from the environment: `MILLSTREAM_…`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from millstream.runtime.kafka_security import KafkaSecurity


class ServiceSettings(KafkaSecurity):
    """Settings of one service process. A service subclasses this and adds its own."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_", frozen=True, extra="ignore")

    kafka: Annotated[str, Field(min_length=1)] = "127.0.0.1:9092"
    """Bootstrap servers, comma separated."""
    project: Path = Path("project")
    """Folder with streams/, features/, loops/."""
    host: str = "127.0.0.1"
    """Loopback unless told otherwise: a laptop should not offer its services to the network."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    instance: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Names this replica in logs and in `ce_source`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    otlp_endpoint: str | None = None
    """Where traces go (OTLP over HTTP). Off when empty: tracing costs a few microseconds an event."""

    session_timeout_ms: int = 10_000
    """How long Kafka waits for a silent consumer before its partitions move: also the longest pause after a kill -9."""
    fetch_max_records: int = 2_000
    """Largest poll. Bounds the memory of a batch (at the 1 MiB record limit Kafka's own fetch limit bounds it first)."""
    publish_timeout: float = 15.0
    """Seconds until an unconfirmed send counts as unknown. Above the 12 s that a broker's crash was seen to stall acks."""
    drain_timeout: float = 20.0
    """Seconds that a stopping service may take to finish the batch in hand; below Kubernetes' 30 s."""
    stall_after: float = 120.0
    """Lag and nothing consumed for this many seconds: the process is stuck and /livez says so."""
