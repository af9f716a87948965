"""Asks a loop with features that are given: what the Open Inference Protocol means here, for both doorways that speak it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from secrets import token_hex
from typing import Any

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.errors import Refusal, RejectEvent
from millstream.project.fields import text_of
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream_serving.domain.inference import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    TableRequest,
    TableResponse,
    TensorSpec,
)
from millstream_serving.domain.question import Question, Transport
from millstream_serving.domain.roster import Roster, Standing
from millstream_serving.domain.tensor_rows import datatype_of, output_numbers, output_of, output_tensor, rows_of
from millstream_serving.domain.tensors import FP32, bad, of_texts
from millstream_serving.errors import ModelFailed, ModelsUnknown, NoModel, UnknownLoop
from millstream_serving.handlers.explain import Explainer
from millstream_serving.handlers.given import Given, GivenTable
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.handlers.online import Online
from millstream_serving.handlers.residents import Residents

BESIDE = {"prediction_id": "id", "version": "version", "variant": "variant"}
"""What may be asked for beside the model's own output, a text a row; and what the record calls it."""
_OF_RECORD = {what: attrgetter(field) for what, field in BESIDE.items()}
EXPLANATION = "explanation"
"""The tensor of JSON texts that parameter `explain` adds."""
MOST_EXPLAINED = 8
"""Rows of one request: half of what may wait, so that one client leaves room for another."""


class Inference:
    """A loop is a model of the protocol. Safe for concurrent use."""

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
    ) -> None:
        self._loops = loops
        self._streams = streams
        self._roster = roster
        self._residents = residents
        self._online = online
        self._explainer = explainer
        self._known = known
        self._clock = clock
        self._fields = {
            name: {
                one for one in (loop.predict.id, loop.label.by, loop.rollout.by, streams[loop.predict.on].key) if one
            }
            for name, loop in loops.items()
        }
        """What identifies a row, by loop."""

    @property
    def loops(self) -> Collection[str]:
        """The models that there are."""
        return self._loops.keys()

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """How to ask. Raises UnknownLoop, NoModel, ModelsUnknown: the loop, or this version of it, is not ready then."""
        standing = self._standing(name)
        manifest = self._model(name, standing, version).manifest
        output, shape = output_of(manifest)
        return ModelMetadata(
            name=name,
            versions=[model.ref.version for model in standing.models.values()],
            inputs=[TensorSpec(name=one.name, datatype=datatype_of(one), shape=[-1, 1]) for one in manifest.inputs],
            outputs=[TensorSpec(name=output, datatype=FP32, shape=shape)],
        )

    async def infer(
        self,
        name: str,
        version: str,
        asked: InferRequest,
        *,
        transport: Transport,
        asked_at: int | None = None,
        trace: str | None = None,
    ) -> InferResponse:
        """The answers to all rows; each is in the prediction log by then. `asked_at`: microseconds, None is now. `trace`:
        traceparent that their records go on with.

        Raises Refusal, UnknownLoop, NoModel, ModelFailed, RetryLater, NotSent.
        """
        standing = await self._awake(name)
        champion = self._model(name, standing, version)
        if champion is not standing.champion:
            raise bad(
                f"version {version} of {name} is the {standing.role}: it answers when it is its turn; "
                "leave the version out"
            )
        output, _ = output_of(champion.manifest)
        if asked.outputs and (odd := [one for one in asked.outputs if one != output and one not in BESIDE]):
            raise bad(f"no output {odd[0]!r:.100}; ask for {', '.join([output, *BESIDE])}")
        if len(set(asked.outputs)) < len(asked.outputs):
            raise bad("an output is asked for twice; name each once")
        loop = self._loops[name]
        stream = self._streams[loop.predict.on]
        rows = rows_of(
            asked.tensors,
            champion.manifest.inputs,
            others=[] if standing.other is None else standing.other.manifest.inputs,
            fields=self._fields[name],
        )
        self._name_entity(loop, stream, asked, rows.events)
        explain = _explain(asked, len(rows.events))
        at = self._clock() if asked_at is None else asked_at
        questions = [_question(loop, event, at, transport, asked.id, trace) for event in rows.events]
        answers = await self._online.infer(Given(standing, questions, rows.features, bool(version)))
        served = _served(name, answers)
        return InferResponse(
            model=name,
            version=served[0].version,
            id=asked.id,
            parameters=_alike(served),
            tensors=[
                *(
                    output_tensor(champion.manifest, [one.output for one in served])
                    if one == output
                    else of_texts(one, _beside(served, one))
                    for one in asked.outputs or (output,)
                ),
                *([of_texts(EXPLANATION, await self._explained(served))] if explain else ()),
            ],
        )

    async def infer_table(
        self,
        name: str,
        asked: TableRequest,
        *,
        transport: Transport,
        asked_at: int | None = None,
        trace: str | None = None,
    ) -> InferResponse | TableResponse:
        """As `infer`, without a version; what most ask, in half of the time."""
        standing = await self._awake(name)
        champion = self._model(name, standing, "")
        plan = champion.table
        if plan is None or not plan.holds(asked) or not plan.names.isdisjoint(self._fields[name]):
            return await self.infer(name, "", asked.request(), transport=transport, asked_at=asked_at, trace=trace)
        at = self._clock() if asked_at is None else asked_at
        served = _served(name, await self._online.infer(GivenTable(standing, plan, asked, name, at, transport, trace)))
        output, shape = output_of(champion.manifest)
        return TableResponse(
            model=name,
            version=served[0].version,
            id=asked.id,
            parameters=_alike(served),
            output=output,
            shape=[len(served), *shape[1:]],
            data=output_numbers(champion.manifest, [one.output for one in served]),
        )

    async def _explained(self, served: Sequence[PredictionServed]) -> list[str]:
        return [json.dumps(found) for found in await asyncio.gather(*map(self._explainer.explain, served))]

    def _standing(self, name: str) -> Standing[Loaded]:
        self.exists(name)
        return self._roster.standing(name)

    def exists(self, name: str) -> None:
        """Raises UnknownLoop."""
        if name not in self._loops:
            known = ", ".join(sorted(self._loops)) or "none"
            raise UnknownLoop(f"no model {name[:100]!r}; a model is a loop of the project: {known}")

    async def _awake(self, name: str) -> Standing[Loaded]:
        """As `_standing`, its models in memory. Raises ModelFailed, ModelUnloaded."""
        self._standing(name)
        standing = await self._residents.standing(name)
        if standing.unloaded:
            raise ModelFailed(
                f"{name}: its model was unloaded and cannot be loaded again: {self._residents.why_not(name)}"
            )
        return standing

    def _model(self, name: str, standing: Standing[Loaded], version: str) -> Loaded:
        if not self._known.is_set():
            raise ModelsUnknown("the models are still being read; /readyz says what is missing")
        if standing.champion is None:
            raise NoModel(f"{name} has no model that answers; GET /v1/loops/{name} says what it waits for")
        for model in standing.models.values():
            if version in ("", model.ref.version):
                return model
        loaded = ", ".join(f"{model.ref.version} ({role})" for role, model in standing.models.items())
        raise UnknownLoop(f"no version {version[:100]!r} of {name} is loaded; there are {loaded}; or leave it out")

    def _name_entity(self, loop: Loop, stream: Stream, asked: InferRequest, events: Sequence[dict[str, Any]]) -> None:
        """Parameter `entity`: whom all rows are about, where no tensor says it. The canary goes by it."""
        field, entity = loop.rollout.by or stream.key, asked.parameters.get("entity")
        if entity is None:
            return
        if field is None or not isinstance(entity, str | int) or isinstance(entity, bool):
            where = f"of {loop.name}'s {field}" if field else f"which {loop.name} has not: its stream has no key"
            raise bad(f"parameter 'entity' is {entity!r:.60}; send a text or a whole number, the value {where}")
        for event in events:
            event.setdefault(field, entity)


