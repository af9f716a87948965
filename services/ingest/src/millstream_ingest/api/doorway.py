"""The routes of ingest. What takes events stands in front of the framework; the rest and the docs are the framework's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.codecs.codec import Codec
from millstream.contracts.events import LabelTold
from millstream.contracts.times import SECOND
from millstream.errors import Refusal
from millstream.project import Stream
from millstream.project.loop import Loop
from millstream.project.told import TOLD
from millstream.runtime import http
from millstream.runtime.http import JSON
from millstream.runtime.tracing import current_traceparent
from millstream_ingest.api import answers, body, docs
from millstream_ingest.api.answers import Answer, refusal_of
from millstream_ingest.api.asked import Asked, asked
from millstream_ingest.api.gate import Gate, Load
from millstream_ingest.api.lines import LineStream, Unread
from millstream_ingest.domain.bodies import cut_array, cut_lines
from millstream_ingest.domain.cloudevents import BATCHED, STRUCTURED, structured
from millstream_ingest.domain.replies import Replies
from millstream_ingest.domain.result import Result
from millstream_ingest.domain.seen import Seen
from millstream_ingest.errors import BadEvent
from millstream_ingest.handlers import Acceptor, Admission, Admits, Arrival, Labeller, Once, Permit, Porter
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import EventLog, SharedReplies
from millstream_ingest.settings import IngestSettings

log = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"
EVENTS = (JSON, NDJSON, STRUCTURED, BATCHED)
BATCH = (JSON, NDJSON, BATCHED)
KINDS = {"events": EVENTS, "batch": BATCH, "labels": (JSON,)}
"""Route → what its bodies may be."""


class Door:
    """What one stream's requests need, made once."""

    def __init__(self, admission: Admits, metrics: IngestMetrics) -> None:
        self.admission = admission
        self.name = admission.stream.name
        self.accepted = metrics.accepted.labels(self.name)


