"""The knobs of ingest, each with its reason."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.settings import ServiceSettings


class IngestSettings(ServiceSettings, RegistrySettings):
    """Settings of one ingest process."""

    trust_known_at: bool = False
    """Honour the request header `ce-knownat`. For a replay or a backfill only: it moves the clock of every decision."""
    max_event_bytes: Annotated[int, Field(ge=1024, le=1_040_000)] = 1_000_000
    """Of one event in its topic. Kafka's default limit for a batch is 1 MiB, with key and headers."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Of a request with one event, counted while it streams in."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Of a request with a batch."""
    max_requests: Annotated[int, Field(ge=1)] = 64
    """Under way at once; further ones are answered 503. A request takes milliseconds, so 64 are thousands a second."""
    max_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Bodies under way at once; with everything made of them about a quarter of a 1 GiB pod."""
    body_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Seconds for a body to arrive. A client that sends a byte a minute would hold its place for ever."""

    valkey: str | None = None
    """Redis URL through which replicas share what they answered to an Idempotency-Key. Without it each knows its own."""
    dedupe_window: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for which a retry is answered as its first try was, and written no second time. Clients give up long before."""
    dedupe_events: Annotated[int, Field(ge=2)] = 400_000
    """Events remembered for it: 30 MB. Faster streams forget their oldest sooner; readers know events by their id anyway."""
    dedupe_keys: Annotated[int, Field(ge=1)] = 10_000
    """Answers remembered by Idempotency-Key."""
    dedupe_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Their bodies together: the answer to a batch of 10,000 events has a megabyte."""
