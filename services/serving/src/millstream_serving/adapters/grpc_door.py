"""gRPC doorway of serving: the Open Inference Protocol's service, answered as over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.trace import SpanKind

from millstream.errors import DeliveryUnknown, MillstreamError, Refusal, RetryLater
from millstream.runtime.grpc_server import GrpcServer
from millstream.runtime.http import known_at_of
from millstream.runtime.probes import Probes
from millstream.runtime.tracing import current_traceparent, span, valid_traceparent
from millstream_serving.adapters.inference_messages import METHODS, SERVICE, message
from millstream_serving.domain.inference import InferRequest, InferResponse, name_in
from millstream_serving.domain.tensor_json import MOST_TENSORS
from millstream_serving.domain.tensors import BYTES, Tensor, bad, from_bytes, from_values, text_from, to_bytes
from millstream_serving.errors import ModelFailed, NoModel, UnknownLoop
from millstream_serving.handlers import Inference

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes, as over HTTP."""

MOST_AT_ONCE = 64
"""Calls under way: of the largest, they hold a gigabyte. What they wait for is one event loop, and Kafka."""

CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (Refusal, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownLoop, grpc.StatusCode.NOT_FOUND),
    (NoModel, grpc.StatusCode.UNAVAILABLE),
    (ModelFailed, grpc.StatusCode.UNAVAILABLE),
    (DeliveryUnknown, grpc.StatusCode.UNAVAILABLE),
    (RetryLater, grpc.StatusCode.UNAVAILABLE),
)
"""The first that fits holds."""

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Datatype → where its values are. FP16 has no place but `raw_input_contents`."""

Call = Callable[[Any, Any], Awaitable[Any]]


class GrpcDoor(GrpcServer):
    """The protocol's service on a port of its own."""

    def __init__(
        self,
        inference: Inference,
        probes: Probes,
        *,
        version: str,
        trusts_known_at: bool,
        patience: float = 5.0,
    ) -> None:
        """`patience`: seconds for a call whose client set no deadline."""
        super().__init__(SERVICE, self._add, largest=LARGEST_MESSAGE, most_at_once=MOST_AT_ONCE, replica=probes.own)
        self._inference = inference
        self._patience = patience
        self._replica = probes
        self._version = version
        self._trusts_known_at = trusts_known_at

    async def ServerLive(self, request: Any, context: Any) -> Mapping[str, Any]:
        return {"live": not await self._replica.not_alive()}

    async def ServerReady(self, request: Any, context: Any) -> Mapping[str, Any]:
        return {"ready": not await self._replica.not_ready()}

    async def ModelReady(self, request: Any, context: Any) -> Mapping[str, Any]:
        try:
            self._inference.metadata(request.name, request.version)
        except (NoModel, RetryLater):
            return {"ready": False}
        return {"ready": True}

    async def ServerMetadata(self, request: Any, context: Any) -> Mapping[str, Any]:
        return {"name": "millstream", "version": self._version}

    async def ModelMetadata(self, request: Any, context: Any) -> Mapping[str, Any]:
        return asdict(self._inference.metadata(request.name, request.version))

    async def ModelInfer(self, request: Any, context: Any) -> Mapping[str, Any]:
        metadata = dict(context.invocation_metadata() or ())
        caller = valid_traceparent(str(metadata.get("traceparent", "")).encode())
        # A deadline of the client's own ends the call without us.
        async with asyncio.timeout(self._patience if context.time_remaining() is None else None):
            with span(f"{SERVICE}/ModelInfer", caller, kind=SpanKind.SERVER):
                found = await self._inference.infer(
                    request.model_name,
                    request.model_version,
                    _asked(request),
                    transport="grpc",
                    asked_at=known_at_of(metadata.get("ce-knownat"), self._trusts_known_at),
                    trace=current_traceparent() or caller,
                )
        return _answered(found, raw=bool(request.raw_input_contents))

    def _add(self, server: Any) -> None:
        # The requests come as bytes: what cannot be read is the client's fault, and grpc would call it ours.
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._method(getattr(self, name), message(f"{name}Request"), message(f"{name}Response"))
            )
            for name in METHODS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _method(self, call: Call, asks: Any, answers: Any) -> Call:
        async def answer(raw: bytes, context: Any) -> bytes:
            try:
                found: bytes = answers(**await call(asks.FromString(raw), context)).SerializeToString()
                return found
            except TimeoutError:
                what = f"no answer within {self._patience:g} s; the question may be on record all the same"
                refused = grpc.StatusCode.DEADLINE_EXCEEDED, what
            except DecodeError:
                refused = grpc.StatusCode.INVALID_ARGUMENT, f"the request is no {asks.DESCRIPTOR.full_name}"
            except MillstreamError as error:
                refused = _code(error), str(error)
            except Exception as error:  # a bug is told as the HTTP doorway tells it
                log.error("a call failed", exc_info=error)
                fault = "this is a fault of the service, not of the request; its log says more"
                refused = grpc.StatusCode.INTERNAL, fault
            await context.abort(*refused)
            raise MillstreamError("abort has raised")

        return answer