def _served(name: str, answers: Sequence[object]) -> list[PredictionServed]:
    """`answers`, where all of them are some. Raises Refusal, ModelFailed."""
    served = [one for one in answers if isinstance(one, PredictionServed)]
    if len(served) < len(answers):
        raise _why_not(name, answers)
    return served


def _beside(served: Sequence[PredictionServed], what: str) -> list[str]:
    return list(map(_OF_RECORD[what], served))


def _alike(served: Sequence[PredictionServed]) -> dict[str, str]:
    """What holds for all rows."""
    if len(served) == 1:
        return {what: of(served[0]) for what, of in _OF_RECORD.items()}
    beside = {what: _beside(served, what) for what in BESIDE}
    return {what: texts[0] for what, texts in beside.items() if len(set(texts)) == 1}


def _explain(asked: InferRequest, rows: int) -> bool:
    said = asked.parameters.get("explain", False)
    if not isinstance(said, bool):
        raise bad(f"parameter 'explain' is {said!r:.60}; send true or false")
    if said and rows > MOST_EXPLAINED:
        raise bad(f"{rows} rows to explain; send at most {MOST_EXPLAINED} at a time, or leave parameter 'explain' out")
    return said


def _question(
    loop: Loop, event: Mapping[str, Any], at: int, transport: Transport, request: str, trace: str | None
) -> Question:
    """A row that does not say which question it is is one of its own: its label will not find it by a field."""
    id = _text(event, loop.predict.id) or token_hex(16)
    return Question(
        loop=loop.name,
        id=id,
        key=_text(event, loop.label.by) or id,
        asked_at=at,
        transport=transport,
        event=event,
        cause=request or id,
        trace=trace,
    )


def _text(event: Mapping[str, Any], name: str | None) -> str:
    if name is None or event.get(name) is None:
        return ""
    try:
        return text_of(event, name)
    except RejectEvent as error:
        raise bad(f"input {name!r}: {error}") from error


def _why_not(name: str, answers: Sequence[object]) -> Exception:
    rejected = next((one for one in answers if isinstance(one, RejectEvent)), None)
    if rejected is not None:
        return Refusal(rejected.reason, str(rejected))
    rows = [str(row) for row, one in enumerate(answers) if isinstance(one, QuestionUnanswered)]
    more = ", …" if len(rows) > 10 else ""
    return ModelFailed(f"{name}: no model has an answer to rows {', '.join(rows[:10])}{more}; ask without them")
