"""What a cluster does to tiles: masters die, slots move, scripts are forgotten, and the number of shards is asked about."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot

from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.valkey_cluster import EmbeddedValkeyCluster, ValkeyNode
from millstream.testing.waiting import wait_until
from millstream_tiles import TileWriter, ValkeyTileStore
from millstream_tiles.connection import Address
from millstream_tiles.errors import BadAddress, ShardsDiffer, StoreUnavailable
from millstream_tiles.ports import Outcome
from millstream_tiles.reader import WindowReader
from millstream_tiles.tile_keys import TileKeys

from .test_online_stores import DELAYS, HOUR, MINUTE, NOON, departures

AIRPORTS = [f"A{number:02d}" for number in range(40)]
"""Enough to have some in every shard."""
_numbers = itertools.count()


class Board:
    """The departures of forty airports, written and read through one store."""

    def __init__(self, url: str, shards: int | None = None, timeout: float = 5.0, namespace: str | None = None) -> None:
        self.namespace = namespace or f"board-{next(_numbers)}"
        self.store = ValkeyTileStore(url, self.namespace, shards, timeout=timeout)
        self.writer = TileWriter(self.store, [DELAYS], "features")
        self.reader = WindowReader(url, self.namespace, {"delays": DELAYS}, shards=shards, timeout=timeout)
        self.keys = TileKeys(self.namespace, self.store.shards)

    async def write(self, number: int) -> Outcome:
        """The `number`th batch: one more departure of each airport."""
        flights = [(airport, number, 1.0) for airport in AIRPORTS]
        return (await self.writer.write(departures(flights, start=number * len(AIRPORTS)))).outcome

    async def write_when_it_answers(self, number: int) -> Outcome:
        """As a worker does: again until the store takes it."""
        for _ in range(200):  # each try of a dead node takes at least as long as finding that out
            try:
                return await self.write(number)
            except StoreUnavailable:
                continue
        raise AssertionError("the store never came back")

    async def catch_up(self, number: int) -> None:
        """As a worker does: where the store says that it is behind, begin again behind its fence."""
        while await self.write_when_it_answers(number) is Outcome.BEHIND:
            fence = await self.store.fence("features", "departed", 0)
            for missed in range(0 if fence is None else (fence.offset + 1) // len(AIRPORTS), number):
                await self.write_when_it_answers(missed)

    async def counts(self) -> set[float]:
        """What the airports have, read both ways."""
        request = [("delays", {"origin": AIRPORTS})]
        [one], [other] = (
            self.reader.read(request, NOON + 30 * MINUTE),
            await self.reader.read_async(request, NOON + 30 * MINUTE),
        )
        assert one["count"].tolist() == other["count"].tolist()
        return set(one["count"].tolist())

    async def close(self) -> None:
        await self.reader.aclose()
        await self.store.close()


@pytest.fixture
async def board(valkey_cluster_url: str) -> AsyncIterator[Board]:
    opened = Board(valkey_cluster_url)
    yield opened
    await opened.close()


async def test_a_failover_that_lost_a_batch_is_made_good(board: Board, valkey_cluster: EmbeddedValkeyCluster) -> None:
    await board.write(0)
    await board.counts()  # so that the reader has its connections when the master dies
    fence = board.keys.fences("features", "departed", 5)
    master = valkey_cluster.master_of(fence)
    replica = valkey_cluster.replica_of(master)
    with master.client() as client:
        assert client.wait(1, 5_000) == 1
        # The replica hears nothing of the next batch: it sleeps, and its connection is gone.
        replica.pause()
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")
    try:
        assert await board.write(1) is Outcome.APPLIED
        master.kill9()
        with pytest.raises(StoreUnavailable):
            await board.write(2)
        with pytest.raises(StoreUnavailable):
            await board.counts()
        replica.resume()  # not before: it would soon be the master
        valkey_cluster.wait_promoted(replica)
        assert await board.write_when_it_answers(2) is Outcome.BEHIND, "the fence went with the tiles"
        await board.catch_up(2)
        assert await board.counts() == {3}
        assert await board.write(1) is Outcome.ALREADY
    finally:
        valkey_cluster.heal()
    assert await board.write_when_it_answers(3) is Outcome.APPLIED
    assert await board.counts() == {4}


async def test_a_master_that_restarts_empty_is_filled_again(
    board: Board, valkey_cluster: EmbeddedValkeyCluster
) -> None:
    await board.write(0)
    master = valkey_cluster.master_of(board.keys.fences("features", "departed", 0))
    valkey_cluster.replica_of(master).kill9()
    master.kill9()
    valkey_cluster.heal()
    assert await board.write_when_it_answers(1) is Outcome.BEHIND
    await board.catch_up(1)
    assert await board.counts() == {2}


def other_master(cluster: EmbeddedValkeyCluster, node: ValkeyNode) -> ValkeyNode:
    return next(master for master in cluster.masters() if master is not node)


async def test_slots_move_key_by_key(board: Board, valkey_cluster: EmbeddedValkeyCluster) -> None:
    """The way of all Redis and older Valkey: while a slot is between two nodes its shard does not answer, but never lies."""
    await board.write(0)
    fence = board.keys.fences("features", "departed", 3)
    slot, source = valkey_cluster.slot_of(fence), valkey_cluster.master_of(fence)
    target = other_master(valkey_cluster, source)
    names = {node: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    assert len(keys) > 4
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys[: len(keys) // 2])
    with pytest.raises(StoreUnavailable):
        await board.write(1)
    with pytest.raises(StoreUnavailable):
        await board.counts()
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys[len(keys) // 2 :])
    for node in (target, source, *valkey_cluster.masters()):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    assert await board.write_when_it_answers(1) is Outcome.APPLIED, "applied where it was not, and only there"
    assert await board.counts() == {2}
    valkey_cluster.wait_healthy()


async def test_a_slot_moves_at_once(board: Board, valkey_cluster: EmbeddedValkeyCluster) -> None:
    """The way of Valkey 9: nothing is to be noticed but where it went."""
    await board.write(0)
    fence = board.keys.fences("features", "departed", 7)
    slot, source = valkey_cluster.slot_of(fence), valkey_cluster.master_of(fence)
    if not any(b"MIGRATESLOTS" in line for line in source.ask("CLUSTER", "HELP")):
        pytest.skip("this server moves slots key by key")
    target = other_master(valkey_cluster, source)
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.ask("CLUSTER", "MYID"))
    for number in (1, 2, 3):  # while it moves, and perhaps after
        assert await board.write_when_it_answers(number) is Outcome.APPLIED
        assert await board.counts() == {number + 1}
    wait_until(lambda: valkey_cluster.master_of(fence) is target, within=30, what="the slot to move")
    valkey_cluster.wait_healthy()
    assert await board.write_when_it_answers(4) is Outcome.APPLIED
    assert await board.counts() == {5}


async def test_scripts_are_told_to_every_node_that_does_not_know_them(
    board: Board, valkey_cluster: EmbeddedValkeyCluster
) -> None:
    for number in range(2):
        for node in valkey_cluster.masters():
            node.ask("SCRIPT", "FLUSH")
        await board.write(number)
        for node in valkey_cluster.masters():
            node.ask("SCRIPT", "FLUSH")
        assert await board.counts() == {number + 1}


async def test_a_read_is_one_command_a_shard(board: Board, valkey_cluster: EmbeddedValkeyCluster) -> None:
    await board.write(0)
    await board.counts()
    for node in valkey_cluster.masters():
        node.ask("CONFIG", "RESETSTAT")
    await board.counts()
    calls: dict[str, int] = {}
    for node in valkey_cluster.masters():
        with node.client() as client:
            for name, stats in client.info("commandstats").items():
                calls[name] = calls.get(name, 0) + stats["calls"]
    shards = board.store.shards
    assert calls["cmdstat_evalsha"] == 2 * shards, "one read for threads, one for the event loop"
    assert "cmdstat_command|getkeys" not in calls, "nobody has to ask where the keys of a script are"


@pytest.mark.parametrize("server", ["valkey_url", "valkey_cluster_url"])
async def test_another_number_of_shards_is_refused(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(server)
    three = Board(url, 3)
    early = Board(url, 5, namespace=three.namespace)
    assert await early.counts() == {0}, "before anything is written there is nothing to differ from"
    await early.close()
    await three.store.check()
    await three.write(0)
    five = Board(url, 5, namespace=three.namespace)
    complaint = (
        rf"keeps '{three.namespace}' in 3 shards, but shards is 5 here; set shards to 3, or use another namespace"
    )
    for ask in (five.counts, five.store.check, five.reader.stream_times_async, lambda: five.write(0)):
        with pytest.raises(ShardsDiffer, match=complaint):
            await ask()
    with pytest.raises(ShardsDiffer):
        five.reader.stream_times()
    assert await three.counts() == {1}
    await three.close()
    await five.close()


async def test_a_reader_that_saw_an_empty_store_notices_the_others(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream_tiles.tile_client.BELIEVED", 0.0)
    two = Board(valkey_url, 2)
    four = Board(valkey_url, 4, namespace=two.namespace)
    assert await four.counts() == {0}
    await two.write(0)
    with pytest.raises(ShardsDiffer):
        await four.counts()
    await two.close()
    await four.close()


async def test_a_frozen_server_is_away_and_its_batch_counts_once(valkey: EmbeddedValkey, valkey_url: str) -> None:
    board = Board(valkey_url, timeout=0.3)
    patient = Board(valkey_url, namespace=board.namespace)
    await board.write_when_it_answers(0)
    valkey.pause()
    try:
        with pytest.raises(StoreUnavailable):
            await board.write(1)  # which lies in the server's socket, and is applied as soon as it wakes
        with pytest.raises(StoreUnavailable):
            await board.counts()
    finally:
        valkey.resume()
    assert await board.write_when_it_answers(1) in (Outcome.ALREADY, Outcome.APPLIED)
    assert await patient.counts() == {2}
    await patient.close()
    await board.close()


async def test_a_server_that_lost_everything_is_filled_again(valkey: EmbeddedValkey, valkey_url: str) -> None:
    board = Board(valkey_url, 2)
    await board.write(0)
    valkey.flush()
    assert await board.write(1) is Outcome.BEHIND
    await board.catch_up(1)
    assert await board.counts() == {2}
    other = Board(valkey_url, 3, namespace=board.namespace)
    with pytest.raises(ShardsDiffer):
        await other.store.check()
    await other.close()
    await board.close()


@pytest.mark.parametrize("server", ["valkey_url", "valkey_cluster_url"])
async def test_what_is_heard_of_no_more_expires(server: str, request: pytest.FixtureRequest) -> None:
    """All that grows with entities and events has an end; what has none is a key a stream, group or shard."""
    board = Board(request.getfixturevalue(server))
    for number in range(3):
        await board.write(number)
    client = board.reader.client.sync()
    ends = {key.decode().partition("}:")[2]: client.pttl(key) for key in client.scan_iter(board.keys.everything())}
    lasting = {name for name, end in ends.items() if end == -1}
    assert lasting == {"fence:features:departed", "clock:departed", "course:departed", "ids:departed", ""}
    tiles = {name: end for name, end in ends.items() if name.startswith("tile:")}
    assert {name.rpartition(":")[2] for name in tiles} == set(AIRPORTS)
    day, most = 24 * HOUR // 1000, (24 + 6 + 1) * HOUR // 1000
    assert all(day < end <= most for end in tiles.values()), "the window, the slack, and a day for who was away"
    buckets = [end for name, end in ends.items() if name.startswith("ids:departed:")]
    assert buckets
    assert all(0 < end <= 3 * DELAYS.dedupe_span // 1000 for end in buckets)
    fence = board.keys.fences("features", "departed", 0)
    assert (client.hlen(fence), client.hlen(board.keys.clock("departed", 0))) == (1, 1), "a field a partition"
    await board.close()


@pytest.mark.parametrize("masters", [1, 2, 3, 4, 6, 12])
def test_twelve_shards_are_spread_evenly_over_masters(masters: int) -> None:
    keys = TileKeys("shop", 12)
    slots = [key_slot(keys.clock("orders", shard)) for shard in range(12)]
    assert [sum(slot * masters // 16_384 == m for slot in slots) for m in range(masters)] == [12 // masters] * masters
    together = {key_slot(keys.fences("g", "orders", 4)), key_slot(keys.ids("orders", 4)), slots[4]}
    assert together == {slots[4]}, "what one script touches is in one slot"


@pytest.mark.parametrize(
    ("url", "cluster", "nodes", "plain"),
    [
        ("redis://h:1/2", False, (("h", 1),), "redis://h:1/2"),
        ("redis+cluster://h", True, (("h", 6379),), "redis://h"),
        ("rediss+cluster://me:p%40ss@a:1,b:2/0?x=1", True, (("a", 1), ("b", 2)), "rediss://me:p%40ss@a:1/0?x=1"),
        ("redis+cluster://[::1]:7,b", True, (("::1", 7), ("b", 6379)), "redis://[::1]:7"),
        ("unix:///run/valkey.sock", False, (), "unix:///run/valkey.sock"),
    ],
)
def test_an_address_says_one_server_or_a_cluster(
    url: str, cluster: bool, nodes: tuple[tuple[str, int], ...], plain: str
) -> None:
    assert Address.of(url) == Address(url=plain, cluster=cluster, nodes=nodes)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:6379", "no address of an online store; write redis://host:6379/0, or redis"),
        ("http://h:1", "no address"),
        ("redis+cluster://", "no host:port"),
        ("redis://me:secret@a:x", "no host:port"),
        ("redis://a:1,b:2/0", r"several hosts; redis\+cluster:// is a cluster"),
        ("redis+cluster://a:1/3", "a cluster has no databases but 0; leave /3 out"),
    ],
)
def test_an_address_that_is_none_says_what_to_write(url: str, complaint: str) -> None:
    with pytest.raises(BadAddress, match=complaint) as refused:
        ValkeyTileStore(url, "shop")
    assert "secret" not in str(refused.value)
