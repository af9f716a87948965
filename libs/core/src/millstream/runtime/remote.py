"""Asking a model that runs elsewhere: which hosts may be, and the bytes of the Open Inference Protocol v2, there and back.

https://github.com/kserve/open-inference-protocol, with the extension for binary tensors: JSON knows no NaN, which is a missing
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from millstream.errors import MillstreamError

LENGTH = "inference-header-content-length"
LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes: a million rows of eight classes and more. A stranger's answer has an end."""


class RemoteRefused(MillstreamError):
    """This address is not asked; the message says what to set."""


class BadAnswer(ValueError):
    """What came back is no answer of the protocol."""


class Part(NamedTuple):
    """One tensor as it is sent: `raw` is little-endian, texts as `text_bytes` has them."""

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bytes


class Told(NamedTuple):
    """The tensor that answers: as bytes, or as the numbers of the JSON."""

    datatype: str
    shape: tuple[int, ...]
    raw: bytes | None
    data: list[float]


def allowed(url: str, hosts: str) -> None:
    """Whether `url` may be asked. `hosts`: as in MILLSTREAM_MODEL_HOSTS. Raises RemoteRefused."""
    try:
        said = urlsplit(url)
        host, port = said.hostname, said.port
    except ValueError as error:
        raise RemoteRefused(f"{url[:200]!r} is no address: {error}") from error
    if said.scheme not in ("http", "https") or not host or said.username or said.query or said.fragment:
        raise RemoteRefused(f"{url[:200]!r} is no address of a model; write it as https://host/v2/models/NAME")
    if "/v2/models/" not in said.path or ".." in said.path.split("/"):
        raise RemoteRefused(f"{said.path[:200]!r} names no model; write the address as https://host/v2/models/NAME")
    known = {one.strip() for one in hosts.split(",") if one.strip()}
    if host not in known and (port is None or f"{host}:{port}" not in known):
        raise RemoteRefused(
            f"{said.netloc[:200]} is not among the hosts that may be asked ({', '.join(sorted(known)) or 'there are none'}); "
            "add it to MILLSTREAM_MODEL_HOSTS of the trainer and of serving"
        )


def text_bytes(texts: Sequence[str]) -> bytes:
    """Each with its length in four bytes before it."""
    found = bytearray()
    for text in texts:
        raw = text.encode("utf-8", "replace")
        found += len(raw).to_bytes(4, "little") + raw
    return bytes(found)


def request_of(parts: Sequence[Part], output: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of `POST {url}/infer`."""
    inputs = [
        {"name": p.name, "datatype": p.datatype, "shape": p.shape, "parameters": {"binary_data_size": len(p.raw)}}
        for p in parts
    ]
    outputs = [{"name": output, "parameters": {"binary_data": True}}]
    head = msgspec.json.encode({"inputs": inputs, "outputs": outputs})
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return b"".join((head, *(part.raw for part in parts))), headers


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Response(msgspec.Struct):
    outputs: list[_Output]


_response = msgspec.json.Decoder(_Response).decode


def answer_of(body: bytes, header: str | None, output: str) -> Told:
    """`output` of an answer; `header`: what `inference-header-content-length` says. Raises BadAnswer."""
    try:
        size = len(body) if header is None else int(header)
        if not 0 <= size <= len(body):
            raise BadAnswer(f"{LENGTH} is {size}, the answer has {len(body)} bytes")
        said, at = _response(body[:size]), size
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadAnswer(f"no answer of the Open Inference Protocol: {error}") from error
    for one in said.outputs:
        length = one.parameters.get("binary_data_size")
        raw = None
        if length is not None:
            if type(length) is not int or not 0 <= length <= len(body) - at:
                raise BadAnswer(f"binary_data_size of {one.name} is {length!r:.40}, {len(body) - at} bytes are left")
            raw, at = body[at : at + length], at + length
        if one.name != output:
            continue
        if raw is None and one.data is None:
            raise BadAnswer(f"output {output!r} has neither data nor bytes")
        data = _flat(one.data or [])
        if not all(type(value) in (int, float) for value in data):
            raise BadAnswer(f"output {output!r} holds what is no number")
        return Told(one.datatype, one.shape, raw, data)
    raise BadAnswer(f"no output {output!r}; found: {', '.join(one.name for one in said.outputs)[:200]}")


def _flat(data: list[Any]) -> list[Any]:
    """Numbers that came row by row, in one list."""
    while data and isinstance(data[0], list):
        data = [value for row in data if isinstance(row, list) for value in row]
    return data
