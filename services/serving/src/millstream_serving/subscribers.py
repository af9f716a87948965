"""Kafka doorway of serving: hears the streams that ask, answers each batch whole; hears which model is to answer, says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from millstream.codecs.codec import Codec
from millstream.contracts.events import ModelState, PredictionServed, QuestionUnanswered, decode_event
from millstream.contracts.topics import MODELS
from millstream.errors import RejectEvent
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream.runtime.codecs import Codecs
from millstream.runtime.confirming import Confirming
from millstream.runtime.delivery import Batch, Record, Rejected, envelope
from millstream.runtime.publisher import Outgoing, Publisher
from millstream.runtime.records import origin
from millstream.runtime.service import Service
from millstream.runtime.table import TopicReader
from millstream.runtime.traced_batch import handed_on, traceparent_of
from millstream.runtime.user_events import read_batch
from millstream_serving.domain.question import Question
from millstream_serving.errors import ModelsUnknown
from millstream_serving.handlers import ModelKeeper, Predictor, Recorder, Replica, ask, fits

log = logging.getLogger(__name__)

GROUP = "serving"


class AnswerStream:
    """Answers the questions of one stream, for every loop that hears it."""

    def __init__(
        self,
        *,
        stream: Stream,
        codec: Codec,
        loops: Sequence[Loop],
        predictor: Predictor,
        publisher: Publisher,
        known: asyncio.Event,
        patience: float,
    ) -> None:
        self._stream = stream
        self._codec = codec
        self._loops = loops
        self._predictor = predictor
        self._publisher = publisher
        self._known = known
        self._patience = patience
        self._recorder = Recorder(publisher.source)

    async def __call__(self, batch: Batch) -> Confirming:
        """The answers, on their way: while Kafka confirms them the next questions are answered."""
        await self._models_known()
        events, rejected = read_batch(self._stream, batch, self._codec)
        questions: list[Question] = []
        records: list[Record] = []
        refused: dict[int, Rejected] = {}
        """By offset: a record is a dead letter once, however many loops refuse it."""
        for event in events:
            for loop in self._loops:
                try:
                    id, source = origin(event.record)
                    question = ask(
                        loop,
                        event.event,
                        asked_at=event.known_at,
                        transport="kafka",
                        cause=id,
                        producer=source,
                        trace=handed_on(event.record.headers),
                        place=(event.record.partition, event.record.offset),
                    )
                except RejectEvent as error:
                    refused.setdefault(event.record.offset, Rejected(event.record, error))
                    continue
                questions.append(question)
                records.append(event.record)
        answered: list[tuple[Question, PredictionServed | QuestionUnanswered]] = []
        asked: list[Record] = []
        for question, record, answer in zip(questions, records, await self._predictor.predict(questions), strict=True):
            if isinstance(answer, RejectEvent):
                refused.setdefault(record.offset, Rejected(record, answer))
                continue
            answered.append((question, answer))
            asked.append(record)
        outgoing: list[Outgoing] = []
        for record, one in zip(asked, self._recorder.records(answered), strict=True):
            if fits(one):
                outgoing.append(one)
                continue
            too_large = RejectEvent("too_large", f"its answer has {len(one.value)} bytes, more than Kafka takes")
            refused.setdefault(record.offset, Rejected(record, too_large))
        sent = asyncio.create_task(self._publisher.publish_fitting(outgoing))
        return Confirming(sent=sent, rejected=[*rejected, *refused.values()])

    async def _models_known(self) -> None:
        if self._known.is_set():
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._known.wait()
        except TimeoutError as error:
            raise ModelsUnknown("the models are not known yet, so the questions wait") from error


def hear_questions(
    service: Service,
    *,
    loops: Mapping[str, Loop],
    streams: Mapping[str, Stream],
    codecs: Codecs,
    predictor: Predictor,
    known: asyncio.Event,
    patience: float,
) -> None:
    """One consumer a stream, so that a busy one delays no other; a stream that several loops share is read once."""
    asked: dict[str, list[Loop]] = {}
    for loop in loops.values():
        asked.setdefault(loop.predict.on, []).append(loop)
    for name, sharing in sorted(asked.items()):
        handler = AnswerStream(
            stream=streams[name],
            codec=codecs[name],
            loops=sharing,
            predictor=predictor,
            publisher=service.publisher,
            known=known,
            patience=patience,
        )
        service.hears([name], group=GROUP, handler=codecs.preparing(handler))


def hear_models(service: Service, keeper: ModelKeeper) -> None:
    """Every replica reads the whole topic for itself: no group, so each learns every state."""

    async def apply(record: Record) -> None:
        state = model_state(record)
        if state is not None:
            keeper.hear(state, traceparent_of(record.headers))

    reader = TopicReader(bootstrap=service.kafka, topics=[MODELS.name], apply=apply)
    service.keeps("reading models", reader.run)
    service.keeps("loading models", lambda: keeper.run(reader.caught_up))


def say_what_is_obeyed(service: Service, replica: Replica, known: asyncio.Event) -> None:
    """Beside everything else, and once more at the stop."""
    service.keeps("saying which models are obeyed", lambda: replica.run(known))
    service.at_stop(replica.leave)


def model_state(record: Record) -> ModelState | None:
    """The state in a record; None for what is none: a tombstone, a type of a newer release, or something broken."""
    if record.value is None:
        return None
    try:
        event = decode_event(envelope(record).type, record.value)
    except (RejectEvent, ValueError) as error:
        log.error("a model record cannot be read: %s", error, extra={"offset": record.offset})
        return None
    return event if isinstance(event, ModelState) else None
