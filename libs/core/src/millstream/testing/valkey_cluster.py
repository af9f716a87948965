"""A real Valkey Cluster on loopback: three masters with a replica each, kept in memory alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from millstream.testing.extras import need
from millstream.testing.ports import HOST, claim
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import ANSWERS_WITHIN_SECONDS, EmbeddedValkey
from millstream.testing.waiting import wait_until

MASTERS = 3
"""The fewest with which a majority can see that one is dead and elect its replica."""

SLOTS = 16_384

NODE_TIMEOUT_MS = 2_000
"""After which a silent node counts as dead: long enough for a machine whose cores are busy. A failover takes a second more."""

HEALTHY_WITHIN_SECONDS = 60.0
"""2 s for a new cluster, the servers' own delay; about 6 s after a master was killed."""


class ValkeyNode(EmbeddedValkey):
    """One server of a cluster. It keeps its name in the cluster when it is killed and started again, but no data."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._bus = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def bus(self) -> int:
        """The port on which nodes speak to each other."""
        return self._bus

    def ask(self, *command: object) -> Any:
        """The answer to a command for this node alone. Raises redis-py's errors."""
        with self.client() as client:
            return client.execute_command(*command)

    def client(self) -> Any:
        """A client for this node alone, to be closed."""
        return need("redis").Redis(host=HOST, port=self._port, socket_timeout=ANSWERS_WITHIN_SECONDS)

    def _prepare(self) -> ManagedProcess:
        # By default the bus is 10,000 above the port, where the system takes the ports of outgoing connections.
        self._bus = claim(None, "the cluster port")
        return super()._prepare()

    def _options(self) -> dict[str, object]:
        return super()._options() | {
            "appendonly": "no",  # so that a killed server has lost what its replica does not have
            "maxmemory": "100mb",
            "maxmemory-policy": "noeviction",
            "cluster-enabled": "yes",
            "cluster-port": self._bus,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": 0,  # a replica that was behind may take over as well
            "repl-diskless-sync-delay": 0,
        }


class EmbeddedValkeyCluster:
    """Six servers with their logs under `data_dir`; the ports survive a node's kill9 and start."""

    def __init__(self, data_dir: Path) -> None:
        self.nodes = [ValkeyNode(data_dir / f"node-{number}") for number in range(2 * MASTERS)]

    @property
    def url(self) -> str:
        """For the clients of millstream_tiles. Known from the start on."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Started inside, stopped after."""
        try:
            self.start()
            yield self
        finally:
            for node in self.nodes:
                node.kill9()  # there is nothing to save

    def start(self) -> None:
        """Start six servers, make them a cluster and wait until all agree. Once. Raises ServerDidNotStart, WaitedTooLong."""
        for node in self.nodes:
            node.launch()
        for number, node in enumerate(self.nodes):
            node.wait_ready()
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(masters):
            first, end = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus)
        wait_until(self._all_met, within=HEALTHY_WITHIN_SECONDS, what="the nodes of the cluster to meet")
        for replica, master in zip(replicas, masters, strict=True):
            replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID"))
        self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until all six run, agree on three masters and every replica has all its master has. Raises WaitedTooLong."""
        wait_until(self._healthy, within=HEALTHY_WITHIN_SECONDS, what="the cluster to be healthy")

    def wait_promoted(self, replica: ValkeyNode) -> None:
        """Wait until `replica` has taken its dead master's place, and the living agree. Raises WaitedTooLong."""
        wait_until(
            lambda: bool(self._slots(replica)) and all(map(self._covered, self._living())) and self._agreed(),
            within=HEALTHY_WITHIN_SECONDS,
            what="the replica to be promoted",
        )

    def heal(self) -> None:
        """Start what was killed, let what was paused go on, and wait until the cluster is healthy."""
        for node in self.nodes:
            node.resume()
            node.start()
        self.wait_healthy()

    def flush(self) -> None:
        """Empty it, replicas included."""
        for node in self.masters():
            with node.client() as client:
                client.flushall()
                client.wait(1, int(ANSWERS_WITHIN_SECONDS * 1000))

    def master_of(self, key: str | bytes) -> ValkeyNode:
        """The node that has the slot of `key`. Raises LookupError while none that is alive has it."""
        slot = self.slot_of(key)
        for node in self.masters():
            if any(first <= slot <= last for first, last in self._slots(node)):
                return node
        raise LookupError(f"no living node has slot {slot}")

    def slot_of(self, key: str | bytes) -> int:
        return int(self._any().ask("CLUSTER", "KEYSLOT", key))

    def masters(self) -> list[ValkeyNode]:
        """Those that run and have slots, as a node that runs sees it."""
        return [node for node in self._living() if self._slots(node)]

    def replica_of(self, master: ValkeyNode) -> ValkeyNode:
        """The first replica that follows `master`."""
        facts = self._facts(self._any())
        name = facts[master.port]["node_id"]
        return next(node for node in self.nodes if facts[node.port]["master_id"] == name)

    def _slots(self, node: ValkeyNode) -> list[tuple[int, int]]:
        found = self._facts(self._any())[node.port]
        if "master" not in found["flags"].split(",") or "fail" in found["flags"].split(","):
            return []
        return [(int(part[0]), int(part[-1])) for part in found["slots"]]

    def _any(self) -> ValkeyNode:
        return self._living()[0]

    def _living(self) -> list[ValkeyNode]:
        return [node for node in self.nodes if node.processes[0].alive()]

    def _facts(self, node: ValkeyNode) -> Mapping[int, Mapping[str, Any]]:
        """What `node` knows of each node, by port."""
        with node.client() as client:
            known = client.cluster("NODES")
        return {int(address.rpartition(":")[2].partition("@")[0]): facts for address, facts in known.items()}

    def _all_met(self) -> bool:
        return all(
            len(facts) == len(self.nodes) and all("handshake" not in fact["flags"] for fact in facts.values())
            for facts in map(self._facts, self.nodes)
        )

    def _healthy(self) -> bool:
        """Asked again and again while nodes come and go, so nothing that a node says is taken for granted."""
        redis = need("redis")
        try:
            return all(map(self._settled, self.nodes)) and len(self.masters()) == MASTERS and self._agreed()
        except (redis.exceptions.RedisError, OSError, KeyError):
            return False

    def _agreed(self) -> bool:
        """Whether all that live say the same of who has which slots and who follows whom; clients ask any of them."""
        views = [
            {port: (fact["slots"], fact["master_id"]) for port, fact in self._facts(node).items()}
            for node in self._living()
        ]
        return all(view == views[0] for view in views)

    def _covered(self, node: ValkeyNode) -> bool:
        """Whether `node` knows a living master for every slot."""
        with node.client() as client:
            state = client.cluster("INFO")
        return bool(state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS)

    def _settled(self, node: ValkeyNode) -> bool:
        if not self._covered(node):
            return False
        with node.client() as client:
            roles = client.info("replication")
        if roles["role"] == "master":
            return bool(roles["connected_slaves"] == 1 and roles["slave0"]["offset"] == roles["master_repl_offset"])
        return bool(roles["master_link_status"] == "up" and not roles["master_sync_in_progress"])
