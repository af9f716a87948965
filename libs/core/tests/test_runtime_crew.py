"""Several workers behind one port: they share what comes, and one that ends, hangs or cannot start is seen to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from millstream.runtime.crew import MOST_RESTARTS, CrewSettings, cores
from millstream.testing.ports import free_port
from millstream.testing.waiting import wait_until

SCRIPT = Path(__file__).with_name("crew_service.py")


class Crew:
    """The processes under a test's hand."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> httpx.Response:
        """Over a connection of its own, so that any worker may take it."""
        return httpx.get(f"{self.url}{path}", timeout=20)

    def who(self) -> dict[str, int]:
        """Instance and process id of all workers, asked until each has answered."""
        found: dict[str, int] = {}

        def all_answered() -> bool:
            with suppress(httpx.TransportError):
                said = self.get("/who").json()
                found[said["instance"]] = said["pid"]
            return len(found) == 2

        wait_until(all_answered, within=60, what="both workers to answer")
        return found

    def metrics(self) -> str:
        """Of all workers: one that did not answer within its seconds is left out, and asked again here."""
        text = ""

        def all_told() -> bool:
            nonlocal text
            text = self.get("/metrics").text
            return sample(text, "crew_asked_total").keys() == {"0", "1"}

        wait_until(all_told, within=60, what="the metrics of both workers")
        return text

    def end(self) -> tuple[int, str]:
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@contextmanager
def crew(tmp_path: Path, does: str = "") -> Iterator[Crew]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env=os.environ
        | {
            "MILLSTREAM_WORKERS": "2",
            "MILLSTREAM_KAFKA": f"127.0.0.1:{free_port()}",
            "MILLSTREAM_PORT": str(port),
            "MILLSTREAM_INSTANCE": "east",
            "MILLSTREAM_DRAIN_TIMEOUT": "5",
            "CREW_DOES": does,
            "CREW_HOLD": str(tmp_path / "hold"),
            "TMPDIR": str(tmp_path),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Crew(process, port)
    finally:
        process.kill()  # its workers see that, and end
        process.communicate()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan that ended waits for init, which in some containers never comes for it.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def sample(text: str, name: str) -> dict[str, float]:
    """Worker → value."""
    return {
        one.labels["worker"]: one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name
    }


def test_workers_share_a_port_and_any_of_them_answers_for_all(tmp_path: Path) -> None:
    with crew(tmp_path) as made:
        who = made.who()
        assert who.keys() == {"east-0", "east-1"}
        assert len(set(who.values())) == 2
        before = sum(sample(made.metrics(), "crew_asked_total").values())
        for _ in range(20):
            made.get("/who")
        metrics = made.metrics()
        asked = sample(metrics, "crew_asked_total")
        assert sum(asked.values()) - before == 20, "none twice, none forgotten"
        assert sum(sample(metrics, "crew_seconds_count").values()) == sum(asked.values())
        assert metrics.count("# TYPE crew_seconds histogram") == 1, "one family each, or Prometheus refuses it"
        assert 'crew_seconds_bucket{kind="who",le="1.0",worker="1"}' in metrics
        missing = {"worker 0: kafka", "worker 1: kafka"}
        wait_until(
            lambda: (ready := made.get("/readyz")).status_code == 503 and ready.json()["missing"].keys() == missing,
            within=60,
            what="both workers to say that they have no Kafka",
        )
        alive = {"alive": True, "reasons": []}
        wait_until(lambda: made.get("/livez").json() == alive, within=60, what="both workers to be alive")

        made.process.terminate()
        code, log = made.end()
        assert code == 0, log
        assert {json.loads(line).get("worker") for line in log.splitlines()} == {None, 0, 1}, (
            "each line says whose it is"
        )
        assert all(gone(pid) for pid in who.values())
        assert not list(tmp_path.iterdir()), "nothing is left of their doors"


def test_a_worker_that_is_killed_stands_again_in_its_place(tmp_path: Path) -> None:
    with crew(tmp_path) as made:
        before = made.who()
        (tmp_path / "hold").touch()  # who follows does not answer before it is told
        os.kill(before["east-0"], signal.SIGKILL)
        wait_until(lambda: gone(before["east-0"]), within=30, what="the end of the worker")
        replies = [made.get("/who") for _ in range(10)]
        assert {reply.json()["pid"] for reply in replies} == {before["east-1"]}, "the other takes all meanwhile"
        assert "worker 0" in made.get("/readyz").json()["missing"]
        # That one starts is no reason to restart all.
        wait_until(lambda: made.get("/livez").status_code == 200, within=60, what="the crew to be called alive")
        (tmp_path / "hold").unlink()
        wait_until(lambda: made.who()["east-0"] != before["east-0"], within=60, what="the worker to start again")
        assert made.who()["east-1"] == before["east-1"]


def test_a_worker_that_hangs_is_named(tmp_path: Path) -> None:
    with crew(tmp_path) as made:
        who = made.who()
        os.kill(who["east-1"], signal.SIGSTOP)
        try:
            # What it took before it stopped it answers never; who asks again finds the other.
            alive = asked(made, "/livez")
            assert (alive.status_code, alive.json()["reasons"]) == (503, ["worker 1: it did not answer within 3 s"])
        finally:
            os.kill(who["east-1"], signal.SIGCONT)
        wait_until(lambda: asked(made, "/livez").status_code == 200, within=60, what="it to go on")


def asked(made: Crew, path: str) -> httpx.Response:
    for _ in range(10):
        with suppress(httpx.ReadTimeout):
            return httpx.get(f"{made.url}{path}", timeout=6)
    raise AssertionError("nobody answers")


def test_workers_end_with_their_leader_however_it_ends(tmp_path: Path) -> None:
    with crew(tmp_path) as made:
        who = made.who()
        made.process.kill()
        wait_until(lambda: all(gone(pid) for pid in who.values()), within=30, what="the workers to end")


@pytest.mark.parametrize(
    ("does", "code", "starts", "said"),
    [
        ("bad setup", 2, 2, "loops/flight-delay.yaml:7: no such feature"),
        ("crash", 1, MOST_RESTARTS + 2, "that ended within 60 s"),
    ],
)
def test_what_cannot_run_ends_as_a_whole(tmp_path: Path, does: str, code: int, starts: int, said: str) -> None:
    began = time.monotonic()
    with crew(tmp_path, does) as made:
        ended, log = made.end()
    assert (ended, said in log) == (code, True), log
    tried = log.count("loops/flight-delay.yaml:7" if code == 2 else "ZeroDivisionError: a bug")
    assert 1 <= tried <= starts, "it is not tried for ever"
    assert time.monotonic() - began < 60


def quota(folder: Path, text: str) -> Path:
    file = folder / "cpu.max"
    file.write_text(text)
    return file


def test_auto_takes_no_more_cores_than_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cores(quota(tmp_path, "250000 100000\n")) == 3
    assert cores(quota(tmp_path, "50000 100000\n")) == 1
    assert cores(quota(tmp_path, "max 100000\n")) == 8
    assert cores(tmp_path / "none") == 8
    monkeypatch.setattr("millstream.runtime.crew.cores", lambda: 8)
    assert CrewSettings(workers="auto").crew() == 8
    assert CrewSettings(workers=3).crew() == 3
