"""A page that stands by itself: HTML with its style inside, nothing fetched, readable on a phone.

Built as a tree of elements, so whatever an event says is text and never markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import category
from xml.etree import ElementTree as ET

Child = ET.Element | str

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --line: #d7dce3; --paper: #ffffff; --good: #187a4b;
  --bad: #b3261e; --warn: #a15c00; --blue: #2458a6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --dim: #98a2b3; --line: #3a4252; --paper: #12161d;
  --good: #4cc38a; --bad: #ff8a80; --warn: #ffb454; --blue: #7fb0ff } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.4rem; margin: 0.5rem 0 } h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem }
.dim { color: var(--dim) } .good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 500; color: var(--dim) } td, th { padding: 0.25rem 0.75rem 0.25rem 0; vertical-align: top;
  overflow-wrap: break-word; border-bottom: 1px solid var(--line) } td.n, th.n { text-align: right }
ol.time { list-style: none; margin: 0; padding: 0 0 0 1rem; border-left: 2px solid var(--line) } ol.time li { margin: 0 0 1rem }
ol.time ul { margin: 0.25rem 0; padding-left: 1.1rem } svg { width: 100%; height: auto; display: block }
svg text { fill: var(--dim); font: 12px system-ui, sans-serif }
"""


def el(tag: str, *children: Child | None, **attributes: str | float | None) -> ET.Element:
    """An element. `class_` is class, and an underscore in a name a dash; None is left out."""
    said = {
        k.rstrip("_").replace("_", "-"): f"{v:g}" if isinstance(v, float) else str(v)
        for k, v in attributes.items()
        if v is not None
    }
    element = ET.Element(tag, said)
    last: ET.Element | None = None
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            if last is None:
                element.text = (element.text or "") + clean(child)
            else:
                last.tail = (last.tail or "") + clean(child)
        else:
            element.append(child)
            last = child
    return element


def clean(text: str) -> str:
    """Without the control characters and lone surrogates that no page may hold."""
    return "".join(c for c in text if c in "\n\t" or category(c) not in ("Cc", "Cs"))


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], numbers: Sequence[int] = ()) -> ET.Element:
    """A table that scrolls by itself on a narrow screen; the columns in `numbers` are set right."""

    def cells(tag: str, row: Sequence[Child]) -> list[ET.Element]:
        return [el(tag, one, class_="n" if n in numbers else None) for n, one in enumerate(row)]

    return el(
        "div",
        el(
            "table",
            el("thead", el("tr", *cells("th", head))),
            el("tbody", *(el("tr", *cells("td", row)) for row in rows)),
        ),
        class_="scroll",
    )


def html(title: str, *body: Child | None) -> str:
    """The whole page."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
    )
    style = el("style")
    style.text = STYLE  # as it is: method="html" leaves style alone
    head.append(style)
    root = el("html", head, el("body", el("main", *body)), lang="en")
    return "<!doctype html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def write(path: Path, text: str) -> None:
    """Write a page, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
