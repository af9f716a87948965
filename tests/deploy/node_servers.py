"""Kafka and Valkey of this machine, as pods of the node reach them: on the line to it, and on loopback for us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import HOST, free_port
from millstream.testing.valkey import EmbeddedValkey

from .node_network import MACHINE


class KafkaOnTheLine(EmbeddedKafka):
    """With one more listener, which advertises the machine's address there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pods = f"{MACHINE}:{free_port()}"
        """Bootstrap server of who is on the node."""

    def _properties(self, index: int, folder: Path) -> str:
        clients, controller = self._ports[index]
        listeners = f"PLAINTEXT://{HOST}:{clients},PODS://{self.pods}"
        # Of a key that is there twice Java takes the last.
        return super()._properties(index, folder) + "".join(
            f"{key}={value}\n"
            for key, value in {
                "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": listeners,
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PODS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }.items()
        )


class ValkeyOnTheLine(EmbeddedValkey):
    @property
    def pods(self) -> str:
        return f"redis://{MACHINE}:{self._port}/0"

    def _options(self) -> dict[str, object]:
        # Protected mode answers loopback alone where there is no password; nobody but this machine is on the line.
        return super()._options() | {"bind": f"{HOST} {MACHINE}", "protected-mode": "no"}


@dataclass(frozen=True, kw_only=True)
class Servers:
    kafka: KafkaOnTheLine
    valkey: ValkeyOnTheLine


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Both, while the node's network is up."""
    kafka, valkey = KafkaOnTheLine(folder / "kafka"), ValkeyOnTheLine(folder / "valkey")
    with kafka.running(), valkey.running():
        yield Servers(kafka=kafka, valkey=valkey)
