"""`millstream check --against`: a change of a schema is held against a git ref, a folder, an ingest, and kept versions."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from millstream.project import BadProject, load_project
from millstream.project.versions import keep, versions_of
from millstream_cli.against import streams_at
from millstream_cli.check import check
from millstream_cli.errors import CommandFailed

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"
LANDED = "streams/flights-landed.yaml"


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "flights", ignore=shutil.ignore_patterns("data", "__pycache__")))


def replace(project: Path, right: str, wrong: str) -> None:
    text = (project / LANDED).read_text()
    assert text.count(right) == 1, text
    (project / LANDED).write_text(text.replace(right, wrong))


def problems(project: Path, capsys: pytest.CaptureFixture[str], against: str | None = None) -> list[dict[str, Any]]:
    code = check(project, as_json=True, against=against)
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["ok"] else 2)
    return list(said["problems"])


def break_it(project: Path) -> None:
    """dep_delay was a number or nothing."""
    text = (project / LANDED).read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("dep_delay:"))
    (project / LANDED).write_text(text.replace(line, line.split(":")[0] + ": {type: string}"))


def test_a_folder_tells_each_field_with_its_line(
    flights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problems(flights, capsys, str(EXAMPLE)) == []
    break_it(flights)

    [problem] = problems(flights, capsys, str(EXAMPLE))
    lines = (flights / LANDED).read_text().splitlines()
    assert lines[problem["line"] - 1].strip().startswith("dep_delay:")
    assert (problem["file"], problem["path"]) == (LANDED, "schema.properties.dep_delay")
    assert "/dep_delay: was" in problem["message"]
    assert "not backward compatible: events that were written before are refused now" in problem["message"]
    assert "or give what is new a name of its own" in problem["remedy"]
    assert check(flights, against=str(EXAMPLE)) == 2
    assert "flights-landed.yaml" in capsys.readouterr().out


def test_a_git_ref_is_compared_with_what_is_not_committed_yet(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=flights, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "flights")
    assert problems(flights, capsys, "main") == []
    break_it(flights)
    assert [one["path"] for one in problems(flights, capsys, "HEAD")] == ["schema.properties.dep_delay"]
    (flights / LANDED).unlink()
    with pytest.raises(CommandFailed, match="'nowhere' is no folder, and git has no such streams"):
        check(EXAMPLE, against="nowhere")
    with pytest.raises(CommandFailed, match="'--output=x' is no folder"):
        check(EXAMPLE, against="--output=x")


class Gateway(BaseHTTPRequestHandler):
    """Before an ingest: nobody reads without the key."""

    def do_GET(self) -> None:
        known = self.headers["authorization"] == "Bearer ms_ada"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b'{"streams": []}')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_ingest_behind_a_gateway_is_shown_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        monkeypatch.setenv("MILLSTREAM_KEY", "ms_ada")
        assert streams_at(url, EXAMPLE) == {}
        for wrong in ("ms_bob", ""):
            monkeypatch.setenv("MILLSTREAM_KEY", wrong)
            with pytest.raises(CommandFailed, match=r"/v1/streams \(401\); give a key that may in MILLSTREAM_KEY"):
                streams_at(url, EXAMPLE)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_stream_that_is_gone_is_told(flights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = flights / "streams" / "gates.yaml"
    shutil.copytree(flights, tmp_path / "before")
    text = (flights / LANDED).read_text().replace("stream: flights-landed", "stream: gates-closed")
    (tmp_path / "before" / "streams" / more.name).write_text(text)

    [problem] = problems(flights, capsys, str(tmp_path / "before"))
    assert problem["message"].startswith("gates-closed is gone")


def test_kept_versions_are_held_to_without_asking(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landed = load_project(flights).streams["flights-landed"]
    assert keep(flights, landed) == flights / "streams" / "flights-landed.v1.json"
    assert keep(flights, landed) is None, "the last version says the same"
    there = versions_of(flights, load_project(flights).streams)["flights-landed"]
    assert (there.newest, list(there.kept)) == (1, [1])
    assert problems(flights, capsys) == []

    break_it(flights)
    [problem] = problems(flights, capsys)
    assert problem["message"].startswith("against version 1: /dep_delay: was")
    there = versions_of(flights, load_project(flights).streams)["flights-landed"]
    assert there.newest == 2
    replace(flights, "stream: flights-landed\n", "stream: flights-landed\ncompatibility: none\n")
    assert problems(flights, capsys) == []

    (flights / "streams" / "flights-landed.v1.json").write_text('{"type": "object"')
    [problem] = problems(flights, capsys)
    assert problem["file"] == "streams/flights-landed.v1.json"
    with pytest.raises(BadProject, match="not JSON"):
        versions_of(flights, load_project(flights).streams)
