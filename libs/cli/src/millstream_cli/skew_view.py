"""How a skew comparison looks: a table of the worst rows, and under it what explains each of them."""

from __future__ import annotations

from math import isfinite
from typing import Any

from rich.console import Console
from rich.text import Text

from millstream.contracts.times import to_rfc3339
from millstream.project.phrases import percent_to_text
from millstream_cli.skew import Found, Row, told
from millstream_tiles.explain import Tile
from millstream_tiles.recount import Value

MOST_TILES = 3
MOST_EVENTS = 5
"""Of a row: more do not make it clearer, and --json has them all."""


def show(found: Found, console: Console) -> None:
    """The table and its causes; one line when all is well."""
    values = sum(sum(one.values.values()) for one in found.checked)
    bound = found.loop.drift.skew.bound
    if found.warning:
        console.print(f"[yellow]the lake is behind, so differences may be what it lacks:[/yellow] {found.warning}")
    if not found.checked:
        console.print(f"{found.loop.name}: no prediction to check")
        return
    console.print(
        f"{found.loop.name}: {found.differing:,} of {len(found.checked):,} predictions differ "
        f"({found.differing / len(found.checked):.2%}, {percent_to_text(bound)} may); "
        f"{len(found.differences):,} of {values:,} values",
        style="red" if found.over else "green",
        highlight=False,
    )
    if not found.rows:
        return
    for place, row in enumerate(found.rows, 1):
        one = row.difference
        key = ", ".join(f"{k}={v}" for k, v in zip(row.explained.view.keys, row.explained.key, strict=True))
        said = {"online": one.online, "offline": one.offline, "recount": row.recounted}
        lines = [
            f"{place}. {one.feature} of {key}, in {row.alike:,} prediction{'' if row.alike == 1 else 's'}; most in "
            f"{one.logged.question}, asked {to_rfc3339(one.logged.asked_at)}",
            "   ".join(
                ["", *(f"{name} {figure(value)}" for name, value in said.items()), f"apart {_apart(one.apart)}"]
            ),
            *(f"   {line}" for line in causes(row)),
        ]
        for number, line in enumerate(lines):
            console.print(Text(line), style="" if number else "bold", soft_wrap=True)
    shown = sum(row.alike for row in found.rows)
    if len(found.differences) > shown:
        console.print(f"and {len(found.differences) - shown:,} more values; --rows shows them", style="dim")


def _apart(value: float) -> str:
    return figure(value) if isfinite(value) else "all: one of them has no value"


def causes(row: Row) -> list[str]:
    """What explains a row, a line each."""
    id_field = row.explained.view.event_id
    lines = []
    for event in row.lost[:MOST_EVENTS]:
        lines.append(f"in the topic, not in the lake: {_event(told(event, id_field))}")
    guess = row.explanation.guess
    events = row.explanation.events
    if not events and not row.tiles:  # a tile that lies says it better
        lines.append(guess.value)
    elif events:
        shown = "; ".join(_event(told(event, id_field)) for event in events[:MOST_EVENTS])
        more = f" and {len(events) - MOST_EVENTS} more" if len(events) > MOST_EVENTS else ""
        lines.append(f"{guess.value}: {shown}{more}")
    for tile in row.tiles[:MOST_TILES]:
        count = len(tile.events)
        lines.append(
            f"tile {to_rfc3339(tile.start)} to {to_rfc3339(tile.end)}: {holds(tile, 0)} in the online store, "
            f"{holds(tile, 1)} by the {count} event{'' if count == 1 else 's'} in the lake"
        )
    if len(row.tiles) > MOST_TILES:
        lines.append(f"and {len(row.tiles) - MOST_TILES} more tiles")
    if not row.explained.held:
        lines.append("the online store has dropped tiles of then; those that are left were compared")
    return lines


def report(found: Found) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "loop": found.loop.name,
        "checked": len(found.checked),
        "values": sum(sum(one.values.values()) for one in found.checked),
        "differing": found.differing,
        "values_differing": len(found.differences),
        "bound": found.loop.drift.skew.bound,
        "kept": not found.over,
        "warning": found.warning,
        "rows": [_row(row) for row in found.rows],
    }


def figure(value: Value) -> str:
    """A number as a table has it; a dash for null."""
    if isinstance(value, list):
        return f"[{', '.join(map(figure, value))}]"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def holds(tile: Tile, side: int) -> str:
    """What a tile says online (0) or by its events (1); of a mean its sum, too."""
    value = tile.by_now if side else tile.online
    return figure(value) if tile.sums is None else f"{figure(value)} (sum {figure(tile.sums[side])})"


def _row(row: Row) -> dict[str, Any]:
    one, id_field = row.difference, row.explained.view.event_id
    return {
        "prediction": one.logged.id,
        "question": one.logged.question,
        "asked_at": to_rfc3339(one.logged.asked_at),
        "feature": one.feature,
        "predictions": row.alike,
        "key": dict(zip(row.explained.view.keys, row.explained.key, strict=True)),
        "online": one.online,
        "offline": one.offline,
        "recounted": row.recounted,
        "difference": None if one.apart == float("inf") else one.apart,
        "explanation": row.explanation.guess.name.lower(),
        "events": [told(event, id_field) for event in row.explanation.events],
        "lost": [told(event, id_field) for event in row.lost],
        "tiles": [
            {
                "start": to_rfc3339(tile.start),
                "end": to_rfc3339(tile.end),
                "online": tile.online,
                "by_events": tile.by_now,
                "sums": tile.sums,
                "events": [told(m.event, id_field) | {"fate": m.fate.value} for m in tile.events],
            }
            for tile in row.tiles
        ],
        "causes": causes(row),
    }


def _event(event: dict[str, Any]) -> str:
    name = f"{event['id']} " if event["id"] is not None else ""
    return f"{name}at {event['time']}, known {event['known_at']} (partition {event['partition']}, offset {event['offset']})"
