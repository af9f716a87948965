"""The messages of Feast's Go SDK beside today's: told apart whatever is in them, and turned round without a loss."""

from __future__ import annotations

from typing import Any

import pytest
from feast.protos.feast.serving.ServingService_pb2 import (
    FeatureList,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesRequestV2,
    GetOnlineFeaturesResponse,
)
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import Refusal
from millstream_features.adapters.go_sdk import by_columns, by_rows, parse

VALUES = st.builds(Value, string_val=st.text()) | st.builds(Value, int64_val=st.integers(-(2**63), 2**63 - 1))
COLUMNS = st.dictionaries(st.text(), st.builds(RepeatedValue, val=st.lists(VALUES, max_size=3)), max_size=3)
TODAY = st.builds(
    GetOnlineFeaturesRequest,
    entities=COLUMNS,
    request_context=COLUMNS,
    full_feature_names=st.booleans(),
    include_feature_view_version_metadata=st.booleans(),
)


def old(*features: str, rows: list[dict[str, Any]], project: str = "") -> GetOnlineFeaturesRequestV2:
    asked = GetOnlineFeaturesRequestV2(project=project)
    for feature in features:
        view, _, name = feature.partition(":")
        asked.features.add(feature_view_name=view, feature_name=name)
    for row in rows:
        fields = asked.entity_rows.add().fields
        for name, key in row.items():
            fields[name].string_val = key
    return asked


@settings(deadline=None)
@given(TODAY, st.lists(st.text()), st.text())
def test_a_request_of_today_is_never_taken_for_an_old_one(
    request: GetOnlineFeaturesRequest, features: list[str], service: str
) -> None:
    request.features.CopyFrom(FeatureList(val=features))
    assert parse(request.SerializeToString()) == request
    request.feature_service = service
    assert parse(request.SerializeToString()) == request


@settings(deadline=None)
@given(
    st.lists(st.text(), min_size=1, max_size=4),
    st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=3),
    st.text(),
)
def test_an_old_one_is_never_taken_for_one_of_today(
    features: list[str], rows: list[dict[str, str]], project: str
) -> None:
    request = old(*features, rows=rows, project=project)
    assert parse(request.SerializeToString()) == request


def test_what_is_neither_is_told_so() -> None:
    with pytest.raises(DecodeError):
        parse(b"\xff\xff")


def test_rows_become_columns_and_columns_rows() -> None:
    request = old("v:a", "w:a", rows=[{"k": "x", "l": "1"}, {"l": "2", "k": "y"}], project="flights")

    asked = by_columns(request, "flights")
    assert list(asked.features.val) == ["v:a", "w:a"]
    assert asked.full_feature_names
    assert {name: [one.string_val for one in column.val] for name, column in asked.entities.items()} == {
        "k": ["x", "y"],
        "l": ["1", "2"],
    }

    answer = GetOnlineFeaturesResponse()
    answer.metadata.feature_names.val.extend(["k", "v__a", "w__a"])
    for column in (["x", "y"], [1, 2], [3, 4]):
        vector = answer.results.add()
        for value in column:
            vector.values.add(**({"string_val": value} if isinstance(value, str) else {"int64_val": value}))
            vector.statuses.append(1)
    found = by_rows(request, answer)
    assert list(found.metadata.feature_names.val) == ["k", "v:a", "w:a"]
    assert [[v.string_val or v.int64_val for v in row.values] for row in found.results] == [["x", 1, 3], ["y", 2, 4]]
    assert [list(row.statuses) for row in found.results] == [[1, 1, 1]] * 2
    assert not any(row.event_timestamps for row in found.results), "the SDK knows none"


@pytest.mark.parametrize(
    ("rows", "project", "code", "said"),
    [
        ([{"k": "x"}], "trains", "bad_question", "project 'trains' is not here; this service has 'flights'"),
        ([{"k": "x"}, {"l": "y"}], "", "bad_entities", "row 1 has ['l'], row 0 has ['k']; give every row the same"),
        ([{"k": "x"}, {}], "", "bad_entities", "row 1 has [], row 0 has ['k']"),
    ],
    ids=["project", "other entity", "no entity"],
)
def test_what_cannot_be_turned_is_refused(rows: list[dict[str, str]], project: str, code: str, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        by_columns(old("v:a", rows=rows, project=project), "flights")

    assert refused.value.code == code
    assert said in str(refused.value)
