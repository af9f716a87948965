"""Triton's own client against the service on a real Kafka, over HTTP and gRPC, as its users have it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import uvicorn
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from millstream.contracts.events import PredictionServed
from millstream.runtime.service import Service
from millstream.testing.ports import free_port
from millstream_serving.adapters.inference_messages import METHODS, message

from .serving_process import in_memory
from .test_serving_connected import Town, eventually, town  # noqa: F401  (the fixture)

MEAN = "origin_delays__mean"


def by_mean(row: Mapping[str, Any]) -> float:
    """A hundredth of the mean delay."""
    return 0.5 if np.isnan(row[MEAN]) else float(row[MEAN]) / 100


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[int]:
    """The service on a real port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(service.app, log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@dataclass(frozen=True)
class Asker:
    """A blocking client of Triton's. `ways`: how its inputs may be given."""

    triton: ModuleType
    client: Any
    ways: tuple[Mapping[str, Any], ...]

    def inputs(self, columns: Mapping[str, np.ndarray[Any, Any]], **way: Any) -> list[Any]:
        kinds = {"f": "FP32", "i": "INT64", "O": "BYTES"}
        found = []
        for name, values in columns.items():
            one = self.triton.InferInput(name, list(values.shape), kinds[values.dtype.kind])
            one.set_data_from_numpy(values, **way)
            found.append(one)
        return found

    def asks(self, loop: str) -> list[tuple[float, float, str]]:
        """Everything that its users do; the answers of two rows and the first row's variant, for each way."""
        columns = {
            "distance": np.array([[2475], [100]], np.int64),
            "carrier": np.array([["B6"], [b"UA"]], object),
            MEAN: np.array([12.5, np.nan], np.float32),
        }
        found = []
        for way in self.ways:
            outputs = [self.triton.InferRequestedOutput(name, **way) for name in ("probability", "variant")]
            for wanted in (None, outputs):
                if not way.get("binary_data", True):
                    columns[MEAN] = np.nan_to_num(columns[MEAN], nan=50.0)  # its JSON would say NaN, which is none
                inputs = self.inputs(columns, **way)
                answer = self.client.infer(loop, inputs, outputs=wanted, request_id="7")
                probabilities = answer.as_numpy("probability")
                variant = "champion" if wanted is None else answer.as_numpy("variant")[0]
                said = variant.decode() if isinstance(variant, bytes) else str(variant)
                found.append((*(float(one) for one in probabilities), said))
        return found


def http_asker(port: int) -> Asker:
    client = triton_http.InferenceServerClient(f"127.0.0.1:{port}")
    return Asker(triton_http, client, ({"binary_data": True}, {"binary_data": False}))


def grpc_asker(port: int) -> Asker:
    return Asker(triton_grpc, triton_grpc.InferenceServerClient(f"127.0.0.1:{port}"), ({},))


def story(make: Callable[[int], Asker], port: int, loop: str) -> list[tuple[float, float, str]]:
    """What a user does, on one thread: gevent, of which the HTTP client is made, holds to its own, to the last line."""
    asker = make(port)
    with asker.client as client:
        assert client.is_server_live()
        server, model = client.get_server_metadata(), client.get_model_metadata(loop, "1")
        name = server["name"] if isinstance(server, dict) else server.name
        inputs = model["inputs"] if isinstance(model, dict) else model.inputs
        assert (name, len(inputs)) == ("millstream", 3)
        wrong = asker.inputs({"distance": np.array([1.0], np.float32)})
        for asked, said in (
            (loop, "input 'carrier' is missing; send one tensor for each"),
            ("bikes", "no model 'bikes'"),
        ):
            try:
                client.infer(asked, wrong)
            except InferenceServerException as error:
                assert said in str(error)  # noqa: PT017  (`pytest.raises` would keep the client beyond its thread)
            else:
                raise AssertionError("it should have been refused")
        return asker.asks(loop)


def ready(make: Callable[[int], Asker], port: int, loop: str) -> bool:
    with make(port).client as client:
        try:
            return bool(client.is_server_ready() and client.is_model_ready(loop))
        except (InferenceServerException, OSError):
            return False  # it starts


async def test_tritons_client_works_as_it_is(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    # It is closed where it was used. Closed once more when it is collected, on any thread, gevent would complain.
    monkeypatch.delattr(triton_http.InferenceServerClient, "__del__")
    ref = town.package("1", by_mean)
    door = free_port()
    service = in_memory(town.settings.model_copy(update={"grpc_port": door}), town.runtime)
    async with listening(service) as port:
        await town.promote(1, ref)
        for make, at in ((http_asker, port), (grpc_asker, door)):
            await eventually(lambda make=make, at=at: asyncio.to_thread(ready, make, at, town.loop))  # type: ignore[misc]
            answers = await asyncio.to_thread(story, make, at, town.loop)
            assert set(answers) == {(0.125, 0.5, "champion")}
        found = await town.answers(12)  # two rows, three ways, with and without outputs named
    served = [one for one in found if isinstance(one, PredictionServed)]
    # In the order of their topic, which has several partitions if another test made it so.
    assert Counter(one.transport for one in served) == {"http": 8, "grpc": 4}
    assert all(one.given for one in served)


@pytest.mark.parametrize("method", METHODS)
def test_our_messages_are_tritons(method: str) -> None:
    """Field by field, as far as ours go; Triton's have some more."""

    def compare(ours: Any, theirs: Any) -> None:
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            for what in ("number", "type", "is_repeated"):
                assert getattr(field, what) == getattr(other, what), field.full_name
            if field.message_type is not None:
                compare(field.message_type, other.message_type)

    for end in ("Request", "Response"):
        compare(message(method + end).DESCRIPTOR, getattr(service_pb2, method + end).DESCRIPTOR)
