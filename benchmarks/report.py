"""docs/benchmarks.md: what was measured, how, and which targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import machine
from figures import spread
from measured import Measured
from sections import limit_table, memory_table, ratio_table, startup_table, step_table
from table import ranged
from targets import findings, verdict
from timing import Timed

METHOD = """\
## How it was measured

- All contestants of a case take turns in one run, round after round; the medians over the rounds
  stand in the table, the lowest and highest round in brackets. Ratios are taken round by round, so
  that a machine whose speed drifts does not favour anyone.
- A time is the wall clock of a whole `fit` (estimators) or of the training loop (torch), divided
  by its steps. Setting a fit up is included for the estimators, launching processes for nobody:
  worker processes of Phalanx and of torch are warm, and all do an untimed turn first.
- Everybody trains the same layer sizes with Adam (learning rate 0.001) in float32 on the same
  samples, in a new random order every epoch, with the same global batch, and gathers each batch
  from the data set itself. The estimators add their default L2 penalty (alpha = 1e-4), torch none.
- torch runs as its users write it: `nn.Sequential`, `torch.optim.Adam`, `cross_entropy`, and
  `DistributedDataParallel` over gloo with half of the batch in each of two processes; an extra
  line has `Adam(fused=True)`, which is not torch's default.
- The MNIST cases use the first 15,360 training samples: 60 full batches. Four fifths of their
  pixels are 0, which Phalanx takes as sparse samples by itself; standardised ones are not, and are
  in a case of their own.
- The text is eight lines of Python's standard library a sample, told by tf-idf of 5,000 words from
  which package it is: 60 batches of a sparse matrix, as scikit-learn takes it too. torch's layers
  take no such samples.
- Whoever has no turn sleeps. One thread a process, except for scikit-learn with all threads."""

LIMIT = """\
"The products alone" are the matrix products of a step and nothing else, in as few calls as there
are, on arrays of each process' own; of two processes each does half and never waits. Nobody who
multiplies dense matrices with this BLAS on these cores can be faster: only who leaves zeros out."""

STARTUP = """\
Each figure comes from fresh interpreters, the median of all rounds. The fits are timed after the
imports. Iris is too small to be cut into shards, so one worker does it whatever is asked for;
digits uses two processes, and its first fit starts them. Iris is trained by
`MLPClassifier(hidden_layer_sizes=(10,), max_iter=1000, alpha=1e-4, solver='sgd', n_jobs=2)`."""

MEMORY = """\
Peak of the sum of PSS (`/proc/<pid>/smaps_rollup`) over the driver, the fork server and all
workers while 131,072 samples of 1,000 features (524 MB in float32) are trained, two epochs, batch
1,024, `shards=4`. PSS counts a page that is shared by n processes as 1/n in each of them. Samples
are either loaded into the driver's memory or mapped from their `.npy` file."""

QUICK = """\
**A quick run:** few samples and few steps, to see that everything runs. Setting a fit up weighs
heavily in these figures; they say little about training."""


def render(measured: Measured, command: str, quick: bool) -> str:
    """The page."""
    parts = [
        "# Benchmarks",
        *([QUICK] if quick else []),
        f"Written by `{command}` on {date.today().isoformat()}.",
        "\n".join(f"- {name}: {value}" for name, value in machine.describe().items()),
        METHOD,
        "## Milliseconds a step",
        step_table(measured.timed),
        company(measured.timed),
        "## Ratios",
        ratio_table(measured.timed),
        "## The limit",
        LIMIT,
        limit_table(measured.timed),
        "## Waiting for the first step",
        STARTUP,
        startup_table(measured.startup),
        dragged(measured.startup.heavy),
        "## Memory",
        MEMORY,
        memory_table(measured.peaks),
        "## Targets",
        verdict(findings(measured)),
    ]
    return "\n\n".join(parts) + "\n"


def company(timed: Sequence[Timed]) -> str:
    """What else ran on the machine."""
    cores = spread([cores for each in timed for cores in each.others])
    return f"Cores kept busy by other programs, seen before each round: {ranged(cores)}."


def dragged(heavy: tuple[str, ...]) -> str:
    """What `import phalanx` loads besides itself."""
    return f"`import phalanx` alone loads {' and '.join(heavy) or 'neither sklearn nor torch'}."
