"""The report: one page, self-contained, well formed, with nothing unescaped in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from phalanx.cli.settings import Settings
from phalanx.record import Repeat
from phalanx.report import render
from phalanx.report.charts import curve
from phalanx.report.markup import tag
from phalanx.report.scale import Scale, round_steps
from phalanx.report.timeline import merged, timeline
from phalanx.run import Event, Span
from small_runs import flowers, outcome, recorded

VOID = {"meta"}


class Balanced(HTMLParser):
    """Fails where an element is closed that was not open, or the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page):
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    return parser.seen


@pytest.fixture(scope="module")
def made():
    return outcome()


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(made):
    page = render(recorded(made))
    seen = checked(page)
    assert seen.count("h1") == 1
    assert not {"script", "link", "img", "iframe"} & set(seen)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    for said in (made.run.digest, "Accuracy", "Recall", "Confusion matrix", "worker 0", "numpy"):
        assert said in page


def test_each_drawing_has_a_title_and_a_description(made):
    page = render(recorded(made))
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        names = root.attrib["aria-labelledby"].split()
        assert [child.attrib.get("id") for child in root][:2] == names
        assert root[0].tag == "title"
        assert root[1].tag == "desc"


def test_what_comes_from_data_is_escaped(made):
    evil = "<script>alert('x')</script>&\""
    record = replace(
        recorded(made), name=evil, source=evil, target=evil, settings={evil: evil}, machine=evil,
        run=replace(made.run, events=[Event(evil, 3, evil)]),
    )  # fmt: skip
    page = render(record)
    checked(page)
    assert "<script" not in page
    assert "&lt;0&gt;" in page
    assert "<0>" not in page


def test_a_regression_and_one_epoch_have_a_page_too():
    page = render(recorded(outcome("length", Settings((4,), 1, epochs=1))))
    checked(page)
    assert "R²" in page
    assert "Confusion" not in page


def test_many_classes_are_listed_by_confusion():
    settings = Settings((4,), 1, epochs=1, validation_fraction=0.5)
    page = render(recorded(outcome(settings=settings, table=flowers(45, 180))))
    checked(page)
    assert "most frequent confusions among 45 classes" in page


def test_repeats_say_whether_their_digests_are_equal(made):
    equal = [Repeat(1, 1.0, "aa"), Repeat(2, 0.5, "aa")]
    assert "All digests are equal" in render(recorded(made, repeats=equal))
    assert "DIGESTS DIFFER" in render(recorded(made, repeats=[*equal, Repeat(3, 1.0, "bb")]))


def test_a_long_training_makes_no_long_page(made):
    spans = [
        Span(worker, epoch, epoch + 0.1, 0.5, 0.2, 0.1, 2)
        for worker in range(4)
        for epoch in range(5000)
    ]
    run = replace(
        made.run, workers=4, shares=[0.25] * 4, spans=spans, losses=[1.0] * 5000, scores=[]
    )
    page = render(replace(recorded(made), run=run))
    checked(page)
    assert len(page) < 250_000


def test_merging_spans_loses_no_time():
    spans = [Span(w, e, float(e), 1.0, 2.0, 3.0, 4) for e in range(450) for w in range(2)]
    short = merged(spans, 200)
    assert len(short) == 2 * 150
    assert sum(span.compute for span in short) == 900
    assert short[0].begun == 0
    assert merged(spans[:10], 200) == sorted(spans[:10], key=lambda s: (s.worker, s.epoch))


def test_a_run_without_spans(made):
    assert "No worker was timed" in timeline(replace(made.run, spans=[]))


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [1.0, None, 3.0],
        [-5.0, 5.0],
        [1e-9, 1e9],
        [float("nan"), 2.0],
        [1e300] * 3,
    ],
)
def test_a_curve_stays_within_its_frame(values):
    drawn = curve("c", "title", values, "loss")
    ElementTree.fromstring(drawn)
    places = re.search(r'points="([^"]+)"', drawn)
    assert places
    for place in places[1].split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= 480
        assert 0 <= y <= 270


def test_a_curve_of_nothing_says_so():
    assert "No finite value" in curve("c", "title", [None, float("inf")], "loss")


def test_ticks():
    assert round_steps(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_steps(1, 40, 6, whole=True) == [10, 20, 30, 40]
    assert round_steps(3, 3, 5) == [3]
    assert Scale(0.01, 10, 100, 0, by_log=True).ticks() == [0.01, 0.1, 1, 10]
    assert Scale(0.01, 1, 100, 0, by_log=True)(0.1) == 50


def test_attributes_are_escaped():
    assert tag("p", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;"></p>'
