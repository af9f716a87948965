"""Kafka doorway of ingest: hears which API keys there are."""

from __future__ import annotations

import asyncio
import logging

from millstream.contracts.events import KeyState, decode_event
from millstream.contracts.topics import KEYS
from millstream.errors import RejectEvent
from millstream.runtime.delivery import Record, envelope
from millstream.runtime.service import Service
from millstream.runtime.table import TopicReader
from millstream_ingest.domain.keyring import Keyring

log = logging.getLogger(__name__)

CONDITION = "API keys"


def hear_keys(service: Service, keyring: Keyring) -> asyncio.Event:
    """Every replica reads the whole topic for itself, and follows it: what is revoked is revoked everywhere at once.

    Set once all keys are read; until then ingest is un-ready, for it would refuse who may come in, or let in who may not.
    """

    async def apply(record: Record) -> None:
        id = (record.key or b"").decode("utf-8", "replace")
        try:
            event = None if record.value is None else decode_event(envelope(record).type, record.value)
            if not isinstance(event, KeyState) or event.key != id:
                raise ValueError("it is no state of the key that it is about")
            keyring.hear(event)
        except (RejectEvent, ValueError) as error:
            # It may have been a revocation.
            keyring.forget(id)
            log.error("API key %s opens nothing, its record cannot be read: %s", id[:40], error)

    reader = TopicReader(bootstrap=service.kafka, topics=[KEYS.name], apply=apply)
    service.health.waiting_for(
        CONDITION, f"the topic {KEYS.name} is not read yet; where it is missing: millstream topics"
    )

    async def met() -> None:
        await reader.caught_up.wait()
        service.health.met(CONDITION)

    service.keeps("reading API keys", reader.run)
    service.keeps("waiting for API keys", met)
    return reader.caught_up
