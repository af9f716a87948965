"""Makes, lists and revokes API keys: what ingest hears of them, and the record of who did it."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from millstream.contracts.api_keys import ID_BYTES, SECRET_BYTES, api_key, digest_of, id_of
from millstream.contracts.events import Event, KeyAction, KeyChanged, KeyState, decode_event
from millstream.contracts.topics import AUDIT, KEYS
from millstream.errors import RejectEvent, RetryLater
from millstream.runtime.delivery import Record, envelope
from millstream.runtime.kafka_clients import does_not_answer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Publisher
from millstream.runtime.table import TopicReader
from millstream.runtime.topic_admin import topic_exists
from millstream_cli.errors import CommandFailed, Stuck

WITHIN = 20.0
"""Seconds for reading or writing; a broker that goes away stalls for up to 12."""
SOURCE = "millstream/cli"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody wants a key for."""

    name: str
    streams: tuple[str, ...]
    expires: timedelta | None = None
    events: float | None = None
    bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Minted:
    """A new key; `text` is nowhere else."""

    text: str
    state: KeyState


async def create(kafka: Bootstrap, wish: Wish, by: str) -> Minted:
    """Raises CommandFailed, Stuck, RetryLater."""
    await _there(kafka)
    text = api_key(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
    now = _now()
    state = KeyState(
        id=uuid.uuid4().hex,
        key=id_of(text) or "",
        name=wish.name,
        streams=wish.streams,
        digest=digest_of(text).hex(),
        created_at=now,
        expires_at=None if wish.expires is None else now + wish.expires,
        events_per_second=wish.events,
        bytes_per_second=wish.bytes,
    )
    await _say(kafka, state, KeyAction.CREATED, by, now)
    return Minted(text=text, state=state)


async def every(kafka: Bootstrap) -> list[KeyState]:
    """All keys, oldest first, revoked ones too. Raises CommandFailed, Stuck, RetryLater."""
    await _there(kafka)
    found: dict[str, KeyState] = {}

    async def apply(record: Record) -> None:
        try:
            event = None if record.value is None else decode_event(envelope(record).type, record.value)
        except (RejectEvent, ValueError):
            event = None
        if isinstance(event, KeyState):
            found[event.key] = event
        else:
            found.pop((record.key or b"").decode("utf-8", "replace"), None)

    reader = TopicReader(bootstrap=kafka, topics=[KEYS.name], apply=apply)
    reading = asyncio.create_task(reader.run())
    read = asyncio.create_task(reader.caught_up.wait())
    try:
        await asyncio.wait({reading, read}, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        if not read.done():
            raise Stuck(f"{KEYS.name} was not read within {WITHIN:.0f} s; is Kafka at {kafka} well?")
    finally:
        reading.cancel()
        read.cancel()
        await asyncio.gather(reading, read, return_exceptions=True)
    return sorted(found.values(), key=lambda state: (state.created_at, state.key))


async def revoke(kafka: Bootstrap, which: str, by: str) -> tuple[KeyState, bool]:
    """The key as it is now, and whether that is new: one that was revoked before stays as it is.

    `which`: its id. Raises CommandFailed, Stuck, RetryLater.
    """
    states = {state.key: state for state in await every(kafka)}
    if (state := states.get(which)) is None:
        raise CommandFailed(f"there is no key {which[:40]!r}; its id is what stands first in: millstream keys list")
    if state.revoked_at is not None:
        return state, False
    now = _now()
    revoked = msgspec.structs.replace(state, id=uuid.uuid4().hex, revoked_at=now)
    await _say(kafka, revoked, KeyAction.REVOKED, by, now)
    return revoked, True


async def _there(kafka: Bootstrap) -> None:
    for topic in (KEYS.name, AUDIT.name):
        if not await topic_exists(kafka, topic):
            raise CommandFailed(
                f"Kafka at {kafka} has no topic {topic}; create it with: millstream topics --kafka {kafka}"
            )


async def _say(kafka: Bootstrap, state: KeyState, action: KeyAction, by: str, now: datetime) -> None:
    limits = {"events_per_second": state.events_per_second, "bytes_per_second": state.bytes_per_second}
    changed = KeyChanged(
        id=uuid.uuid4().hex,
        key=state.key,
        name=state.name,
        action=action,
        by=by,
        at=now,
        streams=state.streams,
        expires_at=state.expires_at,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )
    # A key that works and nobody knows of would be worse than one on record that never came to work; what is to be revoked is
    # revoked first.
    said: Sequence[tuple[str, Event, str]] = [
        (AUDIT.name, changed, changed.id),
        (KEYS.name, state, state.id),
    ]
    if action is KeyAction.REVOKED:
        said = said[::-1]
    metrics = RuntimeMetrics(CollectorRegistry())
    publisher = Publisher(bootstrap=kafka, source=SOURCE, timeout=WITHIN, metrics=metrics)
    try:
        await publisher.start()
        for topic, event, id in said:
            await publisher.publish([publisher.outgoing(topic, event, id=id, key=state.key)])
    except KafkaError as error:
        raise Stuck(does_not_answer(kafka, error)) from error
    except RetryLater as error:
        raise Stuck(
            f"nobody knows whether key {state.key} is {action.value}: {error}; look with: millstream keys list"
        ) from error
    finally:
        await publisher.stop()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
