"""What an exchange between hosts costs: bytes, seconds by phase and memory, beside formulas.

    python benchmarks/scale.py [--quick]

writes its tables into docs/scale.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

from checkouts import commit
from data import ROOT
from deep_contestants import free_port
from machine import processor
from phalanx.pure.hosts import dividing_pays
from soak_page import between
from table import table

PROGRAM = Path(__file__).with_name("scale_program.py")
PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- scale: {0} begin -->", "<!-- scale: {0} end -->"
HOSTS, SIZES, QUICK_SIZES = (1, 2, 3, 4), 3, 1
MB, GB, MS = 1e6, 1e9, 1e3
EXACT, BF16 = "exact", "bf16"
ITEMSIZE = {EXACT: 4, BF16: 2}
STATE_ROWS = 2  # of Adam
PHASES = ("compute", "shards", "reduce", "blocks", "update", "step")
BIG_N, BIG_HOSTS, BIG_SHARDS = 10**9, 64, 64
LINKS = (10, 100, 400)  # Gbit/s


@dataclass(frozen=True)
class Load:
    """The formulas, for N elements, S shards and H hosts: means over the hosts."""

    n: float
    s: int
    h: int

    @property
    def is_divided(self) -> bool:
        """Whether a host reduces a part of the blocks only."""
        return dividing_pays(self.s, self.h, int(4 * self.n))

    def shards_sent(self) -> float:
        """Elements of the first exchange: a host's S / H rows, less its own part of each."""
        to_each = self.s / self.h * self.n / (self.h if self.is_divided else 1)
        return to_each * (self.h - 1)

    def blocks_sent(self) -> float:
        """Elements of the second: a host's N / H to each of the others."""
        return self.is_divided * self.n / self.h * (self.h - 1)

    def sent(self, wire: str) -> float:
        """Bytes a step."""
        return ITEMSIZE[wire] * (self.shards_sent() + self.blocks_sent())

    def slots(self) -> float:
        """Bytes of the shards' gradients: own rows whole, and what is reduced here of others."""
        rows = self.s / self.h
        return 4 * self.n * (rows + (self.s - rows) / (self.h if self.is_divided else 1))

    def state(self) -> float:
        """Bytes of the parameters and the optimiser's state."""
        return 4 * self.n * (1 + STATE_ROWS)

    def reduced(self) -> float:
        """Bytes of the reduced gradient, which a host has that reduces a part of it."""
        return 4 * self.n * self.is_divided


@dataclass(frozen=True)
class Line:
    """One training: what its hosts said, and what the formulas say."""

    hosts: int
    said: Sequence[dict[str, Any]]

    @property
    def wire(self) -> str:
        return str(self.said[0]["wire"])

    @property
    def load(self) -> Load:
        return Load(self.said[0]["parameters"], self.said[0]["shards"], self.hosts)

    def of(self, figure: Callable[[dict[str, Any]], float]) -> float:
        """A figure's mean over the hosts."""
        return mean(map(figure, self.said))

    def name(self) -> list[str]:
        return [f"{self.load.n / MB:.2f} M", str(self.load.s), str(self.hosts)]


def main() -> None:
    parser = ArgumentParser(description="What an exchange between hosts costs.")
    parser.add_argument("--quick", action="store_true", help="the smallest network only")
    quick = parser.parse_args().quick
    lines = [line for hosts in HOSTS for line in measured(hosts, QUICK_SIZES if quick else SIZES)]
    lines.sort(key=lambda line: (line.load.n, line.load.s, line.hosts, line.wire == BF16))
    page = PAGE.read_text()
    for name, text in (("measured", measures(lines)), ("predicted", predictions())):
        print(text)
        page = between(page, text, BEGIN.format(name), END.format(name))
    if not quick:
        PAGE.write_text(page)


