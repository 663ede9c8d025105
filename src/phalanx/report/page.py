"""The page: its parts in the order in which they are read."""

from __future__ import annotations

from importlib import resources

from phalanx.report import words
from phalanx.report.charts import curve
from phalanx.report.markup import Markup, bare_number, card, join, pairs, table, tag
from phalanx.report.matrix import matrix
from phalanx.report.timeline import timeline
from phalanx.run import Event, Run
from phalanx.runs.record import Record

MOST_EVENTS = 200  # in the table; run.json has them all


def render(record: Record) -> str:
    """The report of a run as one HTML page that needs nothing from elsewhere."""
    title = f"{record.name} · Phalanx report"
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(resources.files("phalanx.report").joinpath("style.css").read_text())),
    )
    body = tag("body", _header(record), _main(record), _footer(record))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _header(record: Record) -> Markup:
    digest = tag("p", "Digest of the result: ", tag("code", record.run.digest))
    return tag("header", tag("h1", record.name), tag("p", words.headline(record)), digest)


def _main(record: Record) -> Markup:
    cards = tag("div", *_curves(record), *_quality(record), *_work(record), class_="cards")
    return tag("main", _tiles(record), cards)


def _tiles(record: Record) -> Markup:
    run = record.run
    figures = record.evaluation.figures.items()
    said = [(words.FIGURES[name], words.figure(name, value)) for name, value in figures]
    said += [
        ("Samples/s", words.rounded(run.samples_a_second)),
        ("Workers", f"{run.workers}"),
        ("Epochs", f"{run.epochs:,}"),
    ]
    return tag(
        "ul",
        *(tag("li", tag("b", value), tag("span", name)) for name, value in said),
        class_="tiles",
    )


def _curves(record: Record) -> list[Markup]:
    run, score = record.run, _score_name(record)
    curves = [card("Loss", curve("loss", "Training loss by epoch", run.losses, "training loss"))]
    if run.scores:
        drawn = curve("score", f"{score} after each epoch", run.scores, score)
        curves.append(card(score, drawn))
    return curves


def _score_name(record: Record) -> str:
    return "Held-out " + ("accuracy" if record.task == "classification" else "R²")


def _quality(record: Record) -> list[Markup]:
    evaluation = record.evaluation
    caption = words.judged(evaluation.samples, record.judged)
    rows = [
        (words.FIGURES[name], words.figure(name, value), words.MEANINGS[name])
        for name, value in evaluation.figures.items()
    ]
    metrics = table(("metric", "value", "meaning"), rows, caption, kind="prose")
    if not evaluation.classes:
        return [card("Metrics", metrics, wide=True)]
    return [
        card("Metrics", metrics),
        card("By class", _by_class(record, caption)),
        card("Confusion matrix", matrix(evaluation), wide=True),
    ]


def _by_class(record: Record, caption: str) -> Markup:
    rows = [
        (c.label, *map(words.decimals, (c.precision, c.recall, c.f1, c.log_loss)), c.samples)
        for c in record.evaluation.classes
    ]
    head = (record.target, "precision", "recall", "F1", "log loss", "samples")
    return table(head, rows, caption)


def _work(record: Record) -> list[Markup]:
    drawn = timeline(record.run)
    if record.run.spans:
        drawn = join([drawn, tag("p", _timeline_note(record.run), class_="note")])
    cards = [card("Who computed what when", drawn, wide=True)]
    if record.repeats:
        cards.append(card("The same bits for any number of workers", _repeats(record), wide=True))
    return [*cards, _run_card(record), _settings_card(record), _events_card(record)]


def _timeline_note(run: Run) -> str:
    bars = (
        "Each bar is an epoch (several where there are many); the parts of its steps are drawn "
        "together. A gap is time between epochs: planning the next one, and the driver's part; a "
        "long one in a single lane is time that the worker was away."
    )
    marks = (
        " A mark tells more where the pointer rests on it; what is alike and close together has "
        "one mark."
    )
    return bars + (marks if any(event.at is not None for event in run.events) else "")


def _repeats(record: Record) -> Markup:
    rows = [
        (words.count(r.workers, "worker"), words.seconds(r.seconds), tag("code", r.digest))
        for r in record.repeats
    ]
    equal = len({repeat.digest for repeat in record.repeats}) == 1
    verdict = "All digests are equal." if equal else "THE DIGESTS DIFFER: the guarantee is broken."
    shown = table(
        ("trained by", "time", "digest of the result"), rows, "The training, repeated", kind="prose"
    )
    return join([shown, tag("p", verdict, class_="note")])


def _run_card(record: Record) -> Markup:
    run = record.run
    rows = [
        ("workers", f"{run.workers}"),
        ("shards a batch", f"{run.shards}"),
        ("blocks", f"{run.blocks}"),
        ("parameters", f"{run.parameters:,}"),
        ("optimiser steps", f"{run.steps:,}"),
        ("samples seen", f"{run.samples:,}"),
        ("time", words.seconds(run.seconds)),
        ("last loss", bare_number(run.losses[-1] if run.losses else None)),
        *_last_rate(run),
        ("stopped because", words.reason(run)),
    ]
    return card("The run", pairs(rows, "What was done"))


def _last_rate(run: Run) -> list[tuple[str, str]]:
    """The row of the learning rate; none of L-BFGS, which has no rates but 0."""
    return [("last learning rate", bare_number(run.rates[-1]))] if any(run.rates) else []


def _settings_card(record: Record) -> Markup:
    chosen = {**record.settings, **record.run.strategies}
    rows = [(name.replace("_", " "), value) for name, value in chosen.items()]
    return card("Strategies and settings", pairs(rows, "What was asked for"))


def _events_card(record: Record) -> Markup:
    events = record.run.events
    if not events:
        nothing = tag("p", "Nothing out of the ordinary happened.", class_="note")
        return card("Events", nothing, wide=True)
    more = len(events) - MOST_EVENTS
    which = f"The first {MOST_EVENTS}, and {more:,} more followed" if more > 0 else "In order"
    shown = table(
        ("step", "event", "worker", "cost (ms)", "detail"),
        [_event_row(event) for event in events[:MOST_EVENTS]],
        which,
        kind="log",
    )
    summary = words.happened(events)
    return card("Events", tag("p", summary) if summary else "", shown, wide=True)


def _event_row(event: Event) -> tuple[str, ...]:
    worker = "" if event.worker is None else f"{event.worker}"
    cost = "" if event.cost is None else f"{event.cost:,.1f}"
    return f"{event.step:,}", event.what, worker, cost, event.detail


def _footer(record: Record) -> Markup:
    versions = " · ".join(f"{name} {version}" for name, version in record.versions.items())
    return tag("footer", tag("p", f"{record.date} · {record.machine}"), tag("p", versions))
