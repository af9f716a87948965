"""The stack: all servers together on one folder, refused early and in plain words where that cannot work."""

import os
import sys
from pathlib import Path

import pytest
import redis

from millstream.testing.errors import FolderUnusable, PortTaken, StackAlreadyRunning
from millstream.testing.folder import FolderLock
from millstream.testing.kafka_probe import brokers_in_metadata
from millstream.testing.process import ManagedProcess
from millstream.testing.stack import EmbeddedStack, StackPorts
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.waiting import wait_until


@pytest.mark.connected
def test_it_starts_serves_keeps_its_data_and_refuses_a_second_one(tmp_path: Path) -> None:
    said: list[str] = []
    with EmbeddedStack(tmp_path, with_mlflow=False, progress=said.append) as stack:
        addresses = stack.addresses()
        port = int(addresses.kafka.rpartition(":")[2])
        wait_until(lambda: brokers_in_metadata(port) == 1, within=20, what="Kafka to answer")
        assert addresses.mlflow is None
        with redis.Redis.from_url(addresses.valkey) as store:
            store.set("kept", "yes")
        assert sorted(process.name for process in stack.processes()) == ["kafka", "valkey"]
        assert any(line.startswith("Kafka is ready") for line in said)

        with pytest.raises(StackAlreadyRunning, match=f"in use by process {os.getpid()}"):
            EmbeddedStack(tmp_path, with_mlflow=False).start()
    assert not any(process.alive() for process in stack.processes())
    assert (tmp_path / "logs" / "kafka.log").stat().st_size > 0

    again = EmbeddedStack(tmp_path, with_mlflow=False)
    with again, redis.Redis.from_url(again.addresses().valkey) as store:
        assert store.get("kept") == b"yes"


@pytest.mark.connected
def test_one_that_cannot_start_takes_the_others_down(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "cluster.id").write_text("of an earlier run")
    taken = int(valkey.url.rpartition(":")[2].removesuffix("/0"))
    stack = EmbeddedStack(tmp_path, with_mlflow=False, fresh=True, ports=StackPorts(valkey=taken))
    with pytest.raises(PortTaken, match=f"port {taken} .* the port of valkey"):
        stack.start()
    assert not any(process.alive() for process in stack.processes())
    earlier = tmp_path / "kafka" / "cluster.id"
    assert not earlier.exists() or earlier.read_text() != "of an earlier run", "a fresh start keeps nothing"
    assert valkey.processes[0].alive()


@pytest.mark.connected
def test_ctrl_c_while_servers_start_leaves_none_of_them(tmp_path: Path) -> None:
    def impatient(line: str) -> None:
        if line.startswith("Valkey is ready"):
            raise KeyboardInterrupt

    stack = EmbeddedStack(tmp_path, with_mlflow=False, progress=impatient)
    with pytest.raises(KeyboardInterrupt):
        stack.start()
    assert not any(process.alive() for process in stack.processes())
    lock = FolderLock(tmp_path)
    lock.take()  # the folder is free again
    lock.release()


def test_a_full_disk_is_refused_with_both_numbers(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, free_bytes=lambda _: 300 * 1024**2)
    with pytest.raises(FolderUnusable, match=r"300 MiB free, the servers want 1,024 MiB: make room"):
        stack.start()
    assert stack.processes() == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FolderUnusable, match=r"is not writable .*: choose another data folder"):
        EmbeddedStack(tmp_path / "taken").start()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FolderUnusable, match="Permission denied"):
        EmbeddedStack(tmp_path / "below").start()


def test_a_holder_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import time; from pathlib import Path; from millstream.testing.folder import FolderLock\n"
        f"lock = FolderLock(Path({str(tmp_path)!r})); lock.take(); print('held', flush=True); time.sleep(60)"
    )
    holder = ManagedProcess(
        "holder",
        [sys.executable, "-c", program],
        log=tmp_path / "holder.log",
        ready=lambda: "held" in holder.log_text(),
        ready_within=20,
    )
    holder.start()
    stack = EmbeddedStack(tmp_path, with_mlflow=False, min_free_bytes=0)
    with pytest.raises(StackAlreadyRunning, match=f"process {holder.pid}"):
        stack.start()
    holder.kill9()
    lock = FolderLock(tmp_path)
    lock.take()
    lock.release()
