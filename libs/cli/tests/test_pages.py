"""Pages that stand by themselves: valid HTML, the numbers in it, nothing fetched."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from millstream.contracts.events import BrokenField, Decision, Finding, GateCheck, TrainingFinished
from millstream_cli import incident_page, report_page
from millstream_cli.charts import Point, bar, bars, between, line, span
from millstream_cli.journal import Told
from millstream_cli.loop_events import loop_of
from millstream_cli.loop_report import report_of
from millstream_cli.page import clean, el, html
from millstream_cli.why import pick

from .made_events import LOOP, Journal, first_model, promoted

VOID = {"meta", "br", "hr", "img", "input", "link"}
ONLY_IN = {"li": {"ol", "ul"}, "tr": {"thead", "tbody"}, "td": {"tr"}, "th": {"tr"}, "rect": {"svg"}, "circle": {"svg"}}
NOT_IN_P = {"div", "table", "ul", "ol", "h1", "h2", "p", "svg", "section"}


class Checker(HTMLParser):
    """Balanced tags, children where they may be, unique ids, and no address anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.doctype = ""

    def handle_decl(self, decl: str) -> None:
        self.doctype = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        parent = self.open[-1] if self.open else ""
        assert parent in ONLY_IN.get(tag, {parent}), f"{tag} in {parent}"
        assert not ("p" in self.open and tag in NOT_IN_P), f"{tag} inside p"
        for name, value in attrs:
            assert name not in ("href", "src", "srcset", "onclick", "onload"), name
            assert value is not None, name
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.doctype == "doctype html"
    assert checker.tags[:2] == ["html", "head"]
    assert checker.tags.count("title") >= 1
    assert "script" not in checker.tags
    assert not re.search(r"https?:|url\(|@import", page)
    assert 'name="viewport"' in page
    return checker


def story() -> Journal:
    journal = Journal()
    promoted(journal)
    journal.performance(18, 0.44, "2")
    journal.window(19, Finding.CLEARED, 0.02, "2", about="inputs-1-10")
    return journal


def test_an_incident_s_page_is_valid_and_carries_its_numbers() -> None:
    loop = loop_of(story().told, LOOP)
    page = checked(incident_page.page_of(loop, pick(loop, None)))
    for said in ("drift in the inputs of version 1", "45,123 rows", "canary 10%", "1,500 pairs", "decided-inputs-1-10"):
        assert said in page.text, said
    assert "0.3100, detected" in page.text
    assert page.tags.count("svg") == 2, "the windows and the trial"
    assert page.tags.count("circle") == 2, "one a look"


def test_a_page_draws_trial_and_watch_as_two_lines_with_the_promotion_between_them() -> None:
    journal = story()
    journal.judged(15.5, 150, -0.01, watch=True)
    journal.judged(16, 200, -0.015, watch=True)
    loop = loop_of(journal.told, LOOP)
    page = checked(incident_page.page_of(loop, pick(loop, None)))
    assert (page.tags.count("polyline"), page.tags.count("circle")) == (2, 4)
    assert "promoted 2013-06-16" in page.text
    assert "on trial: better after 1,500 pairs" in page.text
    assert "on watch: undecided after 200 pairs" in page.text


def test_the_gate_is_told_in_one_form() -> None:
    journal = story()
    size = GateCheck(
        name="package_size", passed=True, champion=None, challenger=867792.0, detail="0.87 MB, at most 67 MB"
    )
    for n, one in enumerate(journal.told):
        if isinstance(one.event, TrainingFinished):
            journal.told[n] = Told(one.id, one.caused_by, replace(one.event, gate=[*one.event.gate, size]))
    loop = loop_of(journal.told, LOOP)
    page = checked(incident_page.page_of(loop, pick(loop, None)))
    assert "package size" in page.text
    assert "0.87 MB, at most 67 MB" in page.text
    assert "867792" not in page.text


def test_a_report_s_page_is_valid_and_carries_its_numbers() -> None:
    loop = loop_of(story().told, LOOP)
    page = checked(report_page.page_of(report_of(loop, timedelta(days=30))))
    for said in ("Nothing needs you", "version 2", "log loss 0.4750", "promoted (version 2); cleared with version 2"):
        assert said in page.text, said
    assert page.tags.count("circle") == 4, "one a window of labels"


def test_every_incident_of_a_report_has_a_page() -> None:
    loop = loop_of(story().told, LOOP)
    for incident in loop.incidents:
        checked(incident_page.page_of(loop, incident))


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=1>', "&lt;b&gt; & </p>", "a\x00b\x1b[31m\ud800"]
)
def test_what_an_event_says_is_text_and_never_markup(evil: str) -> None:
    journal = Journal()
    first_model(journal)
    broken = BrokenField(column=evil, stream=evil, field=evil, producer=evil, detail=evil)
    window = journal.window(8, Finding.BROKEN_DATA, 0.9, broken=[broken], reason=evil)
    journal.decided(8, window, Decision.DECLINED, reason=evil)
    loop = loop_of(journal.told, LOOP)
    for page in (
        incident_page.page_of(loop, pick(loop, None)),
        report_page.page_of(report_of(loop, timedelta(days=30))),
    ):
        page.encode()
        assert clean(evil) in checked(page).text


def test_text_keeps_its_place_between_elements() -> None:
    page = html("t", el("p", "one ", el("b", "two"), " three", None, " four"))
    assert "<p>one <b>two</b> three four</p>" in page


def test_charts_of_nothing_and_of_one_value_are_charts() -> None:
    for points in ([], [Point(label="a", value=0.0)], [Point(label="a", value=-2.0, low=-3.0, high=1.0)] * 3):
        checked(html("t", bars(points, "b"), line([points], "l", zero=True)))


def test_bars_and_intervals_of_characters() -> None:
    assert bar(1.0, 1.0, 4) == "████"
    assert bar(0.5, 1.0, 4) == "██"
    assert bar(0.03, 1.0, 4) == "▏"
    assert bar(0.0, 1.0, 4) == bar(-1.0, 1.0, 4) == bar(1.0, 0.0, 4) == ""
    assert between(-1.0, -0.5, 0.0, 1.0, 9) == "──●─│    "
    assert between(0.0, 0.0, 0.0, 0.0, 3) == " ● "
    assert span(0.0, 0.5, 1.0, (0.0, 1.0), 5) == "──●──"
    assert span(None, 1.0, None, (0.0, 1.0), 5) == "    ●"
