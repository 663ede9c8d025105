"""The report: one page, self-contained, well formed, with nothing unescaped in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from phalanx.cli.settings import Settings
from phalanx.report import render
from phalanx.report.charts import MOST_POINTS, _points, curve
from phalanx.report.marks import CELL, marks
from phalanx.report.markup import tag
from phalanx.report.scale import Scale, labels, round_steps
from phalanx.report.timeline import merged, timeline
from phalanx.report.words import figure, happened
from phalanx.run import Event, Span
from phalanx.runs.evaluation import evaluate_classes, evaluate_values
from phalanx.runs.record import Repeat
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
        run=replace(made.run, events=[Event(evil, 3, evil, 0, made.run.spans[0].begun)]),
    )  # fmt: skip
    page = render(record)
    checked(page)
    assert "<script" not in page
    assert "&lt;0&gt;" in page
    assert "<0>" not in page


def test_a_loss_of_nothing_has_no_sign(made):
    sure = evaluate_classes(("a", "b"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    page = render(replace(recorded(made), evaluation=sure))
    assert "0.000" in page
    assert "-0" not in re.sub(r"<(svg|style|footer).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)


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


def test_a_curve_has_no_more_points_than_a_screen():
    for n in (499, 500, 501, 999, 1000, 5000):
        assert len(_points([1.0] * n)) <= MOST_POINTS + 1  # and the last epoch's


def test_merging_spans_loses_no_time():
    spans = [Span(w, e, float(e), 1.0, 2.0, 3.0, 4) for e in range(450) for w in range(2)]
    short = merged(spans, 200)
    assert len(short) == 2 * 150
    assert sum(span.compute for span in short) == 900
    assert short[0].begun == 0
    assert merged(spans[:10], 200) == sorted(spans[:10], key=lambda s: (s.worker, s.epoch))


def test_merging_spans_leaves_a_gap_where_a_worker_was_away():
    spans = [Span(0, e, float(e), 1.0) for e in range(400) if not 102 <= e < 151]
    short = merged(spans, 100)
    ends = {span.begun + span.compute for span in short}
    assert {102, 400} <= ends
    assert not [span for span in short if 102 <= span.begun < 151]
    two_lives = [Span(0, 0, 0.0, 1.0), Span(0, 0, 5.0, 1.0)]
    assert merged(two_lives, 100) == two_lives


def test_a_run_without_spans(made):
    run = replace(made.run, spans=[])
    assert "No worker was timed" in timeline(run)
    page = render(replace(recorded(made), run=run))
    assert "No worker was timed" in page
    assert "Each bar is" not in page


def test_a_minimiser_has_no_learning_rate(made):
    assert "last learning rate" in render(recorded(made))
    lbfgs = outcome(settings=Settings((4,), 1, epochs=3, solver="lbfgs"))
    assert "last learning rate" not in render(recorded(lbfgs))


def test_what_is_undefined_has_no_figure(made):
    proba_BC = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], np.float32)
    without = evaluate_classes(("a", "b", "c"), np.array([0, 0]), proba_BC)
    _, b, c = without.classes
    assert (b.recall, b.precision, np.isnan(b.log_loss)) == (0, 0, True)
    assert all(map(np.isnan, (c.precision, c.recall, c.f1, c.log_loss)))
    record = replace(recorded(made), evaluation=without)
    assert "<td>\N{EN DASH}</td>" in render(record)
    assert "nan" not in render(record)
    assert record.to_json()["evaluation"]["classes"][2]["log_loss"] is None
    single = evaluate_values(np.ones(1), np.zeros(1))
    assert np.isnan(single.figures["r2"])
    assert figure("r2", single.figures["r2"]) == "\N{EN DASH}"
    assert evaluate_values(np.ones(2), np.zeros(2)).figures["r2"] == 0


LOST = Event("worker lost", 3, "killed <by> signal 9", 1, 12.0, 31.4)
JOINED = Event("worker joined", 3, "", 1, 12.01, 4.0)
SAVED = Event("checkpoint", 4, "", None, 14.0)


def eventful(made, events, **more):
    spans = [Span(worker, epoch, 10.0 + epoch, 1.0) for worker in (0, 1) for epoch in range(8)]
    return replace(made.run, **{"workers": 2, "spans": spans, "events": events, **more})


def lanes_of(run):
    """The drawing of a run's timeline, and the marks in it."""
    drawing = re.search(r'<svg role="img".*?</svg>', timeline(run), re.DOTALL)
    root = ElementTree.fromstring(drawing[0])
    return root, root.findall("g")


