"""Train a case whenever standard input asks for it. See checkouts.py, which starts this.

The first line printed is where phalanx was imported from; then, for each line of epochs read, the
seconds a step.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import phalanx
from cases import WITH_IRIS
from contestants import phalanx as phalanx_of


def main() -> None:
    key, n_samples, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    case = replace(WITH_IRIS[key], n_samples=n_samples)
    contestant = phalanx_of(case, case.samples(), workers)
    print(phalanx.__file__, flush=True)
    for line in sys.stdin:
        print(contestant.round(int(line)), flush=True)


if __name__ == "__main__":
    main()
