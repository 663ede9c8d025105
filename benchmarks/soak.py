"""Fits whose workers are killed, crashed and stopped at random. Writes into docs/reliability.md.

python benchmarks/soak.py [--faults 2000] [--seed 0] [--first 0] [--minutes M]
    [--spare KIND] [--no-page]

Each fit must end with the digest of the same fit by one undisturbed worker, and leave nothing
behind. The first that does not ends the soak with exit code 1, and with what it takes to repeat it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from phalanx import WorkerLost
from phalanx.run import Run
from remains import descriptors, remains
from soak_cases import Case, draw
from soak_page import Tally, rewrite
from storm import WEIGHTS, Storm, draw_blows

LONGEST = 120.0  # seconds that a fit may take, the storm included
MOST_BLOWS = 16  # a fit
SECONDS_BETWEEN_LINES = 10.0


class Broken(Exception):
    """A promise was not kept."""


def main() -> None:
    asked = arguments()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # with all it started
    tally, said = Tally(monotonic()), monotonic()
    number = asked.first
    while tally.n_faults < asked.faults and tally.seconds() < 60 * asked.minutes:
        one_fit(asked, number, tally)
        number += 1
        if monotonic() - said > SECONDS_BETWEEN_LINES:
            said = monotonic()
            print(f"fit {number:,}: {tally.line()}", flush=True)
    print("\n".join([tally.table(), *tally.remarkable]))
    if not asked.no_page:
        rewrite(tally, asked.seed)


def arguments() -> Namespace:
    parser = ArgumentParser(description="Fits whose workers are killed and stopped at random.")
    parser.add_argument("--faults", type=int, default=2000, help="signals that are sent in all")
    parser.add_argument("--seed", type=int, default=0, help="of configurations and moments")
    parser.add_argument("--first", type=int, default=0, help="number of the first fit")
    parser.add_argument("--minutes", type=float, default=120.0, help="at most")
    parser.add_argument(
        "--spare", action="append", default=[], choices=list(WEIGHTS), help="send none of these"
    )
    parser.add_argument("--no-page", action="store_true", help="leave docs/reliability.md alone")
    return parser.parse_args()


def one_fit(asked: Namespace, number: int, tally: Tally) -> None:
    """One case without and with a storm; exits with 1 where a promise is broken."""
    chance = Random(f"{asked.seed} {number}")
    case, blows = draw(chance), draw_blows(chance, MOST_BLOWS, asked.spare)
    about = f"--seed {asked.seed} --first {number}: {case}"
    with watched_over(about):
        try:
            tally.number = number
            check(case, Storm(blows, chance), tally)
        except Exception as error:
            print("\n".join([*tally.remarkable, tally.line()]))
            print(f"BROKEN after {tally.n_faults:,} faults. Repeat it with\n{about}", flush=True)
            if not isinstance(error, Broken):
                raise
            sys.exit(str(error))


@contextmanager
def watched_over(about: str) -> Iterator[None]:
    """Within it, a fit that takes too long ends the soak with all stacks."""

    def bark() -> None:
        print(f"HANGING for {LONGEST:.0f} seconds. Repeat it with\n{about}", flush=True)
        faulthandler.dump_traceback()
        os._exit(1)

    watchdog = threading.Timer(LONGEST, bark)
    watchdog.daemon = True
    faulthandler.dump_traceback_later(LONGEST + 5, exit=True)  # where no thread may run
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        faulthandler.cancel_dump_traceback_later()


def check(case: Case, storm: Storm, tally: Tally) -> None:
    """Compare the two fits. Raises Broken."""
    data = case.samples()
    calm = case.estimator(1).fit(*data).run_
    before = descriptors()
    try:
        with TemporaryDirectory() as folder, storm:
            run = fit_in_the_storm(case, data, Path(folder))
    except WorkerLost as lost:
        tally.lost(lost, storm.sent)
        check_message(lost)
    else:
        tally.fitted(run, storm.sent)
        check_same(calm, run)
        tally.same += 1
    gc.collect()  # an error's traceback may hold the arena in a cycle
    if left := remains(before):
        raise Broken(f"a fit must leave nothing behind; there is {', '.join(left)}")


def fit_in_the_storm(case: Case, data: tuple[Any, Any], folder: Path) -> Run:
    """The run of a fit by several workers; gone on from once, where the case says so."""
    kept = {"checkpoint": folder, "checkpoint_every": case.every} if case.every else {}
    workers = case.workers
    if case.resumed_at:
        fit(case, workers, data, kept, case.resumed_at)
        kept, workers = {**kept, "resume": True}, workers + 1
    return fit(case, workers, data, kept, None)


def fit(
    case: Case, workers: int, data: tuple[Any, Any], kept: dict[str, Any], last: int | None
) -> Run:
    """One fit, ended after the epoch `last`, resized along the way."""
    estimator = case.estimator(workers)

    def follow(epoch: int, record: object) -> bool:
        if case.resizes:
            estimator.resize(case.resizes[epoch % len(case.resizes)])
        return epoch == last

    callback = follow if case.resizes or last else None
    run: Run = estimator.fit(*data, callback=callback, **kept).run_
    return run


def check_same(calm: Run, run: Run) -> None:
    """Raise Broken unless both came to the same bits by the same way."""
    for name in ("digest", "losses", "scores", "rates", "reason"):
        one, other = getattr(calm, name), getattr(run, name)
        if one != other:
            raise Broken(f"{name} differs: {one} undisturbed, {other} in the storm; {run.events}")


def check_message(lost: WorkerLost) -> None:
    """Raise Broken unless the error says what it is to say."""
    if not (lost.task and lost.cause and lost.pid > 0 and str(lost.pid) in str(lost)):
        raise Broken(f"a WorkerLost must name task, cause and process; got {lost}")


if __name__ == "__main__":
    main()
