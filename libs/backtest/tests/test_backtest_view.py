"""What the table of a backtest says of policies beside each other."""

from __future__ import annotations

from typing import Any

from millstream_backtest.figures import Figures
from millstream_backtest.view import COLUMNS, table, unlike


def figures(policy: str, scored: int, loss: float | None) -> Figures:
    zeros: dict[str, Any] = dict.fromkeys(Figures.__struct_fields__, 0)
    lists: dict[str, Any] = {"months": [], "promoted": [], "timeline": []}
    return Figures(**zeros | lists | {"policy": policy, "scored": scored, "loss": loss})


def bold(found: list[Figures]) -> list[str]:
    cells = table(found).columns[COLUMNS.index("loss") + 1].cells
    return [str(cell) for cell in cells if "[bold]" in str(cell)]


def test_the_smallest_loss_over_the_same_questions_is_marked() -> None:
    alike = [figures("as it is", 18706, 0.31), figures("often", 18706, 0.29), figures("never", 0, None)]
    assert (unlike(alike), bold(alike)) == ("", ["[bold]0.29000[/bold]"])
    assert bold(alike[:1]) == [], "beside nobody"


def test_losses_over_different_questions_are_not_compared() -> None:
    found = [figures("as it is", 18706, 0.31), figures("within", 18158, 0.27)]
    assert "scored were as it is 18,706, within 18,158." in unlike(found)
    assert bold(found) == []
