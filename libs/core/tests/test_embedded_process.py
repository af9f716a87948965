"""A managed child process: started, measured, paused, killed with its children — and never left behind."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millstream.testing.errors import PortTaken, ServerDidNotStart, WaitedTooLong
from millstream.testing.ports import HOST, claim, free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.waiting import wait_until

SLEEPER = [sys.executable, "-S", "-c", "import time; print('awake', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('awake', flush=True); time.sleep(60)",
]
PARENT_OF_ONE = [
    sys.executable,
    "-S",
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
    "print('child', child.pid, flush=True); time.sleep(60)",
]

LARGE = "import time; held = bytearray(80_000_000); print('large', flush=True); time.sleep(60)"
PARENT_OF_A_LARGE_CHILD = [
    sys.executable,
    "-S",
    "-c",
    f"import subprocess, sys\nprint('awake', flush=True)\nsubprocess.run([sys.executable, '-S', '-c', {LARGE!r}])",
]


def awake(name: str, args: list[str], tmp_path: Path) -> ManagedProcess:
    """A process that has printed its first line."""
    process = ManagedProcess(
        name, args, log=tmp_path / f"{name}.log", ready=lambda: "\n" in process.log_text(), ready_within=30
    )
    process.start()
    return process


def gone(pid: int) -> bool:
    """Whether a process that is not our child has ended (or is a zombie that nobody has collected yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_what_importing_feast_sets_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`millstream up` checks the project, for which it imports Feast, and starts the services afterwards."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("PROMETHEUS_MULTIPROCESS_DIR", str(tmp_path / "gone"))
    counting = "import prometheus_client; prometheus_client.Counter('c', 'c').inc(); print('counted', flush=True)\n"
    service = awake("service", [sys.executable, "-c", counting + "import time; time.sleep(60)"], tmp_path)
    service.terminate()
    assert service.log_text() == "counted\n"


def test_a_sleeper_is_started_measured_and_ended(tmp_path: Path) -> None:
    sleeper = awake("sleeper", SLEEPER, tmp_path)
    assert sleeper.alive()
    usage = sleeper.usage()
    if sys.platform == "linux":
        assert usage is not None
        assert 1_000_000 < usage.peak_rss_bytes < 200_000_000
        assert usage.cpu_seconds < 10

    sleeper.terminate()
    assert not sleeper.alive()
    assert sleeper.returncode == -signal.SIGTERM
    last = sleeper.usage()
    assert (last is None) == (usage is None), "its last reading is kept"
    assert "awake" in sleeper.log.read_text()
    sleeper.terminate()  # twice is safe


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_usage_knows_children_and_earlier_starts(tmp_path: Path) -> None:
    parent = awake("parent", PARENT_OF_A_LARGE_CHILD, tmp_path)
    wait_until(lambda: "large" in parent.log.read_text(), within=20, what="the child to be large")
    parent.kill9()
    first = parent.usage()  # read once more at the kill: what had said that it is large may have grown by a page since
    parent.args = list(SLEEPER)
    parent.start()
    again = parent.usage()
    parent.terminate()
    assert first is not None
    assert again is not None
    assert first.children_peak_rss_bytes > 60_000_000 > first.peak_rss_bytes
    assert again.children_peak_rss_bytes == first.children_peak_rss_bytes, "a start forgets nothing"
    assert again.cpu_seconds >= first.cpu_seconds


def test_one_that_ignores_the_polite_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = awake("stubborn", STUBBORN, tmp_path)
    began = time.monotonic()
    stubborn.terminate(grace=0.3)
    assert time.monotonic() - began < 15, "not after the grace that others have"
    assert stubborn.returncode == -signal.SIGKILL


def test_a_paused_one_still_ends_politely(tmp_path: Path) -> None:
    sleeper = awake("sleeper", SLEEPER, tmp_path)
    sleeper.stop_signal()
    wait_until(
        lambda: " T " in Path(f"/proc/{sleeper.pid}/stat").read_text(), within=20, what="the sleeper to be stopped"
    )
    sleeper.terminate()
    assert sleeper.returncode == -signal.SIGTERM


def test_grandchildren_go_with_their_parent(tmp_path: Path) -> None:
    parent = awake("parent", PARENT_OF_ONE, tmp_path)
    grandchild = int(parent.log_text().split()[1])
    parent.kill9()
    wait_until(lambda: gone(grandchild), within=30, what="the grandchild to be gone")


def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    broken = ManagedProcess(
        "broken",
        [sys.executable, "-S", "-c", "raise SystemExit('no disk today')"],
        log=tmp_path / "broken.log",
        ready=lambda: False,
        ready_within=30,
    )
    with pytest.raises(ServerDidNotStart) as failure:
        broken.start()
    assert "ended with status 1" in str(failure.value)
    assert "no disk today" in str(failure.value)
    assert str(tmp_path / "broken.log") in str(failure.value)


def test_one_that_is_never_ready_is_killed_and_named(tmp_path: Path) -> None:
    dreamer = ManagedProcess("dreamer", SLEEPER, log=tmp_path / "d.log", ready=lambda: False, ready_within=0.2)
    with pytest.raises(ServerDidNotStart, match=r"waited 0\.2 s for dreamer to be ready"):
        dreamer.start()
    assert not dreamer.alive()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerDidNotStart, match=r"nowhere did not start.*no-such-program"):
        ManagedProcess("nowhere", ["no-such-program"], log=tmp_path / "n.log").start()


def test_a_second_start_reads_only_its_own_log(tmp_path: Path) -> None:
    sleeper = awake("sleeper", SLEEPER, tmp_path)
    first = sleeper.pid
    sleeper.kill9()
    sleeper.start()
    assert sleeper.pid != first
    assert sleeper.log_text().count("awake") == 1
    assert sleeper.log.read_text().count("awake") == 2
    sleeper.kill9()


def test_environment_and_folder_reach_the_process(tmp_path: Path) -> None:
    asker = ManagedProcess(
        "asker",
        [sys.executable, "-S", "-c", "import os; print(os.environ['WHO'], os.getcwd())"],
        log=tmp_path / "asker.log",
        env={"WHO": "mill"},
        cwd=tmp_path,
    )
    asker.launch()
    assert asker.wait(within=30) == 0
    assert asker.log_text().split() == ["mill", str(tmp_path)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_children_die_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from concurrent.futures import ThreadPoolExecutor; from pathlib import Path\n"
        "from millstream.testing.process import ManagedProcess\n"
        f"process = ManagedProcess('child', {SLEEPER!r}, log=Path({str(tmp_path / 'child.log')!r}))\n"
        "with ThreadPoolExecutor(1) as pool: pool.submit(process.launch).result()\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child), "it outlives the thread that started it"
        parent.kill()
    wait_until(lambda: gone(child), within=30, what="the orphan to be gone")


def test_waiting_in_vain_names_what_for() -> None:
    with pytest.raises(WaitedTooLong, match=r"waited 0\.1 s for the tide, in vain"):
        wait_until(lambda: False, within=0.1, what="the tide")


def test_a_taken_port_says_what_to_set() -> None:
    with socket.socket() as squatter:
        squatter.bind((HOST, 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken: .* set ingest.port to a free port"):
            claim(port, "ingest.port")


def test_free_ports_differ_and_lie_below_the_ephemeral_range() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) == 20
    assert max(ports) < 32_768


def test_the_workers_of_a_session_find_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[set[int]] = []
    for worker in ("gw0", "gw1", "gw7"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        found.append({free_port() for _ in range(50)})
    assert max(found[0]) < min(found[1]) < max(found[1]) < min(found[2])
