"""A killed worker: how soon a fit goes on, beside torchrun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from random import Random
from statistics import median

import elastic
from cases import DIGITS, MNIST_SMALL, Case
from figures import Finding
from recovery import Recovered, recover
from section import Section
from table import table

CASES = (DIGITS, MNIST_SMALL)
KILLS, QUICK_KILLS = 20, 2
RESTARTS, QUICK_RESTARTS = 3, 1  # of torchrun
MS = 1e3
TO_STEP = 50.0  # milliseconds, and one shard
TO_REPLACEMENT = 500.0  # milliseconds

METHOD = """\
A fit with two workers is repeated, {kills} times a case, and each time a thread of the benchmark
sends SIGKILL to one of the two at a random moment. Milliseconds count from just before `os.kill`;
when the next step was committed and when the replacement computed is what `run_.events` says.
Every such fit must end with the digest of the fit without a kill. torchrun
(`--standalone --nproc-per-node 2 --max-restarts 3`, else on its defaults) runs the same network on
the same samples with DistributedDataParallel over gloo, {restarts} times a case; its workers note
the time of every optimiser step in a file, and what counts is the first step of the group that it
restarted, which has forgotten all steps before: checkpoints are left to the user, and cost nothing
here. torchrun has `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`, since by default some of its restarts
find the addresses of the dead and fail
([pytorch#135712](https://github.com/pytorch/pytorch/issues/135712))."""


@dataclass(frozen=True)
class Compared:
    """A case: what Phalanx recovered from, and seconds that torchrun took."""

    phalanx: Recovered
    torchrun: Sequence[float]


def section(quick: bool) -> Section:
    """Measure, and say what came out."""
    kills, restarts = (QUICK_KILLS, QUICK_RESTARTS) if quick else (KILLS, RESTARTS)
    chance = Random(0)
    compared = [compare(case, kills, restarts, chance) for case in CASES]
    found = [finding for each in compared for finding in findings(each.phalanx)]
    method = METHOD.format(kills=kills, restarts=restarts)
    return Section("A killed worker", [method, recovery_table(compared)], found)


def compare(case: Case, kills: int, restarts: int, chance: Random) -> Compared:
    """Both on one case."""
    return Compared(recover(case, kills, chance), elastic.recoveries(case, restarts, chance))


def findings(recovered: Recovered) -> list[Finding]:
    """What is promised of a case."""
    title, kills = recovered.case.title, recovered.kills
    steps = median(kill.to_step for kill in kills) * MS
    replacements = median(kill.to_replacement for kill in kills) * MS
    bound = round(TO_STEP + recovered.shard * MS, 1)
    same = 100 * sum(kill.same_bits for kill in kills) / len(kills)
    return [
        Finding(f"{title}: from a kill to the next step", steps, bound, " ms", False),
        Finding(f"{title}: to the replacement", replacements, TO_REPLACEMENT, " ms", False),
        Finding(f"{title}: killed fits with the same digest", same, 100, " %", True),
    ]


def recovery_table(compared: Sequence[Compared]) -> str:
    """Medians, and the worst."""
    rows = []
    for each in compared:
        title, kills = each.phalanx.case.title, each.phalanx.kills
        steps = summary([kill.to_step for kill in kills])
        replacements = summary([kill.to_replacement for kill in kills])
        shard = f"{each.phalanx.shard * MS:.2f}"
        same = f"{sum(kill.same_bits for kill in kills)} of {len(kills)}"
        rows.append([title, "Phalanx", str(len(kills)), steps, replacements, shard, same])
        restarts = (str(len(each.torchrun)), summary(each.torchrun))
        rows.append([title, "torchrun, DDP", *restarts, "", "", ""])
    header = ("case", "who", "kills", "to the next step, ms", "to the replacement, ms")
    return table([*header, "one shard, ms", "same digest"], rows)


def summary(seconds: Sequence[float]) -> str:
    """Median and maximum in milliseconds.

    >>> summary([0.001, 0.003, 0.002])
    '2.0 (at most 3.0)'
    """
    never = sum(not isfinite(each) for each in seconds)
    said = f"{median(seconds) * MS:,.1f} (at most {max(seconds) * MS:,.1f})"
    return f"{said}; {never} never seen" if never else said
