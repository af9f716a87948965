"""The snapshot where it is kept: one server or a cluster, the same to drift."""

from __future__ import annotations

import pytest

from millstream.errors import RetryLater
from millstream_drift.adapters.valkey_snapshots import ValkeySnapshots

LOOPS = ["bikes", "delay"]


@pytest.mark.parametrize("server", ["valkey_url", "valkey_cluster_url"])
async def test_what_was_saved_is_loaded(server: str, request: pytest.FixtureRequest) -> None:
    snapshots = ValkeySnapshots(request.getfixturevalue(server), "drift", LOOPS)
    await snapshots.check()
    assert await snapshots.load(LOOPS) == {}
    await snapshots.save({"delay": b"\x00all that I know"})
    await snapshots.save({"bikes": b"of bikes", "gone": b"a loop that leaves the project"})
    assert await snapshots.load(LOOPS) == {"delay": b"\x00all that I know", "bikes": b"of bikes"}
    await snapshots.check()
    assert await snapshots.load(["gone", "bikes"]) == {"bikes": b"of bikes"}
    await snapshots.close()


async def test_a_cluster_that_is_not_there_is_waited_for(unused_tcp_port: int) -> None:
    snapshots = ValkeySnapshots(
        f"redis+cluster://127.0.0.1:{unused_tcp_port},127.0.0.1:{unused_tcp_port}", "drift", LOOPS
    )
    with pytest.raises(RetryLater, match="check MILLSTREAM_VALKEY"):
        await snapshots.check()
    await snapshots.close()