def measured(hosts: int, sizes: int) -> list[Line]:
    """Let so many hosts train everything."""
    print(f"{hosts} hosts", file=sys.stderr)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world = {"WORLD_SIZE": str(hosts), "LOCAL_WORLD_SIZE": str(hosts), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-W", "ignore", str(PROGRAM), str(sizes)]
    running = [
        subprocess.Popen(
            argv, env=os.environ | world | meeting | {"RANK": str(host)}, text=True,
            stdout=subprocess.PIPE,
        )
        for host in range(hosts)
    ]  # fmt: skip
    said = [process.communicate()[0].splitlines() for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"a host of {hosts} failed")
    return [Line(hosts, [json.loads(text) for text in texts]) for texts in zip(*said, strict=True)]


def measures(lines: Sequence[Line]) -> str:
    """What was measured, beside the formulas."""
    written = (
        f"Written by `benchmarks/scale.py` on {date.today().isoformat()}, commit {commit(ROOT)}; "
        f"{processor()}, {os.cpu_count()} cores for all hosts together. Means over the hosts."
    )
    exact = [line for line in lines if line.wire == EXACT]
    sent = [
        [
            *line.name(),
            *(cell for wire in (EXACT, BF16) for cell in sent_cells(lines, line, wire)),
        ]
        for line in exact
        if line.hosts > 1
    ]
    header = ["N", "S", "H"]
    bytes_header = [
        f"{wire}, {what}" for wire in (EXACT, BF16) for what in ("shards", "blocks", "formula")
    ]
    memory_header = [
        f"{what}, {how}" for what in ("state", "slots", "reduced") for how in ("in use", "formula")
    ]
    return "\n\n".join(
        [
            written,
            "### Megabytes that a host sends a step",
            table([*header, *bytes_header], sent),
            "### Milliseconds a step, `exact`",
            table([*header, *PHASES], [[*line.name(), *phase_cells(line)] for line in exact]),
            "### Megabytes of memory of a host, `exact`",
            table(
                [*header, *memory_header, "slots, S N"],
                [[*line.name(), *memory_cells(line)] for line in exact],
            ),
        ]
    )


def sent_cells(lines: Sequence[Line], exact: Line, wire: str) -> list[str]:
    """Megabytes of the two exchanges, and what the formulas say of each."""
    (line,) = (each for each in lines if each.load == exact.load and each.wire == wire)
    load, itemsize = line.load, ITEMSIZE[wire]
    said = [line.of(lambda one, i=i: one["sent"][i]) for i in (0, 1)]  # type: ignore[misc]
    formula = [itemsize * load.shards_sent(), itemsize * load.blocks_sent()]
    return [*(f"{count / MB:.3f}" for count in said), " + ".join(f"{f / MB:.3f}" for f in formula)]


def phase_cells(line: Line) -> list[str]:
    return [
        f"{line.of(lambda one, p=phase: one['seconds'][p]) * MS:.2f}"  # type: ignore[misc]
        for phase in PHASES
    ]


def memory_cells(line: Line) -> list[str]:
    """What is in use of each field, and what the formulas say of it."""
    load = line.load
    formulas = {"values": load.state(), "grads": load.slots(), "reduced": load.reduced()}
    cells = []
    for name, formula in formulas.items():
        in_use = line.of(lambda one, n=name: one["memory"][n])  # type: ignore[misc]
        cells += [f"{in_use / MB:.1f}", f"{formula / MB:.1f}"]
    return [*cells, f"{4 * load.n * load.s / MB:.1f}"]


def predictions() -> str:
    """The formulas, where nobody has measured."""
    load = Load(BIG_N, BIG_SHARDS, BIG_HOSTS)
    ways = {EXACT: load.sent(EXACT), BF16: load.sent(BF16)}
    ways["sync_every=32"] = load.sent(EXACT) / 32
    rows = [
        [way, f"{sent / GB:.2f}", *(f"{8 * sent / GB / rate:.3f}" for rate in LINKS)]
        for way, sent in ways.items()
    ]
    memory = (
        f"Memory of a host: {load.state() / GB:.0f} GB of state, {load.reduced() / GB:.0f} GB of "
        f"reduced gradient, {load.slots() / GB:.1f} GB of slots in use (of an address space of "
        f"{4 * load.n * load.s / GB:.0f} GB)."
    )
    links = [f"s a step at {rate} Gbit/s" for rate in LINKS]
    return "\n\n".join([table(["way", "GB that a host sends", *links], rows), memory])


if __name__ == "__main__":
    main()
