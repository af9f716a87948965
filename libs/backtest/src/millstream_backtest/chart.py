"""Loss by month, a line for each policy, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from millstream_backtest.figures import Figures


def draw(found: Sequence[Figures], path: Path) -> None:
    """Raises OSError where `path` cannot be written."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    months = sorted({month.month for one in found for month in one.months})
    for one in found:
        places = [months.index(month.month) for month in one.months]
        name = one.policy if one.loss is None else f"{one.policy} ({one.loss:.4f})"
        axes.plot(places, [month.loss for month in one.months], marker="o", label=name)
    axes.set_xticks(range(len(months)), months, rotation=45, ha="right")
    axes.set_ylabel("mean loss of the answers")
    axes.set_title("Loss by month of the question")
    axes.grid(alpha=0.3)
    if found:
        axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
