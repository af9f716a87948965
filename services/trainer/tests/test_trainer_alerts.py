"""Alertmanager's webhook: firing alerts ask for a retrain, each once; a call without one that can ask is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from millstream.contracts.events import Cause, Decision, RetrainDecided, RetrainRequested
from millstream.runtime.http import http_app
from millstream_trainer.api import add_routes

from .trainer_kit import Office

Until = Callable[[Callable[[], bool]], Any]


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(tides.rules)


@pytest.fixture
async def client(office: Office) -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(title="trainer")
    add_routes(app, office.trainer, office.announcer, office.packages)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as found:
        yield found


def alert(loop: str | None = "tides", status: str = "firing", fingerprint: str = "f1") -> dict[str, Any]:
    """As Alertmanager 0.27 posts it."""
    labels = {"alertname": "TidesOff", "severity": "page"} | ({} if loop is None else {"loop": loop})
    return {
        "status": status,
        "labels": labels,
        "annotations": {"summary": "a third of the ships is late"},
        "startsAt": "2013-06-01T12:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


def webhook(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "millstream",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
    }


async def test_a_firing_alert_asks_once_however_often_it_is_repeated(client: httpx.AsyncClient, office: Office) -> None:
    answers = [await client.post("/v1/alerts", json=webhook(alert(), alert(status="resolved"))) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = office.announcer.of(RetrainRequested)
    assert first == second
    assert (first.cause, first.by, first.reason) == (
        Cause.ALERT,
        "Alertmanager",
        "TidesOff: a third of the ships is late",
    )
    assert answers[0].json() == {"requests": [first.id], "refused": []}


async def test_an_alert_becomes_a_run(client: httpx.AsyncClient, office: Office, tides: Any, until: Until) -> None:
    causes = tides.rules.causes | {Cause.ALERT}
    office.trainer.rules["tides"] = replace(tides.rules, causes=causes)  # type: ignore[index]
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.matured(20))
        await client.post("/v1/alerts", json=webhook(alert()))
        (asked,) = office.announcer.of(RetrainRequested)
        await office.trainer.hear(asked)
        await until(office.ended(2))
    decided = office.announcer.of(RetrainDecided)[-1]
    assert (decided.cause, decided.decision) == (Cause.ALERT, Decision.ACCEPTED)


async def test_an_alert_that_is_over_asks_nothing(client: httpx.AsyncClient, office: Office) -> None:
    answer = await client.post("/v1/alerts", json=webhook(alert(loop=None, status="resolved")))
    assert (answer.status_code, answer.json(), office.announcer.said) == (202, {"requests": [], "refused": []}, [])


async def test_an_annotation_may_name_the_loop(client: httpx.AsyncClient, office: Office) -> None:
    one = alert(loop=None)
    one["annotations"]["loop"] = "tides"
    assert (await client.post("/v1/alerts", json=webhook(one))).status_code == 202
    assert office.announcer.of(RetrainRequested)[0].loop == "tides"


async def test_alerts_that_cannot_ask_are_named_beside_those_that_ask(
    client: httpx.AsyncClient, office: Office
) -> None:
    body = webhook(alert(loop=None), alert(), alert(loop="winds"), alert(loop=None, status="resolved"))
    answer = await client.post("/v1/alerts", json=body)
    (asked,) = office.announcer.of(RetrainRequested)
    assert answer.status_code == 202
    assert answer.json() == {
        "requests": [asked.id],
        "refused": [
            {
                "pointer": "/alerts/0/labels",
                "message": "alert 'TidesOff' names no loop; give its rule a label like loop: flight-delay",
            },
            {"pointer": "/alerts/2/labels", "message": "no loop 'winds'; the project has tides"},
        ],
    }


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"by": "Ada"}, 422, "Alertmanager's webhook of version 4 is expected here: /version: Field required"),
        ({**webhook(alert()), "version": "3"}, 422, "/version: Input should be '4'"),
        (
            webhook(alert(loop=None)),
            422,
            "alert 'TidesOff' names no loop; give its rule a label like loop: flight-delay",
        ),
        (webhook(alert(loop=None), alert(status="resolved")), 422, "alert 'TidesOff' names no loop"),
        (webhook(alert(loop="winds"), alert(loop=None)), 404, "no loop 'winds'; the project has tides"),
        (webhook(*[alert()] * 1001), 422, "/alerts: List should have at most 1000 items"),
    ],
    ids=["something else", "version 3", "no loop", "the good one is over", "unknown loop", "too many"],
)
async def test_what_is_no_alert_for_us_is_refused_whole(
    client: httpx.AsyncClient, office: Office, body: dict[str, Any], status: int, says: str
) -> None:
    answer = await client.post("/v1/alerts", json=body)
    assert (answer.status_code, office.announcer.said) == (status, [])
    assert says in answer.json()["message"]
