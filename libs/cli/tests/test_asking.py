"""A person's word over real HTTP to a trainer that a server of the test's own plays, and the journal from a real Kafka."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Cause, Decision, Event, Finding, ModelState, RetrainDecided, RolloutMoved, Step
from millstream.contracts.topics import RETRAIN, TOPICS, TRAINING, VERDICTS
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.asking import Answer, Office, ask, me, office_of
from millstream_cli.errors import CommandFailed
from millstream_cli.journal import Told, read_file, read_journal, row_of, write_file

from .made_events import LOOP, Journal, day, promoted, ref


@dataclass
class Trainer:
    """Answers 202 and then tells `says(request)` of the request; or refuses with `refuses`."""

    says: Any = lambda request: []
    refuses: tuple[int, Any] | None = None
    away: int = 0
    """So many looks for an answer fail."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    said: dict[str, list[Any]] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, waits: bool = True) -> AsyncIterator[Office]:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        app.router.add_get("/v1/loops/{loop}/requests/{id}", self._tell)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield Office(trainer=f"http://127.0.0.1:{port}", waits=waits)
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.asked.append((request.raw_path, await request.json()))
        if self.refuses is not None:
            status, body = self.refuses
            return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))
        id = uuid.uuid4().hex
        self.said[id] = [row_of(Told(event.id, cause, event)) for event, cause in self.says(id) if cause == id]
        return web.json_response({"request": id}, status=202)

    async def _tell(self, request: web.Request) -> web.Response:
        if self.away:
            self.away -= 1
            return web.Response(status=503, text="not now")
        return web.json_response({"request": request.match_info["id"], "decided": self.said[request.match_info["id"]]})


async def publish(kafka: str, topic: str, said: Sequence[tuple[Event, str | None]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for event, caused_by in said:
            id = str(getattr(event, "id", ""))
            envelope = Envelope(id=id, type=event.type_name, source="test", causation_id=caused_by)
            await producer.send_and_wait(topic, event.encode(), partition=0, headers=envelope.headers())
    finally:
        await producer.stop()


def decided(request: str, decision: Decision) -> tuple[Event, str]:
    event = RetrainDecided(
        id=uuid.uuid4().hex,
        loop=LOOP,
        request=request,
        cause=Cause.MANUAL,
        decision=decision,
        reason="4 runs within 30.0 days, the budget is 4" if decision is Decision.DECLINED else "Ada asked",
        at=day(0),
        run="run7" if decision is Decision.ACCEPTED else None,
    )
    return event, request


def state(champion: str, **held: str) -> ModelState:
    return ModelState(
        id="s",
        loop=LOOP,
        revision=1,
        step=Step.CHAMPION,
        champion=ref(champion),
        challenger=None,
        previous=None,
        reason="",
        at=day(0),
        **held,
    )


def moved(request: str, version: str, before: Step, step: Step, led_to: ModelState | None = None) -> tuple[Event, str]:
    event = RolloutMoved(
        id=uuid.uuid4().hex,
        loop=LOOP,
        revision=1,
        run="run7",
        version=version,
        step=step,
        before=before,
        share=0.0,
        reason="complaints",
        at=day(0),
        by="Ada",
        led_to=led_to,
    )
    return event, request


@pytest.fixture
def bootstrap(kafka: EmbeddedKafka) -> str:
    """The session's Kafka, with our topics."""
    specs = [TopicSpec(name=topic.name, partitions=1, retention=topic.retention) for topic in TOPICS]
    asyncio.run(ensure_topics(kafka.bootstrap, specs))
    return kafka.bootstrap


async def asked(trainer: Trainer, path: str = "retrain", within: float = 30.0, waits: bool = True) -> Answer:
    async with trainer.running(waits) as office:
        return await ask(office, LOOP, path, {"by": "Ada", "reason": "complaints"}, within)


async def test_a_request_is_answered_by_its_own_decision() -> None:
    def says(request: str) -> list[tuple[Event, str]]:
        return [decided("another", Decision.DECLINED), decided(request, Decision.ACCEPTED)]

    trainer = Trainer(says, away=2)
    answer = await asked(trainer)
    assert trainer.asked == [("/v1/loops/flight-delay/retrain", {"by": "Ada", "reason": "complaints"})]
    assert (answer.words, answer.refused) == ("accepted, run run7: Ada asked", False)
    assert answer.as_json()["decided"][0]["type"] == "millstream.retrain.decided.v1"


async def test_a_declined_request_is_refused_with_the_reason() -> None:
    answer = await asked(Trainer(lambda request: [decided(request, Decision.DECLINED)]))
    assert answer.refused
    assert answer.words == "declined: 4 runs within 30.0 days, the budget is 4"


async def test_a_rollback_that_ends_a_trial_first_says_both() -> None:
    def says(request: str) -> list[tuple[Event, str]]:
        back = moved(request, "2", Step.CHAMPION, Step.ROLLED_BACK, led_to=state("1"))
        return [moved(request, "3", Step.CANARY, Step.REJECTED), back]

    answer = await asked(Trainer(says), "rollback")
    assert answer.words.splitlines() == [
        "version 3: canary → rejected (complaints)",
        "version 2: champion → rolled back, version 1 answers (complaints)",
    ]


async def test_a_freeze_and_a_pin_say_what_holds_now() -> None:
    held = state("2", frozen="Ada: Black Friday", pinned="2")
    answer = await asked(Trainer(lambda id: [moved(id, "2", Step.CHAMPION, Step.CHAMPION, held)]), "freeze")
    assert answer.words == "version 2 stays, frozen by Ada: Black Friday, pinned to version 2 (complaints)"


async def test_a_freeze_says_its_reason_once() -> None:
    held = state("2", frozen="Ada: complaints")
    answer = await asked(Trainer(lambda id: [moved(id, "2", Step.CHAMPION, Step.CHAMPION, held)]), "freeze")
    assert answer.words == "version 2 stays, frozen by Ada: complaints"


async def test_a_request_that_is_not_decided_in_time_stands() -> None:
    answer = await asked(Trainer(), within=0.3)
    assert (answer.decided, answer.refused) == ((), False)
    assert answer.words == f"request {answer.request} was taken"


async def test_who_does_not_wait_is_told_that_it_was_taken() -> None:
    answer = await asked(Trainer(lambda request: [decided(request, Decision.ACCEPTED)]), waits=False)
    assert answer.decided == ()


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ((404, {"error": "unknown_loop", "message": "no loop 'x'; there is: a"}), r"\(404\): no loop 'x'; there is: a"),
        ((409, {"error": "not_now", "message": "version 3 is pinned"}), r"\(409\): version 3 is pinned"),
        ((422, {"message": "reason: too long"}), r"\(422\): reason: too long"),
        ((502, "<html>bad gateway</html>"), r"\(502\): <html>bad gateway"),
        ((500, ""), r"\(500\): without a word"),
        ((202, {"id": 1}), r"\(202\): "),
    ],
)
async def test_a_refusal_is_passed_on_in_the_trainer_s_words(refuses: tuple[int, Any], said: str) -> None:
    with pytest.raises(CommandFailed, match=said):
        await asked(Trainer(refuses=refuses))


