"""The snapshot where it is kept: one server or a cluster, the same to drift."""

from __future__ import annotations

import pytest

from millstream.errors import RetryLater
from millstream_drift.adapters.valkey_snapshots import ValkeySnapshots

LOOPS = ["bikes", "delay"]


SERVERS = pytest.mark.parametrize("server", ["valkey_url", "valkey_cluster_url"])


@SERVERS
async def test_what_was_saved_is_loaded(server: str, request: pytest.FixtureRequest) -> None:
    snapshots = ValkeySnapshots(request.getfixturevalue(server), "drift", LOOPS)
    await snapshots.check()
    assert await snapshots.load(LOOPS) == {}
    await snapshots.save({"delay": b"\x00all that I know"})
    await snapshots.save({"bikes": b"of bikes"})
    assert await snapshots.load(LOOPS) == {"delay": b"\x00all that I know", "bikes": b"of bikes"}
    await snapshots.check()
    assert await snapshots.load(["bikes"]) == {"bikes": b"of bikes"}
    await snapshots.close()


@SERVERS
async def test_who_comes_back_from_another_project_finds_what_was_kept(
    server: str, request: pytest.FixtureRequest
) -> None:
    """Each project is `up` in turn. A loop counts as away from the first start without it on, and for 90 days it is kept."""
    url, today = request.getfixturevalue(server), [0.0]

    async def up(loops: list[str], day: int) -> ValkeySnapshots:
        today[0] = 1_800_000_000 + day * 86_400.0
        snapshots = ValkeySnapshots(url, "projects", loops, clock=lambda: today[0])
        await snapshots.check()
        return snapshots

    async def kept(loops: list[str], day: int) -> dict[str, bytes]:
        snapshots = await up(loops, day)
        found = await snapshots.load(["bikes", "delay"])
        await snapshots.close()
        return found

    first = await up(["delay"], day=0)
    await first.save({"delay": b"of delay"})
    await first.close()
    other = await up(["bikes"], day=200)
    await other.save({"bikes": b"of bikes"})
    await other.close()
    both = {"bikes": b"of bikes", "delay": b"of delay"}
    assert await kept(["bikes"], day=290) == both, "it ran for 200 days, and was away for 90"
    assert await kept(["delay"], day=290) == both
    assert await kept(["bikes"], day=370) == both, "away since today: it was here in between"
    assert await kept(["bikes"], day=461) == {"bikes": b"of bikes"}
    assert await kept(["delay"], day=461) == {"bikes": b"of bikes"}


async def test_a_cluster_that_is_not_there_is_waited_for(unused_tcp_port: int) -> None:
    snapshots = ValkeySnapshots(
        f"redis+cluster://127.0.0.1:{unused_tcp_port},127.0.0.1:{unused_tcp_port}", "drift", LOOPS
    )
    with pytest.raises(RetryLater, match="check MILLSTREAM_VALKEY"):
        await snapshots.check()
    await snapshots.close()
