"""`millstream register`: a graph and what a person says of it, sent to the trainer; and manifests that are mended first."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.json_text import read_json
from millstream_cli.errors import CommandFailed
from millstream_cli.given import read_manifest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("inputs: [distance]", "learned_until: Field required; write it like this"),
        ("learned_until: 2013-05-01T00:00:00", "learned_until: Input should have timezone info"),
        ("learned_until: 2013-05-01", "learned_until"),
        ("learned_until: 2013-05-01T00:00:00Z\nepochs: 3", "epochs: Extra inputs are not permitted"),
        ("learned_until: 2013-05-01T00:00:00Z\ninputs: distance", "inputs: Input should be a valid list"),
        ("- a list", "is no manifest; write it like this"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_manifest_that_is_none_says_what_to_write(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(text)
    with pytest.raises(CommandFailed, match=why) as caught:
        read_manifest(file)
    assert str(file) in str(caught.value)


def test_graph_and_manifest_reach_the_trainer(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = []

    class Trainer(BaseHTTPRequestHandler):
        def _take(self, status: int, answer: str) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.command, self.path, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def do_PUT(self) -> None:
            self._take(200, '{"model": "%s"}' % hashlib.sha256(b"a graph").hexdigest())  # noqa: UP031

        def do_POST(self) -> None:
            self._take(202, '{"request": "r1"}')

        def log_message(self, *said: Any) -> None: ...

    (tmp_path / "net.onnx").write_bytes(b"a graph")
    (tmp_path / "net.yaml").write_text(
        "learned_until: 2013-05-01T00:00:00Z\ninputs: [distance, scheduled_minute]\noutput: probabilities\n"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Trainer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, "-m", "millstream_cli.main", "register", "flight-delay", "--onnx", "net.onnx"]
        command += ["--manifest", "net.yaml", "--reason", "the notebook", "--by", "Ada", "--no-wait"]
        command += ["--trainer", f"http://127.0.0.1:{server.server_port}"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
    assert (found.returncode, found.stdout) == (0, "request r1 was taken\n"), found.stderr
    (first, second) = asked
    assert first == ("PUT", "/v1/loops/flight-delay/given", b"a graph")
    assert second[:2] == ("POST", "/v1/loops/flight-delay/register")
    assert read_json(second[2]) == {
        "by": "Ada",
        "reason": "the notebook",
        "model": hashlib.sha256(b"a graph").hexdigest(),
        "learned_until": "2013-05-01T00:00:00Z",
        "inputs": ["distance", "scheduled_minute"],
        "output": "probabilities",
        "classes": [],
    }