def _code(error: MillstreamError) -> grpc.StatusCode:
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def _asked(request: Any) -> InferRequest:
    """Raises Refusal."""
    inputs, raws = request.inputs, request.raw_input_contents
    if max(len(inputs), len(raws), len(request.outputs)) > MOST_TENSORS:
        raise bad(f"more than {MOST_TENSORS} tensors; send fewer")
    if raws and len(raws) != len(inputs):
        raise bad(f"{len(raws)} raw_input_contents for {len(inputs)} inputs; send one for each, or contents in each")
    for one in request.outputs:
        if odd := {"classification", "shared_memory_region"} & set(one.parameters):
            raise bad(f"output {one.name!r}: {min(odd)} is not had here; ask for the output alone")
    return InferRequest(
        id=name_in("id", request.id),
        tensors=[_tensor(one, raws[position] if raws else None) for position, one in enumerate(inputs)],
        parameters={name: _value(one) for name, one in request.parameters.items()},
        outputs=[name_in("the name of an output", one.name) for one in request.outputs],
    )


def _tensor(said: Any, raw: bytes | None) -> Tensor:
    name, datatype, shape = name_in("the name of an input", said.name), said.datatype, list(said.shape)
    if "shared_memory_region" in said.parameters:
        raise bad(f"input {name!r}: shared memory is not taken; send contents or raw_input_contents")
    given = [field.name for field, _ in said.contents.ListFields()]
    if raw is not None:
        if given:
            raise bad(f"input {name!r}: contents and raw_input_contents; send one of them")
        return from_bytes(name, datatype, shape, raw)
    wanted = _CONTENTS.get(datatype)
    if given and wanted is not None and given != [wanted]:
        raise bad(f"input {name!r}: {', '.join(given)}; {datatype} has its values in {wanted}")
    if given and wanted is None:
        raise bad(f"input {name!r}: datatype {datatype!r:.40} has no contents; send FP32, or raw_input_contents")
    values: Sequence[Any] = list(getattr(said.contents, wanted)) if wanted else []
    if datatype == BYTES:
        values = [text_from(name, one) for one in values]
    return from_values(name, datatype, shape, values)


def _value(parameter: Any) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else None


def _answered(found: InferResponse, *, raw: bool) -> dict[str, Any]:
    """The fields of the answer, its values in the form in which the request had its own."""
    outputs: list[dict[str, Any]] = [
        {"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in found.tensors
    ]
    fields: dict[str, Any] = {
        "model_name": found.model,
        "model_version": found.version,
        "id": found.id,
        "parameters": {name: {"string_param": text} for name, text in found.parameters.items()},
        "outputs": outputs,
    }
    if raw:
        fields["raw_output_contents"] = [to_bytes(one) for one in found.tensors]
        return fields
    for output, tensor in zip(outputs, found.tensors, strict=True):
        values = tensor.values.tolist()
        texts = tensor.datatype == BYTES
        output["contents"] = {_CONTENTS[tensor.datatype]: [text.encode() for text in values] if texts else values}
    return fields
