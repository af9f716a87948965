"""gRPC doorway of features: Feast's `ServingService`, for its Java client and stubs of its protos, answered as over HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
from feast import __version__ as feast_version
from feast.protos.feast.serving import ServingService_pb2_grpc
from feast.protos.feast.serving.ServingService_pb2 import (
    DESCRIPTOR,
    GetFeastServingInfoRequest,
    GetFeastServingInfoResponse,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
)
from feast.type_map import feast_value_type_to_python_type
from pydantic import ValidationError

from millstream.errors import MillstreamError, Refusal, RetryLater
from millstream.runtime.grpc_server import GrpcServer
from millstream.runtime.health import Health
from millstream.runtime.http import LARGEST_BODY
from millstream_features.adapters.feast_reader import FeastReader
from millstream_features.api import OnlineFeaturesRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

SERVICE = DESCRIPTOR.services_by_name["ServingService"].full_name

MOST_AT_ONCE = 100
"""Calls under way. A handful of threads read; whoever would wait behind so many others is better told at once."""

CODES = {"unknown_feature": grpc.StatusCode.NOT_FOUND}
"""Codes by which a read is refused that are not INVALID_ARGUMENT."""


class GrpcDoor(GrpcServer):
    """Feast's service on a port of its own."""

    def __init__(self, reader: FeastReader, replica: Health) -> None:
        """The standard health service says whether `replica` is ready."""

        def register(server: Any) -> None:
            ServingService_pb2_grpc.add_ServingServiceServicer_to_server(self, server)

        super().__init__(SERVICE, register, largest=LARGEST_BODY, most_at_once=MOST_AT_ONCE, replica=replica)
        self._reader = reader

    async def GetFeastServingInfo(
        self, request: GetFeastServingInfoRequest, context: Any
    ) -> GetFeastServingInfoResponse:
        return GetFeastServingInfoResponse(version=feast_version)

    async def GetOnlineFeatures(self, request: GetOnlineFeaturesRequest, context: Any) -> GetOnlineFeaturesResponse:
        """What `POST /get-online-features` answers. `as_of` is a field of the metadata, for Feast's request has none."""
        try:
            asked = _asked(request, dict(context.invocation_metadata() or ()))
            return await asyncio.to_thread(
                self._reader.ask,
                features=asked.features,
                service=asked.feature_service,
                entities=asked.request_context | asked.entities,
                full_names=asked.full_feature_names,
                with_versions=asked.include_feature_view_version_metadata,
                as_of=asked.as_of,
            )
        except Refusal as error:
            refused = CODES.get(error.code, grpc.StatusCode.INVALID_ARGUMENT), f"{error.code}: {error}"
        except RetryLater as error:
            refused = grpc.StatusCode.UNAVAILABLE, f"unavailable: {error}"
        except Exception as error:  # a bug is told as the HTTP doorway tells it
            log.error("a read failed", exc_info=error)
            refused = (
                grpc.StatusCode.INTERNAL,
                "internal: this is a fault of the service, not of the request; its log says more",
            )
        await context.abort(*refused)
        raise MillstreamError("abort has raised")


def _asked(request: GetOnlineFeaturesRequest, metadata: Mapping[str, Any]) -> OnlineFeaturesRequest:
    """The request as the HTTP doorway has it, under the same bounds. Raises Refusal."""
    try:
        return OnlineFeaturesRequest(
            features=list(request.features.val),
            feature_service=request.feature_service,
            entities=_columns(request.entities),
            request_context=_columns(request.request_context),
            full_feature_names=request.full_feature_names,
            include_feature_view_version_metadata=request.include_feature_view_version_metadata,
            as_of=metadata.get("as_of"),
        )
    except ValidationError as error:
        said = [": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")]) for e in error.errors()]
        raise Refusal("bad_body", "; ".join(said)) from error


def _columns(entities: Any) -> dict[str, list[Any]]:
    found = {}
    for name, column in entities.items():
        try:
            found[name] = [feast_value_type_to_python_type(value) for value in column.val]
        except (ValueError, ArithmeticError, OSError) as error:  # a UUID, a decimal or a time that is none
            raise Refusal("bad_entities", f"{name}: {error}") from error
    return found
