"""What Feast's Go SDK speaks: the messages of its last release (v0.9.4, 2022), which ask and answer by rows.

It calls the method that Feast still has, with a request of other fields. Feast's own protos keep that request; its answer
has the fields of today's, one vector a row where there is one a feature now."""

from __future__ import annotations

from typing import Any

from feast.protos.feast.serving.ServingService_pb2 import (
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesRequestV2,
    GetOnlineFeaturesResponse,
)
from google.protobuf.message import DecodeError

from millstream.errors import Refusal


def parse(raw: bytes) -> GetOnlineFeaturesRequest | GetOnlineFeaturesRequestV2:
    """The request of either time. Raises DecodeError for what is neither.

    Field 4 tells them apart: features of the one, a boolean of the other, so in no request of today it reads as features."""
    old: GetOnlineFeaturesRequestV2 | None
    try:
        old = GetOnlineFeaturesRequestV2.FromString(raw)
    except DecodeError:
        old = None
    if old is not None and old.features:
        return old
    today: GetOnlineFeaturesRequest = GetOnlineFeaturesRequest.FromString(raw)
    return today


def by_columns(request: GetOnlineFeaturesRequestV2, project: str) -> GetOnlineFeaturesRequest:
    """The same question, as it is asked today. Raises Refusal: rows of different entities, another project than `project`."""
    if request.project not in ("", project):
        raise Refusal("bad_question", f"project {request.project!r} is not here; this service has {project!r}")
    asked = GetOnlineFeaturesRequest(full_feature_names=True)  # features of one name are told apart
    asked.features.val.extend(_reference(one) for one in request.features)
    names = sorted(request.entity_rows[0].fields) if request.entity_rows else []
    for number, row in enumerate(request.entity_rows):
        if sorted(row.fields) != names:
            had = f"entities: row {number} has {sorted(row.fields)}, row 0 has {names}"
            raise Refusal("bad_entities", f"{had}; give every row the same ones")
    for name in names:
        asked.entities[name].val.extend(row.fields[name] for row in request.entity_rows)
    return asked


def by_rows(request: GetOnlineFeaturesRequestV2, answer: GetOnlineFeaturesResponse) -> GetOnlineFeaturesResponse:
    """The answer as the SDK reads it: a vector a row, each feature under the name that it was asked by."""
    asked = {_reference(one).replace(":", "__", 1): _reference(one) for one in request.features}
    found = GetOnlineFeaturesResponse()
    found.metadata.feature_names.val.extend(asked.get(name, name) for name in answer.metadata.feature_names.val)
    for number in range(len(request.entity_rows)):
        row = found.results.add()
        row.values.extend(column.values[number] for column in answer.results)
        row.statuses.extend(column.statuses[number] for column in answer.results)
    return found


def _reference(feature: Any) -> str:
    return f"{feature.feature_view_name}:{feature.feature_name}"
