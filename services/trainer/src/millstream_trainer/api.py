"""HTTP doorway of the trainer: what each loop is at, and a person's word to retrain."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from millstream.contracts.events import Cause, RetrainRequested
from millstream.contracts.times import to_rfc3339
from millstream.runtime.http import JsonBody, refusal
from millstream_trainer.domain.state import LoopState
from millstream_trainer.errors import UnknownLoop
from millstream_trainer.handlers import Trainer
from millstream_trainer.ports import Announcer


class Wish(BaseModel):
    """Why somebody wants a retrain; both end up in the journal."""

    model_config = ConfigDict(extra="forbid")

    by: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


WISH = JsonBody(
    Wish,
    example={"by": "Ada", "reason": "the new runway changed the delays"},
    refusals={
        404: "No such loop; the answer names those there are",
        503: "Kafka is away or did not confirm in time; try again after Retry-After",
    },
)


def add_routes(app: FastAPI, trainer: Trainer, announcer: Announcer) -> None:
    @app.exception_handler(UnknownLoop)
    async def unknown_loop(request: Request, error: UnknownLoop) -> Response:
        return refusal(404, "unknown_loop", str(error))

    @app.get(
        "/v1/loops", tags=["loops"], summary="Champion, run under way, last decision and next schedule of each loop"
    )
    async def loops() -> dict[str, Any]:
        return {"loops": [view(state, trainer.rules[name].schedule) for name, state in sorted(trainer.states.items())]}

    @app.post(
        "/v1/loops/{loop}/retrain",
        status_code=202,
        tags=["loops"],
        summary="Ask for a retrain; the policy answers",
        **WISH.docs,
    )
    async def retrain(loop: str, request: Request) -> dict[str, str]:
        if loop not in trainer.states:
            raise UnknownLoop(loop, sorted(trainer.states))
        wish = await WISH.read(request)
        id = uuid.uuid4().hex
        event = RetrainRequested(id=id, loop=loop, cause=Cause.MANUAL, by=wish.by, reason=wish.reason)
        await announcer.announce(event, caused_by=id)
        return {"request": id}


def view(state: LoopState, schedule: int | None) -> dict[str, Any]:
    """One loop as JSON."""
    running, last, decision = state.running, state.last_run, state.last_decision
    due = None if schedule is None or last is None else to_rfc3339(last.at + schedule)
    shown: dict[str, Any] = {
        "loop": state.loop,
        "stream_time": None if state.stream_time is None else to_rfc3339(state.stream_time),
        "revision": 0 if state.models is None else state.models.revision,
        "champion": msgspec.to_builtins(state.champion),
        "running": None
        if running is None
        else {
            "run": running.name,
            "cause": running.cause.value,
            "attempt": running.attempt,
            "at": to_rfc3339(running.at),
        },
        "last_decision": msgspec.to_builtins(decision),
        "next_schedule": due,
        "runs": len(state.runs),
        "rejected_in_a_row": state.rejected_in_a_row,
        "broken_since": None if state.broken_since is None else to_rfc3339(state.broken_since),
    }
    return shown
