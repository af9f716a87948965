"""Small charts: bars of characters for a terminal, SVG for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from millstream_cli.page import el

EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH, HEIGHT = 640.0, 180.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 8.0, 10.0, 26.0
MOST_POINTS = 400
"""More bars than pixels tell nothing; the newest are kept."""
GOOD, BAD, WARN, BLUE = "var(--good)", "var(--bad)", "var(--warn)", "var(--blue)"


def bar(value: float, largest: float, width: int) -> str:
    """`value` as a bar of at most `width` characters; nothing for what is not above 0."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = round(min(1.0, value / largest) * width * 8)
    whole, rest = divmod(eighths, 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")


def between(low: float, middle: float, high: float, scale: float, width: int) -> str:
    """An interval around zero as text: `──●──` beside `│`; `scale` is what reaches the edge."""
    half = width // 2

    def place(value: float) -> int:
        return min(width - 1, max(0, half + round(value / scale * half))) if scale > 0 else half

    line = [" "] * width
    for n in range(place(low), place(high) + 1):
        line[n] = "─"
    line[half] = "│"
    line[place(middle)] = "●"
    return "".join(line)


def span(low: float | None, middle: float, high: float | None, edges: tuple[float, float], width: int) -> str:
    """A value with its interval as text, within the edges of all that are shown: `  ──●──`."""
    start, end = edges

    def place(value: float) -> int:
        share = (value - start) / (end - start) if end > start else 0.5
        return min(width - 1, max(0, round(share * (width - 1))))

    line = [" "] * width
    if low is not None and high is not None:
        for n in range(place(low), place(high) + 1):
            line[n] = "─"
    line[place(middle)] = "●"
    return "".join(line)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One window or look."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    color: str = BLUE
    title: str = ""


def bars(points: Sequence[Point], name: str) -> ET.Element:
    """A bar a window, from zero."""
    shown = points[-MOST_POINTS:]
    scale = _Scale([0.0, *(p.value for p in shown)])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(shown))
    zero = scale.y(0.0)
    marks = []
    for n, p in enumerate(shown):
        top = min(zero, scale.y(p.value))
        marks.append(
            el(
                "rect",
                el("title", p.title or f"{p.label}: {p.value:.4g}"),
                x=LEFT + n * step + step * 0.1,
                y=top,
                width=max(1.0, step * 0.8),
                height=max(1.0, abs(zero - scale.y(p.value))),
                fill=p.color,
            )
        )
    return _framed(name, scale, shown, marks)


def line(series: Sequence[Sequence[Point]], name: str, *, zero: bool = False, mark: str = "") -> ET.Element:
    """A dot a window with its interval, one line a series, the series one after the other.

    `zero` draws where no difference is; `mark` stands where the second series begins, if there is one.
    """
    shown = [p for points in series for p in points][-MOST_POINTS:]
    values = [v for p in shown for v in (p.value, p.low, p.high) if v is not None]
    scale = _Scale([*values, *([0.0] if zero else [])])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(shown))
    marks: list[ET.Element] = []
    if zero:
        y = scale.y(0.0)
        marks.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke="var(--dim)", stroke_dasharray="4 4"))
    places = [(LEFT + (n + 0.5) * step, scale.y(p.value)) for n, p in enumerate(shown)]
    end = len(shown)
    for number, points in reversed(list(enumerate(series))):
        begin = max(0, end - len(points))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places[begin:end])
        marks.append(el("polyline", points=path, fill="none", stroke="var(--line)", stroke_width=2))
        if number == 1 and mark and begin:
            x = LEFT + begin * step
            marks.append(el("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke=GOOD, stroke_width=2))
            marks.append(el("text", mark, x=x, y=TOP - 1, text_anchor="middle"))
        end = begin
    for (x, y), p in zip(places, shown, strict=True):
        if p.low is not None and p.high is not None:
            marks.append(el("line", x1=x, x2=x, y1=scale.y(p.low), y2=scale.y(p.high), stroke=p.color, stroke_width=2))
        marks.append(el("circle", el("title", p.title or f"{p.label}: {p.value:.4g}"), cx=x, cy=y, r=4, fill=p.color))
    return _framed(name, scale, shown, marks)


class _Scale:
    """Values to heights."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low, self.high = min(values, default=0.0), max(values, default=1.0)
        if self.low == self.high:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)


def _framed(name: str, scale: _Scale, points: Sequence[Point], marks: Sequence[ET.Element]) -> ET.Element:
    ends = [points[0], points[-1]] if len(points) > 1 else list(points)
    texts = [
        el("text", f"{scale.high:.3g}", x=LEFT - 6, y=TOP + 4, text_anchor="end"),
        el("text", f"{scale.low:.3g}", x=LEFT - 6, y=HEIGHT - BOTTOM + 4, text_anchor="end"),
        *(
            el("text", p.label, x=x, y=HEIGHT - 6, text_anchor=anchor)
            for p, x, anchor in zip(ends, (LEFT, WIDTH - RIGHT), ("start", "end"), strict=False)
        ),
    ]
    return el("svg", *marks, *texts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=name)
