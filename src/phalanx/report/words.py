"""How a run is put into words, on the page and on the terminal alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from phalanx.models.mlp import MLPSpec
from phalanx.pure.stopping import Reason
from phalanx.run import Event, Run
from phalanx.runs.record import Record

REASONS = {
    Reason.MAX_EPOCHS: "it had made all the epochs that were asked for",
    Reason.LOSS_THRESHOLD: "the loss had reached the threshold",
    Reason.NO_IMPROVEMENT: "there was no more improvement",
    Reason.INTERRUPTED: "it was interrupted",
    Reason.CALLBACK: "a callback asked it to",
}
FIGURES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "log_loss": "Log loss",
    "mse": "MSE",
    "mae": "MAE",
    "r2": "R²",
}
MEANINGS = {
    "accuracy": "share of the samples that were classified rightly",
    "precision": "of what was called a class, the share that is it; mean over classes",
    "recall": "of a class, the share that was found; mean over classes",
    "f1": "harmonic mean of precision and recall; mean over classes",
    "log_loss": "mean of -log(probability of the true class); lower is better",
    "mse": "mean squared error, in the target's unit squared; lower is better",
    "mae": "mean absolute error, in the target's unit; lower is better",
    "r2": "share of the target's variance that is explained",
}
HAPPENED = {
    "worker lost": ("worker", "lost"),
    "worker stuck": ("worker", "stuck"),
    "worker joined": ("worker", "joined"),
    "checkpoint": ("checkpoint", "written"),
    "checkpoint failed": ("checkpoint", "failed"),
}
UNDEFINED = "\N{EN DASH}"
SHARES_OF_ALL = ("accuracy", "precision", "recall", "f1")


def reason(run: Run) -> str:
    """Why the training stopped, to follow the words "it stopped because"."""
    return REASONS.get(Reason(run.reason), run.reason)


def figure(name: str, value: float) -> str:
    """A figure to as many digits as are worth reading; a dash where it is undefined."""
    if math.isnan(value):
        return UNDEFINED
    if name in SHARES_OF_ALL:
        return f"{value:.1%}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def decimals(value: float) -> str:
    """Three digits after the point; a dash where it is undefined."""
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


def layers(spec: MLPSpec) -> str:
    """The layers of a network from input to output."""
    return " → ".join(map(str, spec.sizes))


def count(n: int, what: str) -> str:
    """'1 worker', '3 workers'.

    >>> count(1, "worker"), count(12000, "epoch")
    ('1 worker', '12,000 epochs')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def happened(events: Iterable[Event]) -> str:
    """What befell the workers and the checkpoints, and what it cost; empty where nothing did.

    >>> happened([Event("worker lost", 3, cost=30.0), Event("worker joined", 3, cost=8.0)])
    '1 worker lost, 1 worker joined; cost 38.0 ms in all'
    """
    events = list(events)
    times = Counter(event.what for event in events)
    costs = [event.cost for event in events if event.cost is not None]
    counts = ", ".join(
        f"{count(times[what], noun)} {verb}"
        for what, (noun, verb) in HAPPENED.items()
        if times[what]
    )
    cost = f"cost {sum(costs):,.1f} ms in all" if costs else ""
    return "; ".join(part for part in (counts, cost) if part)


def judged(samples: int, what: str) -> str:
    """Of which samples figures are.

    >>> judged(450, "held-out samples"), judged(1, "samples of a.csv")
    ('On the 450 held-out samples', 'On the 1 sample of a.csv')
    """
    what = what.replace("samples", "sample", 1) if samples == 1 else what
    return f"On the {samples:,} {what}"


def rounded(value: float) -> str:
    """Three digits and a unit prefix.

    >>> rounded(396_516), rounded(12)
    ('397k', '12')
    """
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def headline(record: Record) -> str:
    """What was trained on what, by whom, and why it stopped."""
    run = record.run
    return (
        f"A multi-layer perceptron ({layers(record.model)}) learnt {record.target!r} from "
        f"{record.source} with {count(run.workers, 'worker')} in {count(run.epochs, 'epoch')} "
        f"and {seconds(run.seconds)}. It stopped because {reason(run)}."
    )


def seconds(duration: float) -> str:
    """A duration in the unit that suits it.

    >>> seconds(0.0123), seconds(75)
    ('12 ms', '1 min 15 s')
    """
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s"
