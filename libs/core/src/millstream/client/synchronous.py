"""The client for ordinary programs: each call returns when the mill has decided."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from millstream.client import batches
from millstream.client.batches import Batches, OnProgress, OnRejected, Progress
from millstream.client.replies import Accepted, Reply, accepted, answered
from millstream.client.requests import Requests, Token
from millstream.client.talk import Ask, Lost, T, Talk, Wait, settle
from millstream.client.transport import NOT_SENT, PATIENCE, TIMEOUT, lost, reply_of


class Client:
    """A mill's ingest, and its serving. Safe for threads, as httpx's own client is; `close` it, or use it in a `with`.

    `url`: ingest, like http://localhost:8101. `serving`: where predictions are asked; left out where one address has both.
    `key`: as `millstream keys create` showed it; else that in MILLSTREAM_KEY. `token`: in place of a key, or a function that
    gives one at every try. `patience`: seconds after which a call tries no more. `timeout`: of one try, seconds.
    `http`: an httpx client of your own, for certificates and proxies; it stays yours to close.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: Token | None = None,
        serving: str | None = None,
        patience: float = PATIENCE,
        timeout: float = TIMEOUT,
        http: httpx.Client | None = None,
    ) -> None:
        self._requests = Requests(url, key=key, token=token, serving=serving)
        self._patience = patience
        self._timeout = timeout
        self._owned = http is None
        self._http = http or httpx.Client()

    def send(self, stream: str, event: Any, *, id: str | None = None) -> Accepted:
        """Send one event; it is in Kafka when this returns.

        `id` names it where the stream has no id field of its own; else the fields do. Without either, events that are the
        same in every field are one event. Raises CallFailed.
        """
        ask = self._requests.event(stream, event, id)
        return accepted(self._run(settle(ask, self._patience)), event)

    def send_many(
        self,
        stream: str,
        events: Iterable[Any],
        *,
        on_rejected: OnRejected | None = None,
        on_progress: OnProgress | None = None,
        batch_events: int = batches.EVENTS,
        batch_bytes: int = batches.BYTES,
    ) -> Progress:
        """Send events in their order, one batch after another; all are in Kafka, or rejected, when this returns.

        `on_rejected` is called with an EventRejected for each that does not fit, and the others go on; without it the first
        one is raised when its batch is done. `on_progress` is called after each batch. An iterator of any length takes the
        memory of one batch. Raises CallFailed; what was counted in the last progress is in Kafka.
        """
        run = Batches(
            most_events=batch_events, most_bytes=batch_bytes, on_rejected=on_rejected, on_progress=on_progress
        )
        for event in events:
            if run.add(event):
                self._batch(stream, run)
        while run.lines:
            self._batch(stream, run)
        return run.progress

    def label(self, loop: str, key: Mapping[str, Any], value: Any, *, at: datetime | None = None) -> Accepted:
        """Say what turned out to be true: `key` has the fields that name the question, like `{"flight_id": "…"}`.

        `at`: when it became true; now. Raises CallFailed; of EventRejected the message says what the loop's label needs.
        """
        return accepted(self._run(settle(self._requests.label(loop, {"key": key}, value, at), self._patience)))

    def label_prediction(self, loop: str, prediction_id: str, value: Any, *, at: datetime | None = None) -> Accepted:
        """Say the truth about one answer, by its id. Drift judges by it; no model learns from it. Raises CallFailed."""
        question = {"prediction_id": prediction_id}
        return accepted(self._run(settle(self._requests.label(loop, question, value, at), self._patience)))

    def predict(self, loop: str, event: Any, *, patience: float = 5.0) -> dict[str, Any]:
        """Ask one question; the answer is as serving gives it. Raises CallFailed."""
        return answered(self._run(settle(self._requests.question(loop, event), patience)), event)

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, stream: str, run: Batches) -> None:
        run.settled(self._run(settle(self._requests.batch(stream, run.lines), self._patience)))

    def _run(self, talk: Talk[T]) -> T:
        heard: Reply | Lost | None = None
        while True:
            try:
                step = talk.send(heard)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                heard = None
            else:
                heard = self._try(step)

    def _try(self, ask: Ask) -> Reply | Lost:
        try:
            return reply_of(
                self._http.request(
                    ask.method, ask.url, content=ask.content, headers=dict(ask.headers), timeout=self._timeout
                )
            )
        except httpx.TransportError as error:
            return lost(error, sent=not isinstance(error, NOT_SENT))