def test_each_event_with_a_time_has_a_mark_with_its_line(made):
    run = eventful(made, [LOST, JOINED, SAVED, Event("interrupted", 5)])
    root, drawn = lanes_of(run)
    titles = {group.attrib["class"]: group.find("title").text for group in drawn}
    assert titles == {
        "mark saved all": str(SAVED), "mark joined": str(JOINED), "mark lost": str(LOST),
    }  # fmt: skip
    assert "Marked in the lanes: checkpoint, worker joined, worker lost." in root[1].text
    heads = {path.attrib["id"] for path in root.find("defs")}
    assert heads == {"mark-saved", "mark-joined", "mark-lost"}
    page = timeline(run)
    for said in ("worker lost", "worker joined", "checkpoint"):
        assert f"</svg>{said}</li>" in page


def test_marks_lie_at_their_time_and_within_the_drawing():
    for at, place in {-5.0: 0, 10.0: 0, 12.0: 25, 18.0: 100, 99.0: 100}.items():
        (mark,) = marks([replace(LOST, at=at)], 10.0, 8.0)
        assert mark.place == place
    assert not marks([replace(LOST, at=at) for at in (None, float("nan"))], 10.0, 8.0)


def test_what_is_alike_and_close_together_is_one_mark():
    many = [replace(SAVED, at=10 + n / 1000, step=n) for n in range(8000)]
    found = marks(many, 10.0, 8.0)
    assert len(found) <= 100 / CELL + 1
    assert sum(len(mark.events) for mark in found) == 8000
    assert found[0].title.startswith("step 0: checkpoint\nstep 1: checkpoint")
    assert found[0].title.endswith("more")


def test_the_page_of_many_events_stays_short(made):
    run = eventful(made, [LOST, JOINED, SAVED] * 400)
    page = render(replace(recorded(made), run=run))
    checked(page)
    assert page.count('<th scope="row">3</th>') + page.count('<th scope="row">4</th>') == 200
    assert "The first 200, and 1,000 more followed" in page
    assert "killed &lt;by&gt; signal 9" in page
    assert len(page) < 100_000
    crowd = [replace(SAVED, at=10 + n / 100) for n in range(800)]
    assert 'class="lanes crowded"' in timeline(eventful(made, crowd))


@pytest.mark.parametrize("shares", [[], [1.0], [0.25] * 4, [0.1] * 9])
def test_a_seat_with_events_alone_has_a_lane(made, shares):
    run = eventful(made, [replace(LOST, worker=3)], shares=shares)
    page = timeline(run)
    assert re.findall(r"<span>worker (\d)</span>", page) == ["0", "1", "2", "3"]
    assert "height: 136px" in page


def test_events_in_words():
    assert happened([]) == ""
    assert happened([Event("interrupted", 3)]) == ""
    assert happened([LOST, LOST, JOINED, SAVED]) == (
        "2 workers lost, 1 worker joined, 1 checkpoint written; cost 66.8 ms in all"
    )
    assert happened([Event("workers changed", 3, cost=2.0)]) == "cost 2.0 ms in all"


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


@pytest.mark.parametrize(
    "values",
    [
        [0.1234567, 0.1234568, 0.12345675],
        [0.5, 0.5 + 1e-14],
        [123456.5, 123456.501],
        [-0.00013, -0.0001],
        [-50_000.0, 0.0],
        [10.0**-n for n in range(31)],
        [1e-300, 1e300],
    ],
)
def test_each_tick_has_a_name_and_a_place_of_its_own(values):
    root = ElementTree.fromstring(curve("c", "title", values, "loss"))
    ticks = [text for text in root.findall("text") if text.attrib["text-anchor"] == "end"]
    assert 2 <= len(ticks) <= 7
    assert len({text.text for text in ticks}) == len(ticks)
    heights = sorted(float(text.attrib["y"]) for text in ticks)
    assert min(np.diff(heights)) > 13
    for text in ticks:  # right of the axis' title
        assert float(text.attrib["x"]) - 8 * len(text.text) >= 18


@pytest.mark.parametrize("n_epochs", [20, 1000, 100_000])
def test_the_last_epochs_name_is_within_the_drawing(n_epochs):
    root = ElementTree.fromstring(curve("c", "title", [1.0] * n_epochs, "loss"))
    last = next(text for text in root.findall("text") if text.text == f"{n_epochs}")
    assert float(last.attrib["x"]) + 4 * len(last.text) <= 480


def test_names_of_ticks():
    assert labels([0.2, 0.4]) == ["0.2", "0.4"]
    assert labels([3.0]) == ["3"]
    assert labels([1.0, 1.0]) == ["1", "1"]


def test_attributes_are_escaped():
    assert tag("p", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;"></p>'
