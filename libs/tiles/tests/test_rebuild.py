"""Rebuilding a view beside the live one, told with a shop's orders: nothing is lost, nothing counts twice, nobody sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millstream_tiles import Function
from millstream_tiles.errors import RebuildRefused, StoreUnavailable, ViewNotReady
from millstream_tiles.generation import FIRST, Table
from millstream_tiles.ports import Outcome
from millstream_tiles.reader import WindowReader
from millstream_tiles.rebuild import Progress, Rebuild
from millstream_tiles.sweep import forget_view
from millstream_tiles.writer import TileWriter

from .rebuild_story import HOUR, MINUTE, V1, V2, Logs, Shop, batch_of, orders, view

pytestmark = pytest.mark.connected


@pytest.fixture(params=["one-shard", "two-shards", "cluster"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    kind = request.param
    url = request.getfixturevalue("valkey_cluster_url" if kind == "cluster" else "valkey_url")
    found = Shop(url, tmp_path / "lake", {"one-shard": 1, "two-shards": 2, "cluster": 6}[kind])
    yield found
    await found.close()


def same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-9, nan_ok=True), name


async def test_a_second_version_is_filled_while_orders_keep_coming(shop: Shop) -> None:
    shop.logs = orders(1_500)
    await shop.apply(0, 400)
    await shop.apply(1, 500)
    shop.keep([300, 200])
    same(await shop.seen(V1, shop.now), shop.recounted(V1, shop.now))

    shop.worker = shop.a_worker(V1, V2)
    await shop.worker.claim()
    with pytest.raises(ViewNotReady, match="millstream features rebuild --view spend_v2"):
        await shop.seen(V2, shop.now)

    async def live() -> None:
        for end in range(400, 700, 20):
            await shop.apply(0, end, size=7)
            await shop.apply(1, end + 50, size=9)
            await asyncio.sleep(0.002)

    told: list[Progress] = []
    feeding = asyncio.create_task(live())
    done = await shop.rebuild(V2, say=told.append).run()
    await feeding
    await shop.apply_all()
    assert {t.reading for t in told} == {"lake", "topics"}
    assert (done.lost, done.whole_from, done.views) == (0, None, ("spend_v2",))
    for at in (shop.now, shop.now + HOUR):
        same(await shop.seen(V1, at), shop.recounted(V1, at))
        same(await shop.seen(V2, at), shop.recounted(V2, at))


async def test_whoever_reads_across_the_switch_never_sees_anything_else(shop: Shop) -> None:
    shop.logs = orders(600)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    at, expected = shop.now, shop.recounted(V1, shop.now)
    before = await shop.memory()
    strangers = [shop.a_reader(V1) for _ in range(2)]
    reads = 0
    over = asyncio.Event()

    async def watch(reader: WindowReader) -> None:
        nonlocal reads
        while not over.is_set():
            same(await shop.seen(V1, at, reader), expected)
            reads += 1

    watching = [asyncio.create_task(watch(reader)) for reader in strangers]
    for _ in range(3):
        before_reads = reads
        done = await shop.rebuild(V1, topics=False).run()
        assert done.swept > 0
        assert reads > before_reads
    over.set()
    await asyncio.gather(*watching)
    for reader in strangers:
        await reader.aclose()
    after = await shop.memory()
    assert after[0] <= before[0] + 2 * 2 * shop.shards, "its own fences and clock, and nothing of three old generations"
    assert after[1] < before[1] * 1.1 + 1_000


class Interrupted(Rebuild):
    """Between its first look and the switch, a worker that found it behind a moment ago moves on."""

    go: asyncio.Event
    gone: asyncio.Task[None]
    looks_once: bool
    looks = 0

    async def _caught_up(self) -> bool:
        found = await super()._caught_up()
        self.looks += found
        if self.looks == 1 and found:
            self.go.set()
            await self.gone
        return found or (self.looks_once and self.looks > 0)


@pytest.mark.parametrize("looks_once", [False, True], ids=["as-it-is", "without-the-second-look"])
async def test_the_switch_waits_for_a_worker_in_the_middle_of_a_batch(
    shop: Shop, looks_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.logs = orders(300)
    logs, shop.logs = shop.logs, [log[:100] for log in shop.logs]
    await shop.apply_all()
    shop.worker = shop.a_worker(V1, V2)
    await shop.worker.claim()
    rebuild = shop.rebuild(V2, kind=Interrupted)
    await shop.generations.begin([V2], since=None)
    await shop.worker.claim()
    rebuild.go, rebuild.looks_once = asyncio.Event(), looks_once
    apply, in_the_middle = shop.store.apply, asyncio.Event()

    async def slowly(batch: Any, *, group: str) -> Any:
        if batch.stream == "orders":  # generation 1 is the last that a batch goes to
            in_the_middle.set()
            await rebuild.go.wait()
        return await apply(batch, group=group)

    monkeypatch.setattr(shop.store, "apply", slowly)
    shop.logs[0] = logs[0][:120]
    rebuild.gone = asyncio.create_task(shop.apply(0, 120, size=20))
    await in_the_middle.wait()
    rebuild._topics = Logs([log[:100] for log in shop.logs])  # as Kafka told it a moment ago
    done = asyncio.create_task(rebuild.run())
    await rebuild.gone
    rebuild._topics = Logs(shop.logs)
    await done
    behind = [g for g in await shop.generations.fences("orders", 2) if g[0].offset < 119]
    if looks_once:
        assert behind, "the proof notices"
    else:
        assert not behind
        same(await shop.seen(V2, shop.now), shop.recounted(V2, shop.now))


async def test_a_rebuild_that_was_stopped_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream_tiles.lake_log.BATCH", 50)
    shop.logs = orders(1_000)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    shop.worker = shop.a_worker(V1, V2)
    await shop.worker.claim()
    total = sum(len(log) for log in shop.logs)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.done > total // 2:
            raise Killed

    with pytest.raises(Killed):
        await shop.rebuild(V2, say=kill).run()
    with pytest.raises(ViewNotReady):
        await shop.seen(V2, shop.now)
    first, second = await asyncio.gather(shop.rebuild(V2).run(), shop.rebuild(V2).run())
    assert first.resumed
    assert second.resumed
    assert 0 < max(first.events, second.events) < 0.6 * total, "the second half, by either of two that did it together"
    same(await shop.seen(V2, shop.now), shop.recounted(V2, shop.now))


async def test_a_changed_definition_is_refused_until_it_is_rebuilt(shop: Shop) -> None:
    shop.logs = orders(400)
    await shop.apply(0, 100)
    shop.keep([100, 0])
    changed = replace(V1, lateness=10 * MINUTE)
    reader = shop.a_reader(changed)
    with pytest.raises(ViewNotReady):
        await shop.seen(changed, shop.now, reader)
    assert await reader.filled_async() == {changed.name: False}
    with pytest.raises(RebuildRefused, match="start features again"):
        await shop.rebuild(changed).run()
    old, shop.worker = shop.worker, shop.a_worker(changed)
    await shop.worker.claim()
    await shop.apply_all()
    with pytest.raises(ViewNotReady):
        await shop.seen(V1, shop.now)
    # The worker of the old definition still runs: it takes its turns, and does not write what it does not understand.
    extra = replace(shop.logs[0][-1], offset=len(shop.logs[0]), columns=shop.logs[0][-1].columns | {"order": "new"})
    shop.logs[0].append(extra)
    assert (await old.write(batch_of([extra]))).outcome is Outcome.APPLIED
    shop.applied[0] += 1
    await shop.rebuild(changed).run()
    await shop.apply_all()
    same(await shop.seen(changed, shop.now, reader), shop.recounted(changed, shop.now))
    assert await reader.filled_async() == {changed.name: True}
    await reader.aclose()


async def test_forgetting_a_version_frees_its_memory(shop: Shop) -> None:
    shop.logs = orders(500)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    before = await shop.memory()
    shop.worker = shop.a_worker(V1, V2)
    await shop.worker.claim()
    await shop.rebuild(V2).run()
    grown = await shop.memory()
    assert grown[0] > before[0]
    assert grown[1] > before[1]
    shop.worker = shop.a_worker(V1)
    await shop.worker.claim()
    with pytest.raises(ViewNotReady):  # it is not written any more
        await shop.seen(V2, shop.now)
    assert await forget_view(shop.generations, "spend_v2") > 0
    assert await shop.memory() == before
    same(await shop.seen(V1, shop.now), shop.recounted(V1, shop.now))


async def test_a_store_that_lost_everything_is_claimed_anew(shop: Shop) -> None:
    shop.logs = orders(300)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    await shop.rebuild(V1).run()
    assert (await shop.generations.read()).views["spend_v1"].live > FIRST
    same(await shop.seen(V1, shop.now), shop.recounted(V1, shop.now))
    await shop.store.client.flushall()
    extra = replace(shop.logs[0][-1], offset=len(shop.logs[0]), columns=shop.logs[0][-1].columns | {"order": "new"})
    shop.logs[0].append(extra)
    await shop.apply_all()  # sent back to the first offset of partition 0
    shop.applied[1] = 0
    await shop.apply_all()
    same(await shop.seen(V1, shop.now), shop.recounted(V1, shop.now))


@pytest.mark.parametrize("shop", ["two-shards", "cluster"], indirect=True)
async def test_a_table_that_a_failover_took_back_is_not_believed(shop: Shop) -> None:
    """Of several shards: a single one goes back as a whole, tiles and all."""
    shop.logs = orders(300)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    client, keys = shop.store.client, shop.store.keys
    first = [keys.generations(), keys.revision(0)]
    before = [await client.get(key) for key in first]
    await shop.rebuild(V1).run()
    for key, value in zip(first, before, strict=True):
        await client.set(key, value)
    with pytest.raises(StoreUnavailable, match="lost its table"):
        await shop.seen(V1, shop.now)
    shop.logs[1].append(
        replace(shop.logs[1][-1], offset=len(shop.logs[1]), columns=shop.logs[1][-1].columns | {"order": "new"})
    )
    await shop.apply_all()
    with pytest.raises(ViewNotReady):
        await shop.seen(V1, shop.now)
    await shop.rebuild(V1).run()
    same(await shop.seen(V1, shop.now), shop.recounted(V1, shop.now))


async def test_only_what_is_in_a_window_is_read_again(shop: Shop) -> None:
    plain = view("plain", Function.SUM, Function.COUNT, event_id=None)
    shop.logs = orders(2_000, over=60 * HOUR)
    shop.worker = shop.a_worker(plain)
    await shop.apply_all()
    shop.keep([len(log) for log in shop.logs])
    done = await shop.rebuild(plain, topics=False).run()
    assert 0 < done.events < 0.1 * sum(len(log) for log in shop.logs)
    reader = shop.a_reader(plain)
    for at in (shop.now, shop.now - 30 * MINUTE):
        known = {a.name: v for a, v in zip(plain.aggregates, shop.recounted(plain, shop.now).values(), strict=True)}
        if at == shop.now:
            same(await shop.seen(plain, at, reader), known)
    short = await shop.rebuild(plain, topics=False).run(since=shop.now - 20 * MINUTE)
    assert short.whole_from == shop.now + 40 * MINUTE
    await reader.aclose()


async def test_a_writer_that_knows_no_generations_is_refused_where_there_are_some(shop: Shop) -> None:
    shop.logs = orders(20)
    await shop.apply_all()
    answer = await TileWriter(shop.store, [V1], "tiles").write(batch_of(shop.logs[0][:1]))
    assert answer.outcome is Outcome.STALE
    assert Table().generation_of(V1) == FIRST, "where nobody made a table it is all there is"
