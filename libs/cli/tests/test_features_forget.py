"""`millstream features forget`: what it says to a script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from millstream.project import load_project
from millstream_cli import features
from millstream_cli.place import Place

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


async def test_forgetting_says_json_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def forgotten(generations: object, name: str) -> int:
        return 42

    monkeypatch.setattr(features, "forget_view", forgotten)  # what it frees is `libs/tiles/tests/test_rebuild.py`
    place = Place(project=FLIGHTS, kafka="", valkey="redis://127.0.0.1:1/0", lake="", namespace="millstream")
    await features.Features(place, load_project(FLIGHTS)).forget("spend_v1", Console(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"view": "spend_v1", "keys_removed": 42}
