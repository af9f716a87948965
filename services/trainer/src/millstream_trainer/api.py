"""HTTP doorway of the trainer: what each loop is at, a person's word on it, models made elsewhere, and alerts."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Cause,
    Event,
    GivenModel,
    RetrainRequested,
    RolloutAction,
    RolloutRequested,
    RunApproved,
)
from millstream.errors import MillstreamError, Refusal, RetryLater
from millstream.runtime.http import BODY_DOCS, JsonBody, media_type, read_body, refusal
from millstream.runtime.remote import RemoteRefused, allowed
from millstream_trainer.domain.graph_file import is_onnx
from millstream_trainer.domain.policy import not_pending
from millstream_trainer.domain.state import LoopState
from millstream_trainer.domain.view import view
from millstream_trainer.domain.wishes import refusal as refusal_of
from millstream_trainer.domain.wishes import unknown_version
from millstream_trainer.errors import NotNow, UnknownLoop, UnknownModel, UnknownRun, UnknownVersion
from millstream_trainer.handlers import Trainer
from millstream_trainer.ports import Announcer, GivenModels

By = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(min_length=1, max_length=2000)]
Version = Annotated[str, Field(min_length=1, max_length=100)]

MOST_ALERTS = 1000
"""In one call. Alertmanager groups alerts by the loop, so a call has a few; the body's size is bounded besides."""


LARGEST_GRAPH = 64 * 1024 * 1024
"""Bytes that are taken over HTTP, held in memory meanwhile; larger graphs are laid into the packages by hand."""
GRAPH_SECONDS = 120.0
"""For a graph of that size, over a bad line."""
OCTETS = "application/octet-stream"


class Wish(BaseModel):
    """Who wants something and why; both end up in the journal."""

    model_config = ConfigDict(extra="forbid")

    by: By
    reason: Reason


class Rollback(Wish):
    to: Version | None = None
    """Null: the version that answered before; while one is on trial, its trial ends."""


class Pin(Wish):
    to: Version


Name = Annotated[str, Field(min_length=1, max_length=200)]


class Register(Wish):
    """What a graph does not say of itself; see `GivenModel`."""

    model: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """sha256 of the graph, as `PUT …/given` answered it."""
    remote: Annotated[str, Field(max_length=1000)] = ""
    """In its place: where the model runs, as `https://host/v2/models/NAME`."""
    learned_until: AwareDatetime
    inputs: Annotated[list[Name], Field(max_length=10_000)] = []
    output: Annotated[str, Field(max_length=200)] = ""
    classes: Annotated[list[Name], Field(max_length=100)] = []


class Approval(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: By
    reason: Annotated[str, Field(max_length=2000)] = ""


class Alert(BaseModel):
    """One alert of Alertmanager; what it has besides is its own."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: datetime
    fingerprint: Annotated[str, Field(min_length=1, max_length=200)]

    @property
    def loop(self) -> str | None:
        return self.labels.get("loop") or self.annotations.get("loop")

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "alert")[:150]

    @property
    def reason(self) -> str:
        said = self.annotations.get("summary") or self.annotations.get("description") or "it fires"
        return f"{self.name}: {said}"[:2000]


class Alerts(BaseModel):
    """Alertmanager's webhook, version 4."""

    version: Literal["4"]
    alerts: Annotated[list[Alert], Field(max_length=MOST_ALERTS)]


_AWAY = {503: "Kafka is away or did not confirm in time; try again after Retry-After"}
_NO_LOOP = "No such loop; the answer names those there are"
_NOT_NOW = {409: "The loop's state forbids it; the message says why"}
_EXAMPLE = {"by": "Ada", "reason": "the new runway changed the delays"}
WISH = JsonBody(Wish, example=_EXAMPLE, refusals={404: _NO_LOOP, **_AWAY})
HOLD = JsonBody(Wish, example=_EXAMPLE, refusals={404: _NO_LOOP, **_NOT_NOW, **_AWAY})
_NO_VERSION = {404: "No such loop or version; the answer names those there are", **_NOT_NOW, **_AWAY}
ROLLBACK = JsonBody(Rollback, example={**_EXAMPLE, "to": "3"}, refusals=_NO_VERSION)
PIN = JsonBody(Pin, example={**_EXAMPLE, "to": "3"}, refusals=_NO_VERSION)
_NO_RUN = {404: "No such loop or run; the answer names those there are", **_NOT_NOW, **_AWAY}
REGISTER = JsonBody(
    Register,
    example={
        "by": "Ada",
        "reason": "the research team's network",
        "model": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "learned_until": "2013-05-01T00:00:00Z",
        "inputs": ["distance", "scheduled_minute"],
        "output": "probabilities",
    },
    refusals={404: "No such loop, or nobody gave such a graph", **_AWAY},
)
GRAPH_DOCS: dict[str, Any] = {
    "responses": {
        404: {"description": _NO_LOOP},
        408: BODY_DOCS[408],
        413: {"description": f"The graph has more than {LARGEST_GRAPH} bytes: lay it into the packages by hand"},
        415: {"description": f"Send {OCTETS}, not compressed"},
        422: {"description": "The bytes are no ONNX graph"},
        503: {"description": "Another graph is just arriving, or the packages cannot be written; try again"},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}
APPROVAL = JsonBody(Approval, example=_EXAMPLE, refusals=_NO_RUN)
ALERTS = JsonBody(
    Alerts,
    example={
        "version": "4",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "DelaysOff", "loop": "flight-delay"},
                "annotations": {"summary": "a third of the flights is late"},
                "startsAt": "2013-06-01T12:00:00Z",
                "fingerprint": "b1a3c6f2d4e5a6b7",
            }
        ],
    },
    refusals={404: _NO_LOOP, **_AWAY},
)
HOLDS = {
    RolloutAction.UNPIN: "Let the rollout move again after a pin",
    RolloutAction.FREEZE: "Stop every step but the way back",
    RolloutAction.UNFREEZE: "Let the rollout move again after a freeze",
}
STATUS = {UnknownLoop: 404, UnknownModel: 404, UnknownVersion: 404, UnknownRun: 404, NotNow: 409}
CODES = {
    UnknownLoop: "unknown_loop",
    UnknownModel: "unknown_model",
    UnknownVersion: "unknown_version",
    UnknownRun: "unknown_run",
    NotNow: "not_now",
}


