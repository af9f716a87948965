"""A model that runs elsewhere, asked as a session of onnxruntime is: its inputs, its outputs, and runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn, Remote, RemoteInput
from millstream.runtime.remote import (
    LARGEST_ANSWER,
    LENGTH,
    BadAnswer,
    Part,
    RemoteRefused,
    allowed,
    answer_of,
    request_of,
    text_bytes,
)
from millstream_trainer.domain.table import NUMBER, Table
from millstream_trainer.errors import RunFailed

TYPES = {"FP32": "tensor(float)", "FP64": "tensor(double)", "BYTES": "tensor(string)"}
DATATYPES = {kind: name for name, kind in TYPES.items()}
NUMBERS: Mapping[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
WITHIN = 30.0
"""Seconds for one request: thousands of rows, and nobody waits for them. One whose answer comes in drops ends by then too."""
ROWS = 1_000
"""Of one request; what endpoints take without being told to take more."""
HAIR = 1e-3
ASKED = 50
"""Single rows that the time of one is measured by."""


class Node(NamedTuple):
    """An input or output as its metadata has it."""

    name: str
    type: str
    shape: list[int | None]


class _Spec(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    inputs: list[_Spec]
    outputs: list[_Spec]


class _Answer(NamedTuple):
    body: bytes
    length: str | None
    """Of its JSON, as `LENGTH` says."""


class RemoteSession:
    """Asks `url` (`https://host/v2/models/NAME`). Raises RunFailed: its message is for who registered it."""

    def __init__(self, url: str, hosts: str) -> None:
        try:
            allowed(url, hosts)
        except RemoteRefused as error:
            raise RunFailed(str(error)) from error
        self._url = url.rstrip("/")
        self._client = httpx.Client(timeout=WITHIN, follow_redirects=False, trust_env=False)
        response = self._send("GET", self._url)
        try:
            self._metadata = msgspec.json.decode(response.body, type=_Metadata)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunFailed(f"{self._url} has no metadata of the Open Inference Protocol: {error}") from error

    def get_inputs(self) -> list[Node]:
        return [_node(one) for one in self._metadata.inputs]

    def get_outputs(self) -> list[Node]:
        return [_node(one) for one in self._metadata.outputs]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The one output named, for all rows."""
        rows = len(next(iter(feeds.values())))
        found = [
            self._some(outputs[0], {name: values[at : at + ROWS] for name, values in feeds.items()})
            for at in range(0, rows, ROWS)
        ]
        try:
            return [np.concatenate(found)]
        except ValueError as error:
            raise RunFailed(f"{self._url}: output {outputs[0]!r}: {error}") from error

    def _some(self, output: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        types = {one.name: one.datatype for one in self._metadata.inputs}
        parts = [Part(name, types[name], values.shape, _raw(types[name], values)) for name, values in feeds.items()]
        body, headers = request_of(parts, output)
        response = self._send("POST", f"{self._url}/infer", content=body, headers=headers)
        try:
            told = answer_of(response.body, response.length, output)
            dtype = NUMBERS[told.datatype]
            values: NDArray[Any] = np.array(told.data, dtype) if told.raw is None else np.frombuffer(told.raw, dtype)
            values = values.reshape(told.shape)
        except (BadAnswer, ValueError, KeyError, OverflowError) as error:
            raise RunFailed(f"{self._url}: output {output!r}: {error}") from error
        rows = len(next(iter(feeds.values())))
        if values.ndim not in (1, 2) or len(values) != rows:
            raise RunFailed(f"{self._url}: output {output!r}: {rows} rows in: shape {values.shape} out")
        return values

    def _send(self, method: str, url: str, **what: Any) -> _Answer:
        until, body = time.monotonic() + WITHIN, bytearray()
        try:
            with self._client.stream(method, url, **what) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LARGEST_ANSWER:
                        raise RunFailed(f"{url}: its answer has more than {LARGEST_ANSWER} bytes")
                    if time.monotonic() > until:
                        raise RunFailed(f"{url} does not answer: {len(body)} bytes within {WITHIN:.0f} s")
        except httpx.HTTPError as error:
            raise RunFailed(f"{url} does not answer: {str(error) or type(error).__name__}") from error
        if response.status_code != 200:
            said = bytes(body[:300]).decode("utf-8", "replace")
            raise RunFailed(f"{url} answers {response.status_code}: {said}")
        return _Answer(bytes(body), response.headers.get(LENGTH))


class RemoteAsked:
    """`onnx_graph.Asked` of a model that runs elsewhere, as its package says."""

    def __init__(self, raw: bytes, inputs: Sequence[InputColumn], output: str, hosts: str) -> None:
        self._remote = msgspec.json.decode(raw, type=Remote)
        self._session = RemoteSession(self._remote.url, hosts)
        self._inputs = {one.name: one for one in inputs}
        self._output = output

    def score(self, table: Table) -> NDArray[np.float32]:
        found = self._session.run(
            [self._remote.output], {one.name: self._feed(one, table) for one in self._remote.inputs}
        )[0]
        if self._remote.second:
            if found.shape != (len(table), 2):
                raise RunFailed(f"{self._remote.url}: shape {found.shape} out, not {(len(table), 2)}")
            found = found[:, 1]
        elif self._output != "probabilities":
            if found.size != len(table):
                raise RunFailed(f"{self._remote.url}: {len(table)} rows in: shape {found.shape} out")
            found = found.reshape(-1)
        found = found.astype(np.float32)
        return found if self._output == "value" else np.clip(found, 0.0, 1.0)

    def milliseconds(self, table: Table) -> float:
        times = []
        for number in range(ASKED):
            one = table.take(np.array([number % len(table)]))
            began = time.perf_counter()
            self.score(one)
            times.append(time.perf_counter() - began)
        return float(np.median(times) * 1000)

    def _feed(self, one: RemoteInput, table: Table) -> NDArray[Any]:
        columns = []
        for name in one.columns:
            column = table.column(name)
            if column.type != self._inputs[name].type:
                raise KeyError(f"{name} was a {self._inputs[name].type} and is a {column.type} now")
            columns.append(column.values.astype(np.float32) if column.type == NUMBER else column.values)
        return columns[0] if one.flat else np.column_stack(columns)


def _node(one: _Spec) -> Node:
    return Node(one.name, TYPES.get(one.datatype, one.datatype), [None if size < 0 else size for size in one.shape])


def _raw(datatype: str, values: NDArray[Any]) -> bytes:
    if datatype == "BYTES":
        return text_bytes(values.reshape(-1).tolist())
    raw: bytes = values.astype(NUMBERS[datatype]).tobytes()
    return raw
