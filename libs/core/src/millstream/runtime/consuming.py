"""How every consumer is set up: each default of the libraries that loses or duplicates records is overridden here."""

from __future__ import annotations

from typing import Any

from faststream import AckPolicy

from millstream.runtime.handling import Gulp
from millstream.runtime.raw_records import raw_decoder, raw_parser
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.whole_group import Share, assignor


def options(settings: ServiceSettings, group: str, gulp: Gulp, share: Share | None) -> dict[str, Any]:
    """What FastStream's subscriber is told, beside its topics."""
    return {
        "batch": True,
        "group_id": group,
        "auto_offset_reset": "earliest",
        "ack_policy": AckPolicy.MANUAL,
        "max_records": settings.fetch_max_records,
        "fetch_min_bytes": gulp.min_bytes,
        "fetch_max_wait_ms": gulp.wait_ms,
        "max_partition_fetch_bytes": gulp.most_bytes,
        "session_timeout_ms": settings.session_timeout_ms,
        # A member hears of a rebalance by its next heartbeat: the group stands still until its slowest has heard.
        "heartbeat_interval_ms": min(1000, settings.session_timeout_ms // 3),
        "rebalance_timeout_ms": 60_000,
        "partition_assignment_strategy": (assignor(share, settings.instance),),
        "parser": raw_parser,
        "decoder": raw_decoder,
    }
