"""Two hosts that train together beside torch DDP, on one machine and over a slow link.

    python benchmarks/hosts.py [--rounds 5] [--cases digits,mnist-cnn] [--quick] [--no-link]

writes docs/hosts-benchmarks.md. The slow link needs root and iproute2 (netlab.py).
"""

from __future__ import annotations

import faulthandler
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import host_link
import machine
import netlab
from cases import Ratio
from checkouts import commit
from data import ROOT
from deep import DeepTimed, cases_named, step_table
from deep_cases import DEEP_CASES, DeepCase
from figures import Finding, ratio, spread
from host_contestants import contestants
from host_link import Linked
from host_names import BF16, DDP, DDP_FUSED, EXACT, ONE_HOST, PHALANX, ROUNDS
from report import QUICK
from table import ranged, table
from targets import verdict
from timing import Times, rounds_of

LONGEST = 3600  # seconds; then everything is ended, with a traceback
QUICK_ROUNDS = 1
PACKAGES = ("phalanx", "numpy", "torch")
OVER_DDP = Ratio("torch DDP x2 over Phalanx", DDP, PHALANX)
RATIOS = (
    OVER_DDP,
    Ratio("the same with fused Adam", DDP_FUSED, PHALANX),
    Ratio("Phalanx, 2 hosts over 1", PHALANX, ONE_HOST),
)
AS_DDP, BF16_OVER_DDP, FEWER_BYTES = 1.0, 1.8, 20.0  # targets
MB = 1e6
METHOD = """\
## How it was measured

- All contestants of a case take turns in one run, round after round; medians over the rounds stand
  in the tables, the lowest and highest round in brackets. Ratios are taken round by round.
- A host is a process with one thread on one machine; two hosts speak over its loopback. A time is
  the wall clock of a whole `phalanx.fit`, or of the training loop (torch), divided by its steps.
  What `fit` does before the first step is included; launching is not, and all do an untimed turn.
- Everybody trains the same module in float32 with Adam (learning rate 0.001) on the same samples,
  with the same global batch. `phalanx.fit` gets `shards=2` and `workers=1`: a shard for each host.
- DDP is as its users write it, over gloo, half of the batch in each process. Its `torch.optim.Adam`
  is torch's default, which is not fused on a CPU; Phalanx calls torch's fused kernel, so there is a
  line for DDP with that too. "No communication" is two torch processes that never speak."""
LINK = """\
The 784-2048-2048-10 network, batch 256, two hosts in a laboratory (`benchmarks/netlab.py`): each
link carries {rate} either way, and a packet is {one_way} under way, so a round trip takes
twice that. Seconds a step are counted between epochs, after a warm-up in which TCP finds
its pace (congestion control here: {control}). Bytes are what a host's link carried, with all
headers. With `sync_every=32` an epoch is one round of 32 steps, and another algorithm
(`docs/models.md`)."""


def main() -> None:
    asked = arguments()
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    rounds = QUICK_ROUNDS if asked.quick else asked.rounds
    cases = [case.quick() for case in asked.cases] if asked.quick else asked.cases
    timed = [time_case(case, rounds) for case in cases]
    why_not = "not asked for" if asked.no_link else netlab.why_not(delay=host_link.ONE_WAY)
    linked = None if why_not else host_link.measure(min(rounds, asked.link_rounds), asked.quick)
    command = shlex.join(["python", "benchmarks/hosts.py", *sys.argv[1:]])
    page = render(timed, linked, command, asked.quick)
    asked.out.write_text(page)
    print(page)


def time_case(case: DeepCase, rounds: int) -> DeepTimed:
    """Let everybody train the case, `rounds` times in turn."""
    times, others = rounds_of(case.key, case.epochs, contestants(case), rounds)
    return DeepTimed(case, case.load().source, times, others)


def arguments() -> Namespace:
    parser = ArgumentParser(description="Two hosts beside torch DDP.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of everybody in a case")
    parser.add_argument("--link-rounds", type=int, default=3, help="turns over the slow link")
    parser.add_argument("--no-link", action="store_true", help="without the slow link")
    every = ",".join(DEEP_CASES)
    parser.add_argument("--cases", type=cases_named, default=every, help=f"some of {every}")
    parser.add_argument("--quick", action="store_true", help="few steps: does it all run?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "hosts-benchmarks.md")
    return parser.parse_args()


def render(timed: Sequence[DeepTimed], linked: Linked | None, command: str, quick: bool) -> str:
    """The page."""
    others = spread([cores for each in timed for cores in each.others])
    facts = machine.describe(PACKAGES) | {"commit": commit(ROOT)}
    link = [] if linked is None else ["## Over a slow, long link", said_of_link(), of_link(linked)]
    parts = [
        "# Benchmarks of several hosts",
        *([QUICK] if quick else []),
        f"Written by `{command}` on {date.today().isoformat()}.",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        METHOD,
        "## Milliseconds a step",
        step_table([*timed]),
        f"Cores kept busy by other programs, seen before each round: {ranged(others)}.",
        "## Ratios",
        table(
            ["case", *(r.title for r in RATIOS)],
            [[each.case.title, *(cell(each.times, r) for r in RATIOS)] for each in timed],
        ),
        *link,
        "## Targets",
        verdict([*of_cases(timed), *([] if linked is None else of_the_link(linked))]),
    ]
    return "\n\n".join(parts) + "\n"


def cell(times: Times, r: Ratio) -> str:
    """A ratio."""
    return ranged(ratio(times[r.slow], times[r.fast]), "x")


def said_of_link() -> str:
    """How the slow link was measured."""
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    rate = f"{host_link.RATE.removesuffix('mbit')} Mbit/s"
    one_way = f"{host_link.ONE_WAY.removesuffix('ms')} ms"
    return LINK.format(rate=rate, one_way=one_way, control=control)


def of_link(linked: Linked) -> str:
    """Seconds and bytes of everybody."""
    rows = [
        [
            who,
            ranged(spread(linked.seconds(who))),
            ranged(ratio(linked.seconds(DDP), linked.seconds(who)), "x"),
            megabytes(linked.sent(who)),
            ranged(ratio(linked.sent(EXACT), linked.sent(who)), "x", 1),
        ]
        for who in linked.turns
    ]
    header = ["two hosts", "s a step", "torch DDP x2 over it", "MB sent a step", "fewer than exact"]
    return table(header, rows)


def megabytes(sent: Sequence[float]) -> str:
    """Bytes a step."""
    return ranged(spread([count / MB for count in sent]))


def of_cases(timed: Sequence[DeepTimed]) -> list[Finding]:
    """Phalanx is as quick as DDP in each case."""
    return [
        Finding(
            f"{each.case.title}: {OVER_DDP.title}",
            ratio(each.times[DDP], each.times[PHALANX]).middle,
            AS_DDP,
            "x",
            at_least=True,
        )
        for each in timed
    ]


def of_the_link(linked: Linked) -> list[Finding]:
    """Rounded gradients are quicker, rounds send less."""
    quicker = ratio(linked.seconds(DDP), linked.seconds(BF16)).middle
    fewer = ratio(linked.sent(EXACT), linked.sent(ROUNDS)).middle
    return [
        Finding(f"slow link: torch DDP x2 over {BF16}", quicker, BF16_OVER_DDP, "x", at_least=True),
        Finding(f"slow link: bytes of exact over {ROUNDS}", fewer, FEWER_BYTES, "x", at_least=True),
    ]


if __name__ == "__main__":
    main()