def add_routes(app: FastAPI, trainer: Trainer, announcer: Announcer, given: GivenModels, hosts: str = "") -> None:
    for error in STATUS:
        app.add_exception_handler(error, _refuse)

    def state_of(loop: str) -> LoopState:
        if loop not in trainer.states:
            raise UnknownLoop(loop, sorted(trainer.states))
        return trainer.states[loop]

    async def ask(event: Event, id: str) -> dict[str, str]:
        await announcer.announce(event, caused_by=id)
        return {"request": id}

    async def wish(loop: str, action: RolloutAction, said: Wish, to: str | None = None) -> dict[str, str]:
        state, id = state_of(loop), uuid.uuid4().hex
        if to is not None and to not in state.versions:
            raise UnknownVersion(unknown_version(state, to))
        why = refusal_of(state, action, to)
        if why is not None:
            raise NotNow(why)
        event = RolloutRequested(id=id, loop=loop, action=action, by=said.by, reason=said.reason, to=to)
        return await ask(event, id)

    @app.get(
        "/v1/loops", tags=["loops"], summary="Champion, trial, run under way, what waits and what is held of each loop"
    )
    async def loops() -> dict[str, Any]:
        return {
            "loops": [
                view(state, trainer.rules[name], trainer.replicas.live(name, trainer.clock()))
                for name, state in sorted(trainer.states.items())
            ]
        }

    @app.get(
        "/v1/loops/{loop}/requests/{request}",
        tags=["loops"],
        summary="What came of a request: its decision, or the steps of the rollout; none while it is not decided",
        responses={404: {"description": _NO_LOOP}},
    )
    async def answers(loop: str, request: str) -> dict[str, Any]:
        state_of(loop)
        found = trainer.answers(loop, request)
        rows = [{"caused_by": request, "type": one.type_name, **msgspec.to_builtins(one)} for one in found]
        return {"request": request, "decided": rows}

    @app.post(
        "/v1/loops/{loop}/retrain",
        status_code=202,
        tags=["loops"],
        summary="Ask for a retrain; the policy answers",
        **WISH.docs,
    )
    async def retrain(loop: str, request: Request) -> dict[str, str]:
        state_of(loop)
        said, id = await WISH.read(request), uuid.uuid4().hex
        return await ask(RetrainRequested(id=id, loop=loop, cause=Cause.MANUAL, by=said.by, reason=said.reason), id)

    arriving = asyncio.Lock()

    @app.put("/v1/loops/{loop}/given", tags=["loops"], summary="Give a graph that was made elsewhere", **GRAPH_DOCS)
    async def give(loop: str, request: Request) -> dict[str, str]:
        """Keep an ONNX graph and answer its sha256; nothing comes of it before it is registered."""
        state_of(loop)
        media_type(request, (OCTETS,))
        if arriving.locked():
            raise RetryLater("another graph is just arriving; try again in a moment")
        async with arriving:
            raw = await read_body(request, LARGEST_GRAPH, GRAPH_SECONDS)
            if not await asyncio.to_thread(is_onnx, raw):
                raise Refusal("bad_body", "the file is no ONNX graph; export the model as one: see docs/models.md")
            try:
                return {"model": await asyncio.to_thread(given.give, raw)}
            except OSError as error:
                raise RetryLater(f"the packages cannot be written: {error.strerror}") from error

    @app.post(
        "/v1/loops/{loop}/register",
        status_code=202,
        tags=["loops"],
        summary="Have a graph that was given judged as any new model is: gate, shadow, canary",
        **REGISTER.docs,
    )
    async def register(loop: str, request: Request) -> dict[str, str]:
        state_of(loop)
        said, id = await REGISTER.read(request), uuid.uuid4().hex
        if bool(said.model) == bool(said.remote):
            raise Refusal("bad_body", "write model, the sha256 of a graph, or remote, where a model runs: one of them")
        if said.remote:
            try:
                allowed(said.remote, hosts)
            except RemoteRefused as error:
                raise Refusal("bad_body", str(error)) from error
        elif not await asyncio.to_thread(given.is_given, said.model):
            raise UnknownModel(f"no graph {said.model}; send it first: PUT /v1/loops/{loop}/given")
        model = GivenModel(sha256=said.model, **said.model_dump(exclude={"by", "reason", "model"}))
        event = RetrainRequested(id=id, loop=loop, cause=Cause.MANUAL, by=said.by, reason=said.reason, given=model)
        return await ask(event, id)

    @app.post(
        "/v1/loops/{loop}/runs/{run}/approve",
        status_code=202,
        tags=["loops"],
        summary="Say go to a run that waits for it",
        **APPROVAL.docs,
    )
    async def approve(loop: str, run: str, request: Request) -> dict[str, str]:
        state = state_of(loop)
        said, id = await APPROVAL.read(request), uuid.uuid4().hex
        if run not in state.pending:
            known = state.run(run) is not None or run in state.expired
            raise (NotNow if known else UnknownRun)(not_pending(state, run))
        return await ask(RunApproved(id=id, loop=loop, run=run, by=said.by, reason=said.reason), id)

    @app.post(
        "/v1/loops/{loop}/rollback",
        status_code=202,
        tags=["rollout"],
        summary="End the trial, or go back to the version before or to the one that is named",
        **ROLLBACK.docs,
    )
    async def rollback(loop: str, request: Request) -> dict[str, str]:
        state_of(loop)
        said = await ROLLBACK.read(request)
        return await wish(loop, RolloutAction.ROLLBACK, said, said.to)

    @app.post(
        "/v1/loops/{loop}/pin",
        status_code=202,
        tags=["rollout"],
        summary="Have one version answer, whatever comes",
        **PIN.docs,
    )
    async def pin(loop: str, request: Request) -> dict[str, str]:
        state_of(loop)
        said = await PIN.read(request)
        return await wish(loop, RolloutAction.PIN, said, said.to)

    def add_hold(action: RolloutAction, summary: str) -> None:
        path, docs = f"/v1/loops/{{loop}}/{action.value}", HOLD.docs

        @app.post(path, status_code=202, tags=["rollout"], summary=summary, operation_id=action.value, **docs)
        async def hold(loop: str, request: Request) -> dict[str, str]:
            state_of(loop)
            return await wish(loop, action, await HOLD.read(request))

    for action, summary in HOLDS.items():
        add_hold(action, summary)

    @app.post(
        "/v1/alerts",
        status_code=202,
        tags=["alerts"],
        summary="Alertmanager's webhook: a firing alert whose label `loop` names a loop asks for a retrain",
        **ALERTS.docs,
    )
    async def alerts(request: Request) -> dict[str, list[Any]]:
        events: dict[str, RetrainRequested] = {}
        refusals: list[tuple[str, MillstreamError]] = []
        for position, alert in enumerate((await _alerts(request)).alerts):
            if alert.status != "firing":
                continue
            try:
                event = _asked_by(alert, position)
                state_of(event.loop)
                events[event.id] = event
            except (Refusal, UnknownLoop) as error:
                refusals.append((f"/alerts/{position}/labels", error))
        # Alertmanager does not send a call again that was refused: the good alerts in it would be lost.
        if refusals and not events:
            raise refusals[0][1]
        for event in events.values():
            await announcer.announce(event, caused_by=event.id)
        return {
            "requests": list(events),
            "refused": [{"pointer": pointer, "message": str(error)} for pointer, error in refusals],
        }


async def _alerts(request: Request) -> Alerts:
    try:
        return await ALERTS.read(request)
    except Refusal as error:
        if error.code == "bad_body":
            message = f"Alertmanager's webhook of version 4 is expected here: {error}"
            raise Refusal(error.code, message, **error.more) from error
        raise


def _asked_by(alert: Alert, position: int) -> RetrainRequested:
    """The request that an alert is, the same however often Alertmanager repeats it. Raises Refusal(`bad_body`)."""
    if alert.loop is None:
        message = f"alert {alert.name!r} names no loop; give its rule a label like loop: flight-delay"
        raise Refusal("bad_body", message, faults=[{"pointer": f"/alerts/{position}/labels", "message": "no loop"}])
    return RetrainRequested(
        id=derived_id("alert", alert.loop, alert.fingerprint, alert.startsAt.isoformat()),
        loop=alert.loop,
        cause=Cause.ALERT,
        by="Alertmanager",
        reason=alert.reason,
    )


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal(STATUS[type(error)], CODES[type(error)], str(error))
