"""What `millstream dlq show` prints of letters that strangers wrote: never what moves a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.contracts.dead_letters import DeadLetter
from millstream_cli import dlq_commands
from millstream_cli.dlq import shown

WILD = "\x1b[2J\x7f\u202e"


@pytest.mark.parametrize("field", ["topic", "group", "reason", "detail", "key", "value", "id"])
def test_a_letter_cannot_write_on_the_screen(
    field: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain: dict[str, Any] = {"topic": "t", "group": "g", "reason": "schema", "detail": "d"}
    letter = DeadLetter(
        dead_letter_topic="t-g-dlq",
        partition=0,
        offset=1,
        buried_at=0,
        source_partition=0,
        source_offset=5,
        source_timestamp=0,
        cut=False,
        key=WILD.encode() if field == "key" else b"k",
        value=WILD.encode() if field == "value" else b"{}",
        headers=[("ce_id", WILD.encode() if field == "id" else b"i")],
        **plain | ({field: WILD} if field in plain else {}),
    )
    monkeypatch.setattr(dlq_commands, "_with_log", lambda bootstrap, work: [shown(letter, was_replayed=False)])

    dlq_commands.show("t", kafka="nowhere:9092")

    said = capsys.readouterr().out
    assert "was at 0:5" in said
    assert all(letter.isprintable() for letter in said.replace("\n", ""))
