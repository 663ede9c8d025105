"""The rules for arguments that every way to train takes. Pure."""

from __future__ import annotations

from typing import Any

from phalanx.errors import InvalidInput
from phalanx.pure import checks
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.agreement import FLAG, REFUSE
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.plan import DISTRIBUTIONS
from phalanx.pure.rounding import ROUNDINGS


def check_strategies(distribution: Any, assignment: Any, aggregation: Any) -> None:
    """Raise InvalidInput for what is neither a known name nor a function."""
    for name, value, known, signature in (
        ("data_distribution", distribution, DISTRIBUTIONS, "(epoch) -> indices [n_samples]"),
        ("task_assignment", assignment, ASSIGNMENTS, "(n_tasks, speeds [W]) -> ranks"),
        ("aggregation", aggregation, AGGREGATIONS, "(grads [S, n], weights [S]) -> [n]"),
    ):
        checks.name_or_function(name, value, known, signature)


def check_n_shards(shards: Any) -> None:
    """Raise InvalidInput for what is neither a positive integer nor "auto"."""
    if shards != checks.AUTO:
        hint = "Or use 'auto' for a number that suits the batch and the network."
        checks.number("shards", shards, integer=True, at_least=1, hint=hint)


def check_sync_every(sync_every: Any) -> None:
    """Raise InvalidInput for what is no number of steps."""
    hint = "1 exchanges the gradients of every step; 20 lets each shard make 20 steps of its own."
    checks.number("sync_every", sync_every, integer=True, at_least=1, hint=hint)


def check_exchange(wire: Any, exact: Any, mixed: Any, aggregation: Any) -> None:
    """Raise InvalidInput for a way that hosts cannot exchange gradients in."""
    checks.one_of("wire", wire, ROUNDINGS)
    checks.one_of("mixed", mixed, (REFUSE, FLAG))
    checks.boolean("exact", exact)
    if not exact and aggregation not in ("mean", AGGREGATIONS["mean"]):
        raise InvalidInput(
            "exact=False lets a host send the mean of its shards' gradients, so aggregation "
            f"must be 'mean'; got {aggregation!r}. Leave exact=True for other rules."
        )


def check_shards(shards: int, batch_size: int) -> None:
    """Raise InvalidInput where a batch has fewer rows than shards."""
    if shards > batch_size:
        raise InvalidInput(
            f"shards must be at most the number of rows in a batch, or some would always be empty; "
            f"got shards={shards} for batches of {batch_size} rows. "
            "Use fewer shards, a larger batch_size, or shards='auto'."
        )