async def test_a_trainer_that_is_not_there_is_named() -> None:
    office = Office(trainer="http://127.0.0.1:9", waits=True)
    with pytest.raises(CommandFailed, match=r"127\.0\.0\.1:9.*millstream status"):
        await ask(office, LOOP, "retrain", {"by": "Ada", "reason": "r"}, 1.0)


async def test_a_loop_s_name_stays_in_its_place_of_the_address() -> None:
    trainer = Trainer()
    async with trainer.running(waits=False) as office:
        await ask(office, "../a loop", "retrain", {}, 1.0)
    assert trainer.asked[0][0] == "/v1/loops/..%2Fa%20loop/retrain"


def test_a_trainer_elsewhere_is_enough_and_without_a_mill_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"start one with: millstream up --data .*; or name .* --trainer"):
        office_of(tmp_path, trainer=None, wait=True)
    assert office_of(tmp_path, trainer="http://trainer:8080/", wait=True) == Office(
        trainer="http://trainer:8080", waits=True
    )


def test_a_machine_without_a_login_name_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr("millstream_cli.asking.getuser", nobody)
    with pytest.raises(CommandFailed, match="--by NAME"):
        me()


async def test_the_journal_is_read_whole_from_kafka_and_from_a_file_alike(bootstrap: str, tmp_path: Path) -> None:
    journal = Journal()
    promoted(journal)
    await publish(bootstrap, TRAINING.name, [(one.event, one.caused_by) for one in journal.told])
    await publish(bootstrap, TRAINING.name, [(one.event, one.caused_by) for one in journal.told[:3]])
    stranger = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await stranger.start()
    await stranger.send_and_wait(RETRAIN.name, b"not ours", headers=[("ce_type", b"\xff")])
    await stranger.stop()
    read = await read_journal(bootstrap)
    mine = {one.id: one for one in journal.told}
    assert [one for one in read if one.id in mine] == journal.told
    write_file(tmp_path / "journal.jsonl", journal.told)
    assert read_file(tmp_path / "journal.jsonl") == journal.told


async def test_a_journal_of_several_topics_is_in_the_order_in_which_it_was_said(bootstrap: str) -> None:
    journal = Journal()
    verdict = journal.window(8, Finding.DETECTED, 0.4, "7")
    journal.decided(8, verdict, Decision.PENDING, run="run7")
    word = journal.approved("run7")
    journal.decided(8, word, Decision.ACCEPTED, run="run7")
    for topic, one in zip((VERDICTS, TRAINING, RETRAIN, TRAINING), journal.told, strict=True):
        await publish(bootstrap, topic.name, [(one.event, one.caused_by)])
    mine = {one.id for one in journal.told}
    assert [one for one in await read_journal(bootstrap) if one.id in mine] == journal.told


@pytest.mark.parametrize(
    "line", ["{}", "nonsense", '{"type":"unknown","id":"1"}', '{"type":"millstream.labels.matured.v1","id":"1"}', "[1]"]
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "journal.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(CommandFailed, match=r"journal\.jsonl:2: .*out/journal\.jsonl"):
        read_file(tmp_path / "journal.jsonl")
