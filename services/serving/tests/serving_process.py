"""A serving process for tests: the real frame and the real Kafka, features and model in memory.

Run as a script, it answers with steady models until it is stopped. With SERVING_DIES=1 it is killed, as by kill -9,
when its first answers are in Kafka and before the questions are committed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from millstream.contracts.topics import PREDICTIONS
from millstream.runtime.publisher import Outgoing
from millstream.runtime.service import Service, serve
from millstream_serving.adapters.memory import MemoryFeatures, MemoryFeatureStore, MemoryFreshness, MemoryRuntime
from millstream_serving.app import create_app
from millstream_serving.settings import Settings


def steady(row: Any) -> float:
    return 0.25


def in_memory(settings: Settings, runtime: MemoryRuntime) -> Service:
    """The service as `create_app` wires it, without Feast, Valkey and onnxruntime."""
    features = MemoryFeatures(join_keys=["origin"], views={"origin_delays": "v1"}, values={("origin", "JFK"): 12.1})
    return create_app(
        settings, store=MemoryFeatureStore({"delay_v1": features}), runtime=runtime, freshness=MemoryFreshness()
    )


def main() -> int:
    settings = Settings()
    service = in_memory(settings, MemoryRuntime({b"graph of 1": steady, b"graph of 2": steady}))
    publish = service.publisher.publish_fitting

    async def last_words(records: Sequence[Outgoing]) -> None:
        await publish(records)
        if any(record.topic == PREDICTIONS.name for record in records):
            os.kill(os.getpid(), signal.SIGKILL)

    if os.environ.get("SERVING_DIES"):
        service.publisher.publish_fitting = last_words  # type: ignore[method-assign]
    return serve(lambda: service, settings)


if __name__ == "__main__":
    sys.exit(main())
