"""gzip and zstd bodies: unpacked while they stream in, and no bomb goes off."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest
from backports import zstd

from millstream.errors import Refusal
from millstream_ingest.domain.unpacking import MOST_RATIO, PIECE, Packed

from .conftest import Airport, departure, lines

PACK = {"gzip": gzip.compress, "zstd": zstd.compress}
BOTH = pytest.mark.parametrize("packing", ["gzip", "zstd"])
MIB = 1024 * 1024


@BOTH
async def test_packed_events_are_taken_one_many_and_streamed(airport: Airport, packing: str) -> None:
    pack = PACK[packing]

    one = await airport.post(
        "flights-departed/events", pack(json.dumps(departure()).encode()), content_encoding=packing
    )
    many = await airport.batch(pack(lines(departure(flight_id="a"), {})), content_encoding=packing.upper())
    streamed = await airport.post(
        "flights-departed/events",
        pack(lines(departure(flight_id="b"))) + pack(lines(departure(flight_id="c"))),  # two members are one body
        content_encoding=packing,
        content_type="application/x-ndjson",
    )

    assert (one.status_code, many.status_code, streamed.status_code) == (202, 207, 200)
    assert [json.loads(entry.value)["flight_id"] for entry in airport.log.entries][1:] == ["a", "b", "c"]


@BOTH
async def test_a_bomb_is_refused_before_it_fills_the_memory(airport: Airport, packing: str) -> None:
    bomb = PACK[packing](b" " * 512 * MIB)
    tracemalloc.start()
    answer = await airport.batch(bomb, content_encoding=packing)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (answer.status_code, answer.json()["error"]) in {(413, "compression_ratio"), (413, "body_too_large")}
    assert peak < 64 * MIB


@BOTH
async def test_a_bomb_in_a_stream_ends_it(airport: Airport, packing: str) -> None:
    answer = await airport.post(
        "flights-departed/events",
        PACK[packing](lines(departure()) + b" " * 512 * MIB),
        content_type="application/x-ndjson",
        content_encoding=packing,
    )

    *_, last = answer.text.splitlines()
    assert json.loads(last)["error"] == "compression_ratio"
    assert json.loads(last)["accepted"] == 1


@BOTH
@pytest.mark.parametrize(
    "spoil", [lambda b: b"plain", lambda b: b[:-3], lambda b: b[: len(b) // 2], lambda b: b + b"more"]
)
async def test_what_is_not_packed_as_it_says_is_refused(airport: Airport, packing: str, spoil: object) -> None:
    body = spoil(PACK[packing](lines(departure())))  # type: ignore[operator]

    answer = await airport.batch(body, content_encoding=packing)

    assert (answer.status_code, answer.json()["error"]) == (400, "bad_encoding")
    assert airport.log.entries == []


def test_a_frame_that_wants_more_history_than_we_keep_is_refused() -> None:
    wide = zstd.compress(b"x" * 32 * MIB, options={zstd.CompressionParameter.window_log: 26})

    with pytest.raises(Refusal, match="no zstd"):
        list(Packed("zstd").feed(wide))


@BOTH
def test_pieces_stay_small(packing: str) -> None:
    packed, unpacker = PACK[packing](json.dumps([*range(200_000)]).encode()), Packed(packing)

    pieces = [piece for at in range(0, len(packed), 1000) for piece in unpacker.feed(packed[at : at + 1000])]
    unpacker.end()

    assert json.loads(b"".join(pieces)) == [*range(200_000)]
    assert max(map(len, pieces)) <= PIECE
    assert MOST_RATIO > 1
