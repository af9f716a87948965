"""The port's suite: what every tile store must do, told with three departures from two airports."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from millstream_tiles import Aggregate, EventBatch, Function, MemoryTileStore, TileWriter, ValkeyTileStore, View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.layout import Floats, layout_of, merge, sketch_of
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.ports import Applied, Fence, Outcome, TileStore
from millstream_tiles.reader import WindowReader
from millstream_tiles.tiling import tilings_of

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
NOON = 1_362_139_200 * SECOND
_numbers = itertools.count()

DELAYS = View(
    name="delays",
    stream="departed",
    keys=("origin",),
    time_field="at",
    lateness=30 * MINUTE,
    event_id="flight",
    aggregates=(
        *(
            Aggregate(name=f, function=f, column="delay", window=HOUR, slide=10 * MINUTE, k=3 * (f is Function.LAST_K))
            for f in Function
        ),
        Aggregate(name="flights", function=Function.COUNT, column="*", window=6 * HOUR, slide=HOUR),
    ),
)


class Online:
    """One store, with a writer and a reader on it."""

    def __init__(self, store: TileStore, reader: WindowReader | MemoryWindowReader) -> None:
        self.store = store
        self.writer = TileWriter(store, [DELAYS], "features")
        self.reader = reader

    async def write(self, batch: EventBatch, **how: bool) -> Applied:
        return await self.writer.write(batch, **how)

    def delays(self, at: int, *origins: str | None) -> dict[str, list[float]]:
        [values] = self.reader.read([("delays", {"origin": list(origins)})], at)
        return {name: column.tolist() for name, column in values.items()}


@pytest.fixture(
    params=[
        pytest.param(("memory", 1), id="memory"),
        pytest.param(("memory", 3), id="memory-3-shards"),
        pytest.param(("valkey", 1), id="valkey", marks=pytest.mark.connected),
        pytest.param(("valkey", 3), id="valkey-3-shards", marks=pytest.mark.connected),
        pytest.param(("valkey_cluster", None), id="cluster", marks=pytest.mark.connected),
    ]
)
async def online(request: pytest.FixtureRequest) -> AsyncIterator[Online]:
    kind, shards = request.param
    if kind == "memory":
        memory = MemoryTileStore(shards)
        yield Online(memory, MemoryWindowReader(memory, {"delays": DELAYS}))
        return
    url, namespace = request.getfixturevalue(f"{kind}_url"), f"stores-{next(_numbers)}"
    store = ValkeyTileStore(url, namespace, shards)
    reader = WindowReader(url, namespace, {"delays": DELAYS}, shards=shards)
    yield Online(store, reader)
    await reader.aclose()
    await store.close()


def departures(
    flights: Sequence[tuple[str, int, object]],
    *,
    start: int = 0,
    partition: int = 0,
    after: int = MINUTE,
    ids: list[object] | None = None,
) -> EventBatch:
    """(origin, minutes after noon, delay), each known `after` microseconds later."""
    times = np.array([NOON + m * MINUTE for _, m, _ in flights], dtype=np.int64)
    n = len(flights)
    return EventBatch(
        stream="departed",
        partition=partition,
        start=start,
        end=start + max(n, 1) - 1,
        offsets=np.arange(start, start + n),
        event_time=times,
        known_at=times + after,
        ids=ids if ids is not None else [f"{partition}-{start + i}" for i in range(n)],
        columns={"origin": [o for o, _, _ in flights], "delay": [d for _, _, d in flights]},
    )


THREE = departures([("JFK", 1, 10.0), ("JFK", 2, 30.0), ("LGA", 3, 5.0)])


async def test_three_departures_are_seen_at_once(online: Online) -> None:
    assert (await online.write(THREE)).outcome is Outcome.APPLIED
    seen = online.delays(NOON + 5 * MINUTE, "JFK", "LGA", "SFO", None)
    assert seen["count"] == [2, 1, 0, 0]
    assert seen["sum"] == [40.0, 5.0, 0.0, 0.0]
    assert seen["mean"][:2] == [20.0, 5.0]
    assert seen["min"][:2] == [10.0, 5.0]
    assert seen["max"][:2] == [30.0, 5.0]
    assert seen["std"][0] == pytest.approx(200**0.5, rel=1e-15)
    assert seen["last"][:2] == [30.0, 5.0]
    for function in ("mean", "min", "max", "std", "last"):
        assert np.isnan(seen[function][2:]).all(), f"no event, no {function}"
    assert np.isnan(seen["std"][1]), "one event has no spread"
    assert seen["flights"] == [2, 1, 0, 0]


async def test_it_is_known_whether_a_key_has_tiles_of_any_time(online: Online) -> None:
    await online.write(THREE)

    def has_tiles(*origins: str | None) -> bool:
        return online.reader.has_tiles("delays", {"origin": list(origins)})

    assert [has_tiles("JFK"), has_tiles("SFO"), has_tiles(None), has_tiles("SFO", "LGA", "JFK")] == [
        True,
        False,
        False,
        True,
    ]


async def test_a_batch_that_comes_again_changes_nothing(online: Online) -> None:
    await online.write(THREE)
    assert (await online.write(THREE)).outcome is Outcome.ALREADY
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [2]
    assert await online.store.fence("features", "departed", 0) == Fence(offset=2, stream_time=NOON + 4 * MINUTE)


async def test_only_the_new_part_of_an_overlapping_batch_counts(online: Online) -> None:
    await online.write(THREE)
    longer = departures([("JFK", 1, 10.0), ("JFK", 2, 30.0), ("LGA", 3, 5.0), ("JFK", 4, 50.0)])
    assert (await online.write(longer)).outcome is Outcome.APPLIED
    assert online.delays(NOON + 5 * MINUTE, "JFK")["sum"] == [90.0]


async def test_a_worker_that_missed_something_is_sent_back(online: Online) -> None:
    await online.write(THREE)
    ahead = departures([("JFK", 4, 50.0)], start=7)
    answer = await online.write(ahead)
    assert (answer.outcome, answer.fence) == (Outcome.BEHIND, 2)
    assert (await online.write(departures([("JFK", 1, 1.0)], start=9, partition=5))).fence == -1
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [2]


async def test_offsets_that_are_gone_for_good_may_be_stepped_over(online: Online) -> None:
    late_start = departures([("JFK", 4, 50.0)], start=700)
    assert (await online.write(late_start)).outcome is Outcome.BEHIND
    assert (await online.write(late_start, accept_gap=True)).outcome is Outcome.APPLIED
    assert (await online.write(late_start, accept_gap=True)).outcome is Outcome.ALREADY
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [1]


async def test_the_store_hears_nothing_before_what_a_batch_waits_for(online: Online) -> None:
    before = asyncio.get_running_loop().create_future()
    writing = asyncio.create_task(online.writer.write(THREE, after=before))
    await asyncio.sleep(0.05)
    assert await online.store.fence("features", THREE.stream, 0) is None
    before.set_result(None)
    assert (await writing).outcome is Outcome.APPLIED

    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(RuntimeError("the batch before"))
    with pytest.raises(RuntimeError, match="the batch before"):
        await online.writer.write(departures([("JFK", 1, 1.0)], start=THREE.end + 1), after=failed)
    fence = await online.store.fence("features", THREE.stream, 0)
    assert fence is not None
    assert fence.offset == THREE.end


async def test_an_empty_batch_moves_the_fence(online: Online) -> None:
    await online.write(THREE)
    assert (await online.write(departures([], start=3))).outcome is Outcome.APPLIED
    assert await online.store.fence("features", "departed", 0) == Fence(offset=3, stream_time=NOON + 4 * MINUTE)
    assert await online.store.fence("features", "departed", 1) is None


async def test_a_flight_counts_once_however_often_it_is_told(online: Online) -> None:
    told = departures([("JFK", 1, 10.0), ("JFK", 1, 10.0), ("JFK", 2, 30.0)], ids=["AA1", "AA1", "DL2"])
    await online.write(told)
    again = departures([("JFK", 1, 10.0), ("JFK", 3, 20.0)], start=3, ids=["AA1", "UA3"])
    await online.write(again)
    elsewhere = departures([("JFK", 2, 30.0)], partition=1, ids=["DL2"])
    assert (await online.write(elsewhere)).outcome is Outcome.APPLIED
    assert online.delays(NOON + 5 * MINUTE, "JFK")["sum"] == [60.0]


async def test_events_without_an_id_are_never_duplicates(online: Online) -> None:
    await online.write(departures([("JFK", 1, 10.0), ("JFK", 1, 10.0)], ids=[None, None]))
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [2]


async def test_a_copy_that_came_too_late_does_not_keep_the_punctual_one_out(online: Online) -> None:
    await online.write(departures([("JFK", 1, 10.0)], partition=1, after=HOUR, ids=["AA1"]))
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [0]
    await online.write(departures([("JFK", 1, 10.0)], ids=["AA1"]))
    assert online.delays(NOON + 5 * MINUTE, "JFK")["count"] == [1]


async def test_what_is_no_number_is_null(online: Online) -> None:
    odd = [None, "12", float("nan"), float("inf"), 2**53 + 1, 10**400, [1], True, 3]
    await online.write(departures([("JFK", 1, value) for value in odd]))
    seen = online.delays(NOON + 5 * MINUTE, "JFK")
    assert seen["sum"] == [4.0], "true is 1; text, lists, infinities and numbers beyond 2**53 are nothing"
    assert seen["mean"] == [2.0]
    assert seen["count"] == [7], "count sees all that is not null"
    assert seen["flights"] == [9]
    await online.write(departures([("LGA", 1, 2**53 + 1), ("LGA", 1, -(2**53))], start=9))
    assert online.delays(NOON + 5 * MINUTE, "LGA")["sum"] == [-(2.0**53)]


async def test_a_key_is_the_same_however_json_wrote_it(online: Online) -> None:
    keys = [7, 7.0, "7", True, "true", None, [1]]
    await online.write(departures([(key, 1, 1.0) for key in keys]))  # type: ignore[misc]
    assert online.delays(NOON + 5 * MINUTE, "7", "true", "1", "None")["count"] == [3, 2, 0, 0]


async def test_old_tiles_are_dropped_and_windows_stay_whole(online: Online) -> None:
    for hour in range(60):
        batch = departures([("JFK", 60 * hour, 1.0)], start=hour)
        assert (await online.write(batch)).outcome is Outcome.APPLIED
        assert online.delays(NOON + hour * HOUR + MINUTE, "JFK")["flights"] == [min(hour + 1, 6)]
    if isinstance(online.store, MemoryTileStore):
        assert max(len(tiles) for tiles in online.store.tiles.values()) < 20
        held = {b for buckets in online.store._ids.values() for b in buckets}
        assert len(held) <= 5
    else:
        assert isinstance(online.reader, WindowReader)
        client = online.reader.client.sync()
        keys = client.scan_iter(f"{{{online.reader.client.keys.namespace}:*:tile:*")
        plain = {t.layout.mark.encode() for t in tilings_of(DELAYS) if not t.layout.sketch}
        assert max(client.hlen(k) for k in keys if k.split(b":")[-2] in plain) < 20
        tiles = next(client.scan_iter(f"{{{online.reader.client.keys.namespace}:*:tile:*"))
        assert 0 < client.pttl(tiles) <= 2 * 24 * 3_600_000


async def test_a_long_backlog_splits_into_batches_that_hold_together(
    online: Online, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream_tiles.writer.LARGEST_BATCH", 7)
    many = departures([("JFK", i % 50, 1.0) for i in range(40)])
    assert (await online.write(many)).outcome is Outcome.APPLIED
    assert online.delays(NOON + 50 * MINUTE, "JFK")["count"] == [40]
    assert (await online.store.fence("features", "departed", 0) or Fence(offset=-1, stream_time=0)).offset == 39


async def test_two_groups_have_their_own_fences(online: Online) -> None:
    await online.write(THREE)
    rebuild = TileWriter(online.store, [DELAYS], "rebuild")
    assert (await rebuild.write(departures([], start=0))).outcome is Outcome.APPLIED
    assert (await online.store.fence("rebuild", "departed", 0) or Fence(offset=-1, stream_time=0)).offset == 0


@pytest.mark.connected
async def test_numbers_come_back_bit_for_bit(valkey_url: str) -> None:
    namespace = f"bits-{next(_numbers)}"
    store = ValkeyTileStore(valkey_url, namespace)
    reader = WindowReader(valkey_url, namespace, {"delays": DELAYS})
    writer = TileWriter(store, [DELAYS], "features")
    values = [0.1, -0.0, 5e-324, -1.7976931348623157e15, 2.0**53, 1 / 3, 1e-300]
    for i, value in enumerate(values):
        await writer.write(departures([(f"airport-{i}", 1, value)], start=i))
    # A second event of no value merges with the first: the script unpacks and packs all of it.
    for i in range(len(values)):
        await writer.write(departures([(f"airport-{i}", 2, None)], start=len(values) + i))
    origins = [f"airport-{i}" for i in range(len(values))]
    [seen] = reader.read([("delays", {"origin": origins})], NOON + 5 * MINUTE)
    for function in ("min", "max", "last"):
        assert [struct.pack("<d", v) for v in seen[function].tolist()] == [struct.pack("<d", v) for v in values]
    assert seen["sum"].tolist() == values
    await reader.aclose()
    await store.close()


@pytest.mark.connected
async def test_a_server_that_forgot_its_scripts_is_told_again(valkey_url: str) -> None:
    namespace = f"forgot-{next(_numbers)}"
    store = ValkeyTileStore(valkey_url, namespace)
    reader = WindowReader(valkey_url, namespace, {"delays": DELAYS})
    for start in (0, 3):
        reader.client.sync().script_flush()
        await TileWriter(store, [DELAYS], "features").write(departures([("JFK", 1, 1.0)] * 3, start=start))
        reader.client.sync().script_flush()
        [seen] = reader.read([("delays", {"origin": ["JFK"]})], NOON + 5 * MINUTE)
        assert seen["count"].tolist() == [start + 3]
        reader.client.sync().script_flush()
        [seen] = await reader.read_async([("delays", {"origin": ["JFK"]})], NOON + 5 * MINUTE)
        assert seen["count"].tolist() == [start + 3]
    assert reader.stream_times() == {"departed": {0: NOON + 2 * MINUTE}}
    assert await reader.stream_times_async() == {"departed": {0: NOON + 2 * MINUTE}}
    await reader.aclose()
    await store.close()


@pytest.mark.connected
async def test_no_server_is_said_plainly() -> None:
    url = "redis://127.0.0.1:1/0"  # where nobody listens, and whence nobody calls
    store = ValkeyTileStore(url, "nobody", timeout=0.2)
    with pytest.raises(StoreUnavailable):
        await TileWriter(store, [DELAYS], "features").write(THREE)
    with pytest.raises(StoreUnavailable):
        await store.fence("features", "departed", 0)
    reader = WindowReader(url, "nobody", {"delays": DELAYS}, timeout=0.2)
    with pytest.raises(StoreUnavailable):
        reader.read([("delays", {"origin": ["JFK"]})], NOON)
    with pytest.raises(StoreUnavailable):
        await reader.stream_times_async()
    await reader.aclose()
    await store.close()


def test_merging_commutes_and_nothing_is_neutral() -> None:
    layout = layout_of(a for a in DELAYS.aggregates if not sketch_of(a))
    nothing: Floats = np.array([7.0, *(x for p in layout.parts for x in p.empty)])
    some: Floats = np.arange(layout.width, dtype=np.float64)
    other: Floats = some[::-1].copy()
    latest = layout.find("latest", "delay")
    for row, times in ((some, (9.0, 5.0, 1.0)), (other, (7.0, 5.0, 3.0))):
        row[latest.at : latest.at + latest.width] = [x for time in times for x in (time, -time)]
    assert merge(layout, some, nothing)[1:].tolist() == some[1:].tolist()
    assert merge(layout, nothing, some)[1:].tolist() == some[1:].tolist()
    assert merge(layout, some, other)[1:] == pytest.approx(merge(layout, other, some)[1:], rel=1e-12)


async def test_a_sketch_is_looked_through_when_it_has_doubled_and_forgets_what_no_window_needs(online: Online) -> None:
    """A thousand different delays an hour, for two days: the window of an hour needs some hundred slots."""
    delays = [1.05**i for i in range(300)]
    for hour in range(48):
        batch = departures([("JFK", 60 * hour, delay) for delay in delays], start=300 * hour)
        assert (await online.write(batch)).outcome is Outcome.APPLIED
    seen = online.delays(NOON + 47 * HOUR + MINUTE, "JFK")
    assert seen["p50"] == pytest.approx([sorted(delays)[149]], rel=0.01)
    assert seen["count_distinct"][0] == pytest.approx(300, rel=0.05)
    if isinstance(online.store, MemoryTileStore):
        assert max(len(tiles) for tiles in online.store.tiles.values()) < 1_500
    else:
        assert isinstance(online.reader, WindowReader)
        client = online.reader.client.sync()
        held = [client.hlen(k) for k in client.scan_iter(f"{{{online.reader.client.keys.namespace}:*:tile:*")]
        assert 300 < max(held) < 2_500, "of 14,400 slots that were ever filled"
