"""gRPC doorway of features: Feast's `ServingService`, for its Java client, Go SDK and stubs of its protos, as over HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
from feast import __version__ as feast_version
from feast.protos.feast.serving.ServingService_pb2 import (
    DESCRIPTOR,
    GetFeastServingInfoRequest,
    GetFeastServingInfoResponse,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesRequestV2,
    GetOnlineFeaturesResponse,
)
from feast.type_map import feast_value_type_to_python_type
from pydantic import ValidationError

from millstream.errors import MillstreamError, Refusal, RetryLater
from millstream.runtime.grpc_server import GrpcServer
from millstream.runtime.health import Health
from millstream.runtime.http import LARGEST_BODY
from millstream_features.adapters import go_sdk
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
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))

        super().__init__(SERVICE, register, largest=LARGEST_BODY, most_at_once=MOST_AT_ONCE, replica=replica)
        self._reader = reader

    def _methods(self) -> dict[str, Any]:
        """As Feast's `add_ServingServiceServicer_to_server` has them, but for the second message of one request."""
        return {
            "GetFeastServingInfo": grpc.unary_unary_rpc_method_handler(
                self.GetFeastServingInfo,
                request_deserializer=GetFeastServingInfoRequest.FromString,
                response_serializer=GetFeastServingInfoResponse.SerializeToString,
            ),
            "GetOnlineFeatures": grpc.unary_unary_rpc_method_handler(
                self.GetOnlineFeatures,
                request_deserializer=go_sdk.parse,
                response_serializer=GetOnlineFeaturesResponse.SerializeToString,
            ),
        }

    async def GetFeastServingInfo(
        self, request: GetFeastServingInfoRequest, context: Any
    ) -> GetFeastServingInfoResponse:
        return GetFeastServingInfoResponse(version=feast_version)

    async def GetOnlineFeatures(
        self, request: GetOnlineFeaturesRequest | GetOnlineFeaturesRequestV2, context: Any
    ) -> GetOnlineFeaturesResponse:
        """What `POST /get-online-features` answers. `as_of` is a field of the metadata, for Feast's request has none."""
        metadata = dict(context.invocation_metadata() or ())
        try:
            if isinstance(request, GetOnlineFeaturesRequestV2):
                today = go_sdk.by_columns(request, self._reader.project)
                return go_sdk.by_rows(request, await self._answer(today, metadata))
            return await self._answer(request, metadata)
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

    async def _answer(
        self, request: GetOnlineFeaturesRequest, metadata: Mapping[str, Any]
    ) -> GetOnlineFeaturesResponse:
        asked = _asked(request, metadata)
        return await asyncio.to_thread(
            self._reader.ask,
            features=asked.features,
            service=asked.feature_service,
            entities=asked.request_context | asked.entities,
            full_names=asked.full_feature_names,
            with_versions=asked.include_feature_view_version_metadata,
            as_of=asked.as_of,
        )


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
