"""The courier of a host with several workers: a thread of the driver, beside the workers' lease."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from phalanx.clusters.hosts.starting import must_start
from phalanx.engine.courier import Courier
from phalanx.exchange.board import ABORT, Aborted
from phalanx.pure.timetable import Timetable


@contextmanager
def beside(courier: Courier | None, timetable: Timetable) -> Iterator[None]:
    """Within it the courier exchanges what the lease's ticks come to.

    Where it fails, the workers are told to stop, and its error is raised at the end instead of
    theirs.
    """
    if courier is None:
        yield
        return
    failed: list[BaseException] = []

    def carry() -> None:
        try:
            with np.errstate(all="ignore"):  # as in the workers; a thread begins without it
                courier.run(timetable)
        except Aborted:
            pass  # a worker of this host has failed, and its error is raised
        except BaseException as error:
            failed.append(error)
            courier.door[ABORT] = 1

    thread = threading.Thread(target=carry, name="phalanx-courier", daemon=True)
    must_start(thread)
    try:
        yield
    except Exception:
        courier.door[ABORT] = 1
        thread.join()
        if failed:
            raise failed[0] from None
        raise
    except BaseException:
        courier.door[ABORT] = 1
        thread.join()
        raise
    thread.join()
    if failed:
        raise failed[0]
