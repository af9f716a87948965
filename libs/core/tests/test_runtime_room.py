"""Room for bodies: a bound that holds, and a slow one that gives way instead of keeping others out."""

from __future__ import annotations

import asyncio

import pytest

from millstream.errors import Refusal
from millstream.runtime import room as room_module
from millstream.runtime.room import Held, Room


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has begun is slow already."""
    monkeypatch.setattr(room_module, "UNDISTURBED", 0.0)


async def comes(held: Held, *sizes: int, seconds: float = 60.0) -> None:
    """A body that comes in pieces and never ends."""
    async with held.coming(seconds):
        for size in sizes:
            held.add(size)
        await asyncio.Event().wait()


async def test_what_is_whole_gives_way_to_nobody() -> None:
    room = Room(100)
    first, second = Held(room), Held(room)
    async with first.coming(60):
        first.add(60)
    second.add(40)
    with pytest.raises(Refusal, match="100 bytes of requests are under way"):
        second.add(1)
    first.leave()
    second.give_back(30)
    assert room.held == 10
    second.leave()
    assert room.held == 0


async def test_the_one_that_has_come_longest_gives_way_and_hears_why() -> None:
    room = Room(100)
    slow = [Held(room) for _ in range(3)]
    waiting = [asyncio.create_task(comes(one, 15, 15)) for one in slow]
    await asyncio.sleep(0)
    quick = Held(room)
    quick.add(40)
    assert (room.held, [one.bytes for one in slow]) == (100, [0, 30, 30]), "one was enough, and its bytes are free now"
    [done], _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert done is waiting[0]
    with pytest.raises(Refusal, match="came slowly, and others needed its room"):
        await done
    with pytest.raises(Refusal, match="came slowly"):
        slow[0].add(1)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_body_has_its_time_before_it_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "UNDISTURBED", 3600.0)
    room = Room(100)
    young = asyncio.create_task(comes(Held(room), 90))
    await asyncio.sleep(0)
    with pytest.raises(Refusal, match="90 bytes"):
        Held(room).add(11)
    young.cancel()
    await asyncio.gather(young, return_exceptions=True)


async def test_nobody_gives_way_to_itself() -> None:
    room = Room(100)
    alone = Held(room)
    with pytest.raises(Refusal, match="90 bytes of requests are under way"):
        await comes(alone, 90, 11)
    alone.leave()
    assert room.held == 0


async def test_who_takes_too_long_is_late_and_not_pushed_out() -> None:
    room = Room(100)
    with pytest.raises(TimeoutError):
        await comes(Held(room), 90, seconds=0.0)


async def test_a_body_that_is_late_already_gives_way_all_the_same() -> None:
    """Its clock has run out, and its task has not heard of it yet."""
    room, turns = Room(100), 0
    late = Held(room)
    waiting = asyncio.create_task(comes(late, 90, seconds=0.0))
    while not (room.held and late._deadline.expired()):
        await asyncio.sleep(0)
        turns += 1
        assert turns < 10
    assert not waiting.done()
    Held(room).add(50)
    assert room.held == 50
    with pytest.raises(Refusal, match="came slowly"):
        await waiting
