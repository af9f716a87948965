"""Models that run elsewhere, behind the Open Inference Protocol v2: one pool, a limit and a circuit for each model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import Manifest, Remote, RemoteInput
from millstream.runtime.remote import (
    LARGEST_ANSWER,
    LENGTH,
    BadAnswer,
    Part,
    RemoteRefused,
    Told,
    allowed,
    answer_of,
    request_of,
    text_bytes,
)
from millstream_serving.domain.circuit import Circuit, State
from millstream_serving.domain.columns import Columns
from millstream_serving.errors import ModelAway, ModelFailed, ModelRefused
from millstream_serving.metrics import ServingMetrics
from millstream_serving.settings import RemoteSettings

NUMBERS: Mapping[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
ROWS = (400, 422)
"""Statuses that speak of what was asked: the endpoint is well. Every other that is not 200 is the endpoint's."""
HAIR = 1e-3
"""As the trainer has it: how far beyond 0 and 1 a sum of float32 may end."""
STATES: tuple[State, ...] = ("closed", "half_open", "open")
ROWS_OF_A_REQUEST = 64
"""What is asked at once has one time limit: a Kafka batch of 500 rows is not as soon answered as a question."""


class HttpModel:
    """`ports.RemoteModel`."""

    def __init__(
        self,
        remote: Remote,
        manifest: Manifest,
        *,
        client: httpx.AsyncClient,
        settings: RemoteSettings,
        metrics: ServingMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._loop = manifest.loop
        self._output = manifest.output
        self._client = client
        self._within = settings.remote_timeout
        self._free = asyncio.Semaphore(settings.remote_at_once)
        self._circuit = Circuit(most=settings.remote_failures, rest=settings.remote_rest)
        self._metrics = metrics
        self._clock = clock
        self._home = asyncio.get_running_loop()

    def run(self, columns: Columns) -> NDArray[np.float32]:
        return asyncio.run_coroutine_threadsafe(self.ask(columns), self._home).result()

    async def ask(self, columns: Columns) -> NDArray[np.float32]:
        if not self._circuit.may(self._clock()):
            self._count("not_asked")
            raise ModelAway(f"{self._remote.url} does not answer; it is asked again in a moment")
        rows = _rows(columns)
        parts = [
            {name: values[at : at + ROWS_OF_A_REQUEST] for name, values in columns.items()}
            for at in range(0, max(rows, 1), ROWS_OF_A_REQUEST)
        ]
        failed: list[str] = []
        if len(parts) == 1:
            return await self._in_turn(columns, failed)
        # All are waited for: who is cut short would count as late.
        answers = await asyncio.gather(*(self._in_turn(part, failed) for part in parts), return_exceptions=True)
        found: list[NDArray[np.float32]] = []
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            if answer.shape[:1] != (_rows(part),) or (found and answer.shape[1:] != found[0].shape[1:]):
                raise ModelFailed(f"{_rows(part)} rows in: shape {answer.shape} out")
            found.append(answer)
        return np.concatenate(found)

    async def _in_turn(self, columns: Columns, failed: list[str]) -> NDArray[np.float32]:
        """One request; `failed`: of the batch that it is of. Raises ModelAway, ModelFailed."""
        begun = False
        try:
            async with asyncio.timeout(self._within), self._free:
                begun = True
                found = await self._post(columns)
        except (httpx.HTTPError, TimeoutError, ModelAway) as error:
            late = isinstance(error, TimeoutError | httpx.TimeoutException)
            self._cut_short(begun, "late" if late else "failed", failed)
            said = str(error) or type(error).__name__
            raise ModelAway(f"{self._remote.url}: {said if begun else 'too many are asked at once'}") from error
        except asyncio.CancelledError:
            # Whoever asked had less time: of a model on trial the guard's deadline.
            self._cut_short(begun, "late", failed)
            raise
        except ModelFailed:
            self._circuit.answered()
            self._count("failed")
            raise
        self._circuit.answered()
        self._count("answered")
        return found

    def _cut_short(self, begun: bool, outcome: str, failed: list[str]) -> None:
        """A batch is one failure in a row; and that it was never its turn says nothing of the endpoint."""
        if begun:
            if not failed:
                self._circuit.failed(self._clock())
            failed.append(outcome)
        self._count(outcome if begun else "not_asked")

    def _count(self, outcome: str) -> None:
        self._metrics.remote.labels(self._loop, outcome).inc()
        self._metrics.remote_circuit.labels(self._loop).set(STATES.index(self._circuit.state(self._clock())))

    async def _post(self, columns: Columns) -> NDArray[np.float32]:
        rows = _rows(columns)
        body, headers = request_of([_part(one, columns, rows) for one in self._remote.inputs], self._remote.output)
        async with self._client.stream("POST", f"{self._remote.url}/infer", content=body, headers=headers) as response:
            found = bytearray()
            async for piece in response.aiter_bytes():
                found += piece
                if len(found) > LARGEST_ANSWER:
                    raise ModelAway(f"its answer has more than {LARGEST_ANSWER} bytes")
        if response.status_code != 200:
            said = f"status {response.status_code}: {bytes(found[:200]).decode('utf-8', 'replace')}"
            raise ModelFailed(said) if response.status_code in ROWS else ModelAway(said)
        try:
            return self._answers(answer_of(bytes(found), response.headers.get(LENGTH), self._remote.output), rows)
        except BadAnswer as error:
            raise ModelFailed(str(error)) from error

    def _answers(self, told: Told, rows: int) -> NDArray[np.float32]:
        """As a graph of ours answers. Raises ModelFailed."""
        dtype = NUMBERS.get(told.datatype)
        if dtype is None:
            raise ModelFailed(f"output {self._remote.output!r} is {told.datatype}, not FP32 or FP64")
        try:
            values = np.array(told.data, dtype) if told.raw is None else np.frombuffer(told.raw, dtype)
            values = values.reshape(told.shape)
        except (ValueError, OverflowError) as error:
            raise ModelFailed(f"output {self._remote.output!r}: {error}") from error
        if self._remote.second and values.shape == (rows, 2):
            values = values[:, 1]
        elif not self._remote.second and self._output != "probabilities" and values.shape == (rows, 1):
            values = values[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            found = values.astype(np.float32)
            if self._output != "value":
                near = (found >= -HAIR) & (found <= 1 + HAIR)
                found[near] = np.clip(found[near], 0.0, 1.0)
        return found


class RemoteModels:
    """`ports.RemoteRuntime`."""

    def __init__(self, settings: RemoteSettings, metrics: ServingMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        limits = httpx.Limits(
            max_connections=settings.remote_at_once * 2, max_keepalive_connections=settings.remote_at_once
        )
        # No proxy of the environment: the hosts that may be asked are those that are asked.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.remote_timeout, connect=settings.remote_connect),
            limits=limits,
            follow_redirects=False,
            trust_env=False,
        )

    async def open(self, raw: bytes, manifest: Manifest) -> HttpModel:
        try:
            remote = msgspec.json.decode(raw, type=Remote)
            allowed(remote.url, self._settings.model_hosts)
        except (msgspec.MsgspecError, RemoteRefused) as error:
            raise ModelRefused("remote", str(error)) from error
        named = [name for one in remote.inputs for name in one.columns]
        if sorted(named) != sorted(column.name for column in manifest.inputs):
            raise ModelRefused("remote", f"it is asked with {named}, the manifest has other inputs"[:500])
        return HttpModel(remote, manifest, client=self._client, settings=self._settings, metrics=self._metrics)

    async def close(self) -> None:
        await self._client.aclose()


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values()))) if columns else 0


def _part(one: RemoteInput, columns: Columns, rows: int) -> Part:
    if one.datatype == "BYTES":
        raw = text_bytes(columns[one.columns[0]].reshape(-1).tolist())
    else:
        table = np.concatenate([columns[name] for name in one.columns], axis=1)
        raw = table.astype(NUMBERS[one.datatype]).tobytes()
    return Part(one.name, one.datatype, [rows] if one.flat else [rows, len(one.columns)], raw)
