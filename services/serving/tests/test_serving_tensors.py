"""Tensors of the protocol: what is written as bytes or values is read again, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from millstream.errors import Refusal
from millstream_serving.domain.tensors import BYTES, NUMBERS, Tensor, from_bytes, from_values, of_texts, to_bytes

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=5)


@given(datatype=st.sampled_from(sorted(NUMBERS)), data=st.data())
def test_numbers_as_bytes_are_read_again(datatype: str, data: st.DataObject) -> None:
    values = data.draw(arrays.arrays(NUMBERS[datatype], st.integers(0, 9)))
    tensor = Tensor(name="x", datatype=datatype, shape=values.shape, values=values)
    again = from_bytes("x", datatype, values.shape, to_bytes(tensor))
    np.testing.assert_array_equal(again.values, values)


@given(texts=TEXTS)
def test_texts_as_bytes_are_read_again(texts: list[str]) -> None:
    assert from_bytes("x", BYTES, [len(texts)], to_bytes(of_texts("x", texts))).values.tolist() == texts


@given(datatype=st.sampled_from([one for one in sorted(NUMBERS) if not one.startswith("FP16")]), data=st.data())
def test_values_one_by_one_are_read_again(datatype: str, data: st.DataObject) -> None:
    values = data.draw(
        arrays.arrays(NUMBERS[datatype], (3, 1), elements={"allow_nan": False} if "FP" in datatype else {})
    )
    for said in (values.tolist(), values.reshape(-1).tolist()):
        assert from_values("x", datatype, [3, 1], said).values.tolist() == values.reshape(-1).tolist()


@given(datatype=st.sampled_from([BYTES, *NUMBERS]), shape=st.lists(st.integers(0, 9), max_size=3), raw=st.binary())
def test_other_bytes_are_refused_or_read_whole(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        tensor = from_bytes("x", datatype, shape, raw)
    except Refusal:
        return
    assert len(tensor.values) == np.prod(shape)
    assert len(to_bytes(tensor)) == len(raw)


def test_more_than_anybody_asks_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(Refusal, match="a dimension is a whole number from 0 to 2000"):
        from_values("x", "FP32", [2001], object())  # type: ignore[arg-type]