class Doorway:
    """The routes, with what they need at hand."""

    def __init__(
        self,
        *,
        streams: Mapping[str, Stream],
        loops: Mapping[str, Loop],
        codecs: Mapping[str, Codec],
        log: EventLog,
        shared: SharedReplies | None,
        porter: Porter,
        settings: IngestSettings,
        metrics: IngestMetrics,
        clock: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._loops = sorted(loops)
        admissions = {
            name: Admission(stream, log.source, settings.max_event_bytes, codecs[name])
            for name, stream in streams.items()
        }
        told = Admission(TOLD, log.source, settings.max_event_bytes, type=LabelTold.type_name)
        self._doors = {name: Door(admission, metrics) for name, admission in admissions.items()}
        window = round(settings.dedupe_window * SECOND)
        self._acceptor = Acceptor(log, Seen(window=window, most=settings.dedupe_events))
        replies = Replies(window=window, most=settings.dedupe_keys, most_bytes=settings.dedupe_bytes)
        self._porter = porter
        self._once = Once(replies, shared, clock=clock, patience=settings.publish_timeout)
        self._settings = settings
        self._metrics = metrics
        self._seconds = {route: metrics.request_seconds.labels(route) for route in KINDS}
        self._clock = clock
        self._gate = Gate(requests=settings.max_requests, bytes=settings.max_bytes)
        metrics.in_flight.set_function(lambda: self._gate.requests)
        metrics.bytes_in_flight.set_function(lambda: self._gate.room.held)
        self.router = APIRouter(prefix="/v1/streams", tags=["streams"])
        add = self.router.add_api_route
        add(
            "/{stream}/events",
            self.events,
            methods=["POST"],
            summary="Send one event, or a stream of them",
            **docs.EVENT,
        )
        add("/{stream}/batch", self.batch, methods=["POST"], summary="Send many events", **docs.BATCH)
        self.doors: dict[tuple[str, str], ASGIApp] = {}
        for name, door in self._doors.items():
            self.doors["POST", f"/v1/streams/{name}/events"] = partial(self._serve, "events", door)
            self.doors["POST", f"/v1/streams/{name}/batch"] = partial(self._serve, "batch", door)
        self.labels = APIRouter(prefix="/v1/loops", tags=["loops"])
        self.labels.add_api_route(
            "/{loop}/labels", self.label, methods=["POST"], summary="Say what turned out to be true", **docs.LABEL
        )
        for name, loop in loops.items():
            door = Door(Labeller(loop, admissions[loop.label.stream], told), metrics)
            self.doors["POST", f"/v1/loops/{name}/labels"] = partial(self._serve, "labels", door)

    async def events(self, stream: str, request: Request) -> Response:
        """Accept one event: 202 means that every in-sync replica of Kafka has it.

        NDJSON is a stream of any length: every line is answered by a line while it goes on, and the last one has the counts.
        """
        return self._unknown(stream)

    async def batch(self, stream: str, request: Request) -> Response:
        """Accept many events: good ones are taken although others are not, and each gets its own answer."""
        return self._unknown(stream)

    async def label(self, loop: str, request: Request) -> Response:
        """Accept one label, or an array of them: each becomes an event of the loop's label stream, and is answered as one.

        A label by `prediction_id` becomes an event of `millstream-labels`: drift judges that answer by it, and models learn
        from it where its question is an event of `predict.on`.
        """
        known = self._loops
        return self._none(Refusal("unknown_loop", f"no loop {loop[:100]!r}; known: {', '.join(known)}", known=known))

    def _unknown(self, name: str) -> Response:
        """The streams that there are have doors in front of these routes."""
        known = sorted(self._streams)
        return self._none(
            Refusal("unknown_stream", f"no stream {name[:100]!r}; known: {', '.join(known)}", known=known)
        )

    def _none(self, refusal: Refusal) -> Response:
        said = self._refused(refusal)
        return Response(said.body, said.status, media_type=JSON)

    def _refused(self, refusal: Refusal) -> Answer:
        self._metrics.refused.labels(refusal.code).inc()
        return answers.refused(refusal)

    async def _serve(self, route: str, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to a door."""
        try:
            permit = await self._porter.admit(scope["headers"], door.name)
            head = asked(scope, KINDS[route], trust_known_at=self._settings.trust_known_at)
            door.admission.ready()
            with Load(self._gate) as load:
                if route == "events" and head.media_type == NDJSON:
                    await self._stream(door, head, permit, scope, receive, send, load)
                    return
                said = await self._answer(route, door, head, permit, scope, receive, load)
        except Unread as error:
            log.info("%s: %s", door.name, error)  # an answer that is not complete: the server closes the connection
            return
        except Exception as error:  # noqa: BLE001 - refusal_of raises what is not ours
            try:
                said = self._refused(refusal_of(error))
            except Exception:
                await http.internal()(scope, receive, send)
                raise
        await said.send(send)

    async def _answer(
        self, route: str, door: Door, head: Asked, permit: Permit, scope: Scope, receive: Receive, load: Load
    ) -> Answer:
        limit = self._settings.max_body_bytes if route == "events" else self._settings.max_batch_bytes
        if route == "events" and head.media_type == BATCHED:
            limit = self._settings.max_batch_bytes
        patience = self._settings.body_timeout
        if head.encoding:
            raw = await body.whole(
                receive, head.encoding, length=head.length, limit=limit, patience=patience, load=load
            )
        else:
            raw = await body.small(receive, length=head.length, limit=limit, patience=patience, load=load)
        load.begins()
        began = perf_counter()
        try:
            if head.key is not None:
                # By path: two loops may have one label stream. By producer: a key is a word of its own, and its answer
                # nobody else's. No path and no key has a space, so no other three read alike.
                key = f"{scope['path']} {head.key} {permit.producer}"
                said = (raw, head.media_type.encode(), scope["query_string"], repr(head.origin).encode())
                told = await self._once.answered(key, said, lambda: self._take(route, door, head, permit, raw))
                if isinstance(told, Answer):
                    return told
                return Answer(told.status, told.body, (answers.REPLAYED,))
            return await self._take(route, door, head, permit, raw)
        finally:
            self._seconds[route].observe(perf_counter() - began)

    async def _take(self, route: str, door: Door, head: Asked, permit: Permit, raw: bytes) -> Answer:
        arrival = self._arrival(head, permit)
        kind = head.media_type
        open = structured if kind in (STRUCTURED, BATCHED) else None
        one = raw.lstrip()[:1] != b"[" if route == "labels" else route == "events" and kind != BATCHED
        if one:
            permit.charge(1, len(raw))
            try:
                event, origin = (raw, head.origin) if open is None else open(raw)
                admitted, replayed = await self._acceptor.one(door.admission, event, arrival, origin)
            except BadEvent as error:
                self._metrics.rejected.labels(door.name, error.reason).inc()
                return answers.one_rejected(error)
            door.accepted.inc()
            return answers.one_accepted(admitted, replayed=replayed)
        raws = cut_lines(raw) if kind == NDJSON else cut_array(raw)
        permit.charge(len(raws), len(raw))
        results = await self._acceptor.many(door.admission, raws, arrival, open)
        self._count(door, results)
        return answers.many(results)

    async def _stream(
        self, door: Door, head: Asked, permit: Permit, scope: Scope, receive: Receive, send: Send, load: Load
    ) -> None:
        if head.key is not None:
            raise Refusal(
                "invalid_idempotency_key", "a stream has no Idempotency-Key: its events are known by their ids"
            )
        load.stays()
        patience = self._settings.body_timeout
        lines = LineStream(
            door.admission,
            self._acceptor,
            send,
            permit=permit,
            load=load,
            arrival=lambda: self._arrival(head, permit),
            longest=self._settings.max_body_bytes,
            patience=patience,
            only_rejected=b"results=rejected" in scope["query_string"].split(b"&"),
        )
        began = perf_counter()
        try:
            ended = await lines.run(body.pieces(receive, head.encoding, patience))
            if ended is not None:
                self._metrics.refused.labels(ended.code).inc()
        finally:
            self._seconds["events"].observe(perf_counter() - began)
            door.accepted.inc(lines.counts["accepted"])
            for code, count in lines.rejected.items():
                self._metrics.rejected.labels(door.name, code).inc(count)

    def _arrival(self, head: Asked, permit: Permit) -> Arrival:
        return Arrival(
            now=self._clock(),
            known_at=head.known_at,
            traceparent=current_traceparent() or head.traceparent,
            producer=permit.producer,
        )

    def _count(self, door: Door, results: list[Result]) -> None:
        accepted = 0
        for result in results:
            if result.error is None:
                accepted += 1
            else:
                self._metrics.rejected.labels(door.name, result.error.code).inc()
        door.accepted.inc(accepted)
