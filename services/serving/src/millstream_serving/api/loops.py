"""HTTP doorway of serving: ask a loop, see who answers; and the one table from errors to status codes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Receive, Scope

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.json_text import pointer, read_json
from millstream.contracts.times import to_rfc3339
from millstream.errors import DeliveryUnknown, MillstreamError, Refusal, RejectEvent, RetryLater
from millstream.project.event_schema import words_of
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream.runtime import http
from millstream.runtime.http import BODY_SECONDS, LARGEST_BODY, MOST_FAULTS, answer
from millstream.runtime.request_span import carried_on
from millstream.runtime.room import Held, Room
from millstream.runtime.user_events import MAX_AHEAD
from millstream_serving.api.gate import LATE, PARAMETER
from millstream_serving.api.raw import Answered, framed, raw_door, read_small
from millstream_serving.api.shapes import PREDICTED
from millstream_serving.domain.answer import empty_views
from millstream_serving.domain.roster import Roster, Standing
from millstream_serving.errors import ModelFailed, ModelsUnknown, NoModel, Overloaded, StaleFeatures, UnknownLoop
from millstream_serving.handlers import Explainer, Loaded, Online, Residents, ask

encode = msgspec.json.Encoder().encode


class BadQuestion(MillstreamError):
    """The event does not fit its stream; each fault points into the body (RFC 6901)."""

    def __init__(self, faults: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{fault['pointer']}: {fault['message']}" for fault in faults))
        self.faults = faults


ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownLoop, 404, "unknown_loop"),
    (BadQuestion, 422, "bad_question"),
    (RejectEvent, 422, "bad_question"),
    (NoModel, 503, "no_model"),
    (ModelFailed, 503, "model_failed"),
    (StaleFeatures, 503, "stale_features"),
    (DeliveryUnknown, 503, "not_logged"),
    (Overloaded, 503, "overloaded"),
    (RetryLater, 503, "unavailable"),
)
"""The first that fits holds. Bodies that cannot be read are refused alike by all services: `millstream.runtime.http`."""

_FLIGHT = {
    "flight_id": "2013-06-01-B6-23-JFK",
    "announced_at": "2013-06-01T10:30:00Z",
    "scheduled_at": "2013-06-01T12:30:00Z",
    "origin": "JFK",
    "dest": "LAX",
    "carrier": "B6",
    "tailnum": "N708JB",
    "distance": 2475,
    "scheduled_minute": 510,
    "weekday": 5,
}
_ANSWER = {
    "prediction_id": "9f3b6c0d5e7a4f1188c2d6a0b1e2f3a4",
    "loop": "flight-delay",
    "question": "2013-06-01-B6-23-JFK",
    "probability": 0.2871,
    "version": "3",
    "variant": "champion",
    "asked_at": "2013-06-01T11:30:00Z",
    "entities": {"origin": "JFK", "carrier": "B6"},
    "inputs": {"distance": 2475, "carrier": "B6"},
    "features": {"origin_departures__mean_delay_3h": 12.25, "aircraft_landings__mean_delay_24h": None},
    "timings_ms": {"features": 1.9, "model": 0.1, "total": 2.1},
    "stale_views": {},
    "empty_views": ["aircraft_landings"],
    "store_away": False,
}
_ANSWERED = (
    "The answer, in the prediction log already: `probability` of true, `probabilities` by class, or `value`, by the task "
    "of the loop"
)
PREDICT_DOCS: dict[str, Any] = {
    "responses": {
        **http.BODY_DOCS,
        200: {"description": _ANSWERED, "content": {"application/json": {"schema": PREDICTED, "example": _ANSWER}}},
        **http.refusing(
            {
                400: "The body is no JSON, or no UTF-8. Or bad_timeout: X-Request-Timeout-Ms is no deadline",
                403: "`ce-knownat`, which this service does not trust",
                404: "No such loop; the answer names those there are",
                422: "No `event`, or it does not fit its stream; `faults` point at what is wrong",
                503: "no_model, model_failed, stale_features, not_logged, overloaded, busy, unavailable: see `message`",
                504: f"deadline: {LATE[0].lower()}{LATE[1:]}",
            }
        ),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": "explain",
                "in": "query",
                "schema": {"type": "boolean", "default": False},
                "description": "Say what each column contributed to the answer",
            },
            PARAMETER,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["event"],
                        "properties": {"event": {"type": "object", "description": "One event of `predict.on`"}},
                    },
                    "example": {"event": _FLIGHT},
                }
            },
        },
    },
}


def refusal(error: Exception) -> Response:
    """The answer that the table gives to `error`; an error that is not in it is ours, and the frame says 500."""
    if isinstance(error, Refusal):
        return http.refused(error, {**http.STATUS, **http.KNOWN_AT_STATUS, "busy": 503})
    for kind, status, code in ERRORS:
        if isinstance(error, kind):
            more: dict[str, Any] = {"faults": error.faults} if isinstance(error, BadQuestion) else {}
            return http.refusal(status, code, str(error), **more)
    raise error


class Doorway:
    """The routes, with what they need at hand."""

    def __init__(
        self,
        *,
        loops: Mapping[str, Loop],
        streams: Mapping[str, Stream],
        roster: Roster[Loaded],
        residents: Residents,
        online: Online,
        explainer: Explainer,
        known: asyncio.Event,
        clock: Callable[[], int],
        room: Room,
        trusts_known_at: bool = False,
    ) -> None:
        self._loops = loops
        self._streams = streams
        self._roster = roster
        self._residents = residents
        self._online = online
        self._explainer = explainer
        self._known = known
        self._clock = clock
        self._room = room
        self._trusts_known_at = trusts_known_at
        self.router = APIRouter(prefix="/v1/loops", tags=["loops"])
        self.router.add_api_route("", self.list_loops, methods=["GET"], summary="Who answers for each loop")
        self.router.add_api_route("/{loop}", self.show_loop, methods=["GET"], summary="Who answers for one loop")
        self.router.add_api_route(
            "/{loop}/predict", self.predict, methods=["POST"], summary="Ask one question", **PREDICT_DOCS
        )
        self.doors: dict[tuple[str, str], ASGIApp] = {
            ("POST", f"/v1/loops/{name}/predict"): raw_door(partial(self._answer, name)) for name in loops
        }

    async def list_loops(self) -> Response:
        """Every loop of the project, as `GET /v1/loops/{loop}` shows it."""
        return answer(200, {"loops": [self._shown(loop) for loop in self._loops.values()]})

    async def show_loop(self, loop: str) -> Response:
        """Champion, who is scored beside it, revision obeyed, and what was refused.

        `other` is the `challenger` on trial, or the `previous` champion until `watch_until`; `share` of the entities is
        answered by the challenger. `missing`: why nobody is there to come back. `heard` above `revision`: see `refused`.
        `unloaded`: the models gave way to those of other loops (`MILLSTREAM_MODEL_MEMORY`); the next question loads them again.
        """
        try:
            return answer(200, self._shown(self._loop(loop)))
        except UnknownLoop as error:
            return refusal(error)

    async def predict(self, loop: str, request: Request) -> Response:
        """Ask one question as of now, or of the header `ce-knownat` where that is trusted.

        A 200 means that the answer is in the prediction log, and milliseconds later in `millstream-predictions`. `empty_views`
        know nothing of the question's entity: each of their features is null, or a count of 0. With `explain`
        it has an `explanation`: what each column contributed. That waits behind other explanations, and is left out where it
        takes too long.
        """
        return await framed(self._answer(loop, request.scope, request.receive))

    async def _answer(self, loop: str, scope: Scope, receive: Receive) -> Answered:
        held = Held(self._room)
        try:
            return await self._predict(self._loop(loop), scope, receive, held)
        except MillstreamError as error:
            return refusal(error)
        finally:
            held.leave()

    async def _predict(self, loop: Loop, scope: Scope, receive: Receive, held: Held) -> bytes:
        headers = dict(scope["headers"])
        if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
            http.media_type(Request(scope))
        explain = bool(scope["query_string"]) and _flag(Request(scope), "explain")
        event = _event(read_json(await read_small(scope, headers, receive, LARGEST_BODY, BODY_SECONDS, held)))
        known_at = http.known_at(Request(scope), self._trusts_known_at) if b"ce-knownat" in headers else None
        now = self._clock() if known_at is None else known_at
        time = self._check(self._streams[loop.predict.on], event, now)
        if not self._known.is_set():
            raise ModelsUnknown("the models are still being read; /readyz says what is missing")
        question = ask(loop, event, asked_at=max(now, time), transport="http", trace=carried_on(headers))
        found = await self._online.predict(question)
        if isinstance(found, QuestionUnanswered):
            raise self._why_not(loop, found)
        said = _said(found)
        return encode({**said, **await self._explainer.explain(found)} if explain else said)

    def _loop(self, name: str) -> Loop:
        loop = self._loops.get(name)
        if loop is None:
            raise UnknownLoop(f"no loop {name[:100]!r}; known: {', '.join(sorted(self._loops)) or 'none'}")
        return loop

    def _check(self, stream: Stream, event: dict[str, Any], now: int) -> int:
        """Event time of a good event. Raises BadQuestion, RejectEvent: the same rules as over Kafka."""
        try:
            # Most events have no fault: only one that has is gone through again, to name it.
            found = [] if stream.validator().is_valid(event) else list(stream.validator().iter_errors(event))
        except (ValueError, RecursionError) as error:
            raise BadQuestion([{"pointer": "/event", "message": f"nested too deeply to check: {error}"}]) from error
        if found:
            faults = [(pointer(["event", *fault.instance_path]), words_of(fault, 500)) for fault in found[:MOST_FAULTS]]
            raise BadQuestion([{"pointer": place, "message": message} for place, message in faults])
        time = stream.time_of(event)
        if time > now + MAX_AHEAD:
            ahead = f"{to_rfc3339(time)} is more than 5 minutes ahead of {to_rfc3339(now)}, the time here"
            raise BadQuestion([{"pointer": f"/event/{stream.time}", "message": ahead}])
        return time

    def _why_not(self, loop: Loop, unanswered: QuestionUnanswered) -> MillstreamError:
        standing, see = self._roster.standing(loop.name), f"see GET /v1/loops/{loop.name}"
        if unanswered.reason != "no_model":
            if why := self._residents.why_not(loop.name):
                return ModelFailed(f"{loop.name}: its model was unloaded and cannot be loaded again: {why}; {see}")
            if standing.champion is None and standing.refusal is not None:
                return ModelFailed(f"{loop.name} has no model that can be served: {standing.refusal.reason}; {see}")
            return ModelFailed(f"{loop.name}: no model has an answer to this question; {see}")
        rows = f"{loop.train.first_after.rows:,}"
        return NoModel(f"{loop.name} has no model yet: the first is trained once {rows} labels have matured; {see}")

    def _shown(self, loop: Loop) -> dict[str, Any]:
        standing: Standing[Loaded] = self._roster.standing(loop.name)
        state, champion, refused = standing.state, standing.champion, standing.refusal
        return {
            "loop": loop.name,
            "description": loop.description,
            "on": loop.predict.on,
            "first_after_labels": loop.train.first_after.rows,
            "revision": standing.revision,
            "heard": standing.heard,
            "step": state.step if state else None,
            "share": state.share if state else 0.0,
            "since": (state.since or state.at) if state else None,
            "watch_until": state.watch_until if state else None,
            "reason": state.reason if state else None,
            "champion": None if champion is None else _model(champion),
            "other": None if standing.other is None else {"role": standing.role, **_model(standing.other)},
            "unloaded": standing.unloaded,
            "missing": standing.missing or None,
            "refused": None
            if refused is None
            else {"revision": refused.state.revision, "reason": refused.reason, "at": refused.state.at},
        }


def _model(loaded: Loaded) -> dict[str, Any]:
    return {
        "version": loaded.ref.version,
        "run": loaded.ref.run,
        "memory_bytes": loaded.size,
        "trained_at": loaded.ref.at,
        "task": loaded.task,
        "feature_service": loaded.manifest.feature_service,
        "inputs": loaded.manifest.inputs,
        "metrics": loaded.manifest.metrics,
    }


def _said(served: PredictionServed) -> dict[str, Any]:
    return {
        "prediction_id": served.id,
        "loop": served.loop,
        "question": served.question,
        **_output(served),
        "version": served.version,
        "variant": served.variant,
        "asked_at": served.asked_at,
        "entities": served.entities,
        "inputs": served.inputs,
        "features": served.features,
        "timings_ms": served.timings_ms,
        "stale_views": served.stale_views,
        "empty_views": empty_views(served),
        "store_away": served.store_away,
    }


def _output(served: PredictionServed) -> dict[str, Any]:
    """`probability`, `value`, or `probabilities` by class: a multiclass model has two classes at least."""
    return dict(served.output) if len(served.output) == 1 else {"probabilities": served.output}


def _event(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("event"), dict):
        wrong = "event is no object" if isinstance(body, dict) and "event" in body else "the body has no event"
        raise Refusal("bad_body", f'{wrong}; send {{"event": {{…}}}}, one event as its stream has it')
    if others := body.keys() - {"event"}:
        raise Refusal("bad_body", f'send {{"event": {{…}}}} and nothing beside it; found {sorted(others)[:5]!r:.200}')
    event: dict[str, Any] = body["event"]
    return event


def _flag(request: Request, name: str) -> bool:
    said = request.query_params.get(name, "false")
    if said not in ("true", "false"):
        raise Refusal("bad_body", f"{name} is {said[:40]!r}; write {name}=true or {name}=false, or leave it out")
    return said == "true"
