"""The embedded Valkey is a real one: its append-only file survives kill -9, and tests start with it empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from millstream.testing.errors import PortTaken, ToolMissing
from millstream.testing.valkey import EmbeddedValkey, valkey_binary
from millstream.testing.valkey_cluster import EmbeddedValkeyCluster

pytestmark = pytest.mark.connected


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of this test's own, which it may kill."""
    with EmbeddedValkey(tmp_path / "valkey").running() as server:
        yield server


def client(server: EmbeddedValkey, timeout: float = 20) -> "redis.Redis":
    return redis.Redis.from_url(server.url, socket_timeout=timeout)


def test_a_tile_outlives_kill_9_and_the_address_stays(own: EmbeddedValkey) -> None:
    before = own.url
    with client(own) as store:
        store.hset("tiles:EWR", "2013-01-01T05", "12 departures")
    own.kill9()
    own.start()
    assert own.url == before
    with client(own) as store:
        assert store.hget("tiles:EWR", "2013-01-01T05") == b"12 departures"


def test_an_orderly_restart_keeps_data(own: EmbeddedValkey) -> None:
    with client(own) as store:
        store.set("fence", 41)
    own.restart()
    with client(own) as store:
        assert store.incr("fence") == 42


def test_a_frozen_server_times_out_and_answers_when_thawed(own: EmbeddedValkey) -> None:
    own.pause()
    with client(own, timeout=0.2) as store, pytest.raises(redis.exceptions.TimeoutError):
        store.ping()
    own.resume()
    with client(own) as store:
        assert store.ping()


def test_a_taken_port_is_refused(own: EmbeddedValkey, tmp_path: Path) -> None:
    port = int(own.url.rpartition(":")[2].removesuffix("/0"))
    with pytest.raises(PortTaken, match=f"port {port} .* the port of valkey"):
        EmbeddedValkey(tmp_path / "second", port).start()


@pytest.mark.parametrize("visitor", ["first", "second"])
def test_every_test_finds_the_session_server_empty(valkey_url: str, visitor: str) -> None:
    with redis.Redis.from_url(valkey_url) as store:
        assert store.dbsize() == 0
        store.set("left behind by", visitor)


def test_six_servers_are_one_cluster(valkey_cluster: EmbeddedValkeyCluster, valkey_cluster_url: str) -> None:
    masters = valkey_cluster.masters()
    replicas = {valkey_cluster.replica_of(master).port for master in masters}
    assert len(replicas | {master.port for master in masters}) == len(valkey_cluster.nodes) == 6
    owner = valkey_cluster.master_of("tower")
    assert owner.ask("SET", "tower", "JFK")
    with owner.client() as client:
        assert client.wait(1, 5_000) == 1, "its replica has it"
    valkey_cluster.flush()
    assert [node.ask("DBSIZE") for node in valkey_cluster.nodes] == [0] * 6
    assert all(node.ask("INFO", "memory")["maxmemory_policy"] == "noeviction" for node in valkey_cluster.nodes)


def test_another_server_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLSTREAM_VALKEY_SERVER", "/bin/sh")
    assert valkey_binary() == Path("/bin/sh")
    monkeypatch.setenv("MILLSTREAM_VALKEY_SERVER", str(tmp_path / "redis-server"))
    with pytest.raises(ToolMissing, match=r"MILLSTREAM_VALKEY_SERVER names .* no executable file"):
        valkey_binary()
