"""The formats of a project's streams: one codec each, and the schemas that records need fetched before they are read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from millstream.codecs.codec import JSON, Codec, Registered, RegistryCodec
from millstream.codecs.wire import HEAD
from millstream.errors import BadSetup, RetryLater
from millstream.project.stream import Stream
from millstream.runtime.confirming import Confirming
from millstream.runtime.delivery import Handler, Retry
from millstream.runtime.records import Batch, Rejected
from millstream.runtime.schema_registry import RegistrySettings, SchemaRegistry
from millstream.runtime.service import Service

if TYPE_CHECKING:
    from millstream.codecs.avro_schema import AvroSchema
    from millstream.codecs.proto_schema import ProtoSchema

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Requests under way. A stream's own schemas are a few; a flood of made-up ids must not flood the registry."""
_AGAIN = Retry(first=0.1, ceiling=2.0)


class Codecs(Mapping[str, Codec]):
    """Every stream's codec, by its name."""

    def __init__(self, streams: Mapping[str, Stream], settings: RegistrySettings) -> None:
        """Raises BadSetup where a stream needs a registry and none is set."""
        self._codecs = {name: codec_of(stream) for name, stream in streams.items()}
        self._patience = settings.schema_patience
        self._registry: SchemaRegistry | None = None
        if framed := self._framed():
            if settings.schema_registry is None:
                name = next(iter(framed))
                raise BadSetup(
                    f"stream {name} is in {streams[name].format}: set MILLSTREAM_SCHEMA_REGISTRY to the address of the "
                    "schema registry that its producers use"
                )
            self._registry = SchemaRegistry(settings)

    def _framed(self) -> dict[str, RegistryCodec[object]]:
        return {name: codec for name, codec in self._codecs.items() if isinstance(codec, RegistryCodec)}

    def __getitem__(self, stream: str) -> Codec:
        return self._codecs[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codecs)

    def __len__(self) -> int:
        return len(self._codecs)

    async def prepare(self, batch: Batch) -> None:
        """Fetch what the records of `batch` were written with. Raises RetryLater while the registry is away.

        An id that it does not know is asked for again until its newest record here is `schema_patience` seconds old in Kafka;
        then `decode` rejects it. What has lain there for longer is not waited for: else a producer of made-up ids would hold
        its partition for as long with every batch.
        """
        codec = self._codecs.get(batch.topic)
        if self._registry is None or not isinstance(codec, RegistryCodec):
            return
        if not (ids := codec.unknown(record.value for record in batch.records)):
            return
        left = self._left(batch, {id for id in ids if codec.is_news(id)})
        began, attempt = time.monotonic(), 0
        missing = await self._learn(codec, ids)
        while wanted := {id for id in missing if time.monotonic() - began < left.get(id, 0.0)}:
            delay = _AGAIN.delay(attempt)
            log.warning("schema %d is not in the registry yet", min(wanted), extra={"topic": batch.topic})
            await asyncio.sleep(delay)
            missing = (missing - wanted) | await self._learn(codec, wanted)
            attempt += 1
        codec.give_up(missing, self._registry.url)

    def _left(self, batch: Batch, ids: Collection[int]) -> dict[int, float]:
        """Seconds for which each of `ids` may still be waited for; a whole patience at most, whatever the clocks say."""
        newest: dict[int, int] = {}
        for record in batch.records:
            if record.value and (id := int.from_bytes(record.value[1:HEAD], "big")) in ids:
                newest[id] = max(newest.get(id, 0), record.timestamp)
        now = time.time()
        return {id: min(self._patience, self._patience - (now - at / 1000)) for id, at in newest.items()}

    async def _learn(self, codec: RegistryCodec[object], ids: Collection[int]) -> set[int]:
        """Ask for every id; those that are not there."""
        assert self._registry is not None
        missing = set()
        ordered = sorted(ids)
        for first in range(0, len(ordered), AT_ONCE):
            some = ordered[first : first + AT_ONCE]
            for id, found in zip(some, await asyncio.gather(*map(self._registry.schema, some)), strict=True):
                if found is None:
                    missing.add(id)
                else:
                    codec.learn(id, found)
        return missing

    def preparing(self, handler: Handler) -> Handler:
        """`handler`, given its batches once they can be read."""
        if self._registry is None:
            return handler

        async def prepared(batch: Batch) -> Sequence[Rejected] | Confirming | None:
            await self.prepare(batch)
            return await handler(batch)

        return prepared

    async def register(self) -> None:
        """Give every stream's own schema its id, under `<topic>-value`; until then `encode` raises RetryLater.

        Waits for a registry that is away. Raises BadSetup where it refuses a schema.
        """
        attempt = 0
        while waiting := {name: codec for name, codec in self._framed().items() if not codec.registered}:
            assert self._registry is not None
            try:
                for name, codec in waiting.items():
                    codec.write_as(
                        await self._registry.id_of(f"{name}-value", Registered(kind=codec.kind, text=codec.text))
                    )
            except RetryLater as error:
                log.warning("schemas are not registered yet: %s", error)
                await asyncio.sleep(_AGAIN.delay(attempt))
                attempt += 1

    async def close(self) -> None:
        if self._registry is not None:
            await self._registry.close()


def codec_of(stream: Stream) -> Codec:
    """A codec of its own for `stream`; that of a registry's format still has to learn its schemas."""
    match stream.format, stream.wire:
        case "json", _:
            return JSON
        case _, None:
            raise BadSetup(f"stream {stream.name}: its schema file was not read")
        case "avro", schema:
            from millstream.codecs.avro import AvroCodec  # each with its libraries, for who has such a stream

            return AvroCodec(cast("AvroSchema", schema))
        case _, schema:
            from millstream.codecs.protobuf import ProtobufCodec

            return ProtobufCodec(cast("ProtoSchema", schema))


def codecs_for(service: Service, streams: Mapping[str, Stream], settings: RegistrySettings) -> Codecs:
    """The codecs of a service that hears `streams`, closed when it stops. Raises BadSetup."""
    codecs = Codecs(streams, settings)
    service.at_stop(codecs.close)
    return codecs
