"""As little as one can write: Starlette, a msgspec Struct, aiokafka. No metrics, no envelope, no limits."""

import os
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import msgspec
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOPIC = os.environ["BENCH_TOPIC"]
Place = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]


class Departure(msgspec.Struct):
    flight_id: str
    departed_at: datetime
    tailnum: str
    origin: Place
    dest: Place
    carrier: Annotated[str, msgspec.Meta(min_length=2, max_length=3)]
    dep_delay: float
    distance: Annotated[int, msgspec.Meta(ge=1)]
    cancelled: bool = False
    remark: Annotated[str, msgspec.Meta(max_length=200)] | None = None


decode = msgspec.json.Decoder(Departure).decode
encode = msgspec.json.Encoder().encode
producer: AIOKafkaProducer


@asynccontextmanager
async def lifespan(app):
    global producer
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["BENCH_KAFKA"], acks="all", enable_idempotence=True)
    await producer.start()
    yield
    await producer.stop()


async def events(request: Request) -> Response:
    body = await request.body()
    try:
        event = decode(body)
    except msgspec.ValidationError as error:
        return Response(encode({"error": str(error)}), 422)
    await producer.send_and_wait(TOPIC, body, key=event.tailnum.encode())
    return Response(encode({"id": event.flight_id, "status": "accepted"}), 202, media_type="application/json")


async def batch(request: Request) -> Response:
    results, sent = [], []
    for line in (await request.body()).splitlines():
        try:
            event = decode(line)
        except msgspec.ValidationError as error:
            results.append({"status": "rejected", "error": str(error)})
        else:
            sent.append(await producer.send(TOPIC, line, key=event.tailnum.encode()))
            results.append({"status": "accepted", "id": event.flight_id})
    for confirmation in sent:
        await confirmation
    return Response(encode({"results": results}), 202, media_type="application/json")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/v1/streams/{stream}/events", events, methods=["POST"]),
        Route("/v1/streams/{stream}/batch", batch, methods=["POST"]),
        Route("/readyz", lambda request: Response("{}")),
    ],
)
