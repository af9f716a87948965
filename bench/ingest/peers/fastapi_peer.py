"""What most teams write: FastAPI, a pydantic model, aiokafka's producer with acks=all. `uvicorn fastapi_peer:app`."""

import os
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

TOPIC = os.environ["BENCH_TOPIC"]
Place = Annotated[str, Field(pattern="^[A-Z]{3}$")]


class Departure(BaseModel):
    flight_id: str
    departed_at: datetime
    tailnum: str
    origin: Place
    dest: Place
    carrier: Annotated[str, Field(min_length=2, max_length=3)]
    dep_delay: float
    distance: Annotated[int, Field(ge=1)]
    cancelled: bool = False
    remark: Annotated[str | None, Field(max_length=200)] = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BENCH_KAFKA"], acks="all", enable_idempotence=True
    )
    await app.state.producer.start()
    yield
    await app.state.producer.stop()


app = FastAPI(lifespan=lifespan)
one = TypeAdapter(Departure)


@app.post("/v1/streams/{stream}/events", status_code=202)
async def events(stream: str, event: Departure):
    await app.state.producer.send_and_wait(TOPIC, event.model_dump_json().encode(), key=event.tailnum.encode())
    return {"id": event.flight_id, "status": "accepted"}


@app.post("/v1/streams/{stream}/batch", status_code=202)
async def batch(stream: str, request: Request):
    results, sent = [], []
    for line in (await request.body()).splitlines():
        try:
            event = one.validate_json(line)
        except ValidationError as error:
            results.append({"status": "rejected", "error": str(error)})
        else:
            sent.append(await app.state.producer.send(TOPIC, line, key=event.tailnum.encode()))
            results.append({"status": "accepted", "id": event.flight_id})
    for confirmation in sent:
        await confirmation
    return {"results": results}


@app.get("/readyz")
async def readyz():
    return {"ready": True}
