"""One BLAS thread a worker: as many workers as cores then use the machine, and bits stay equal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

THREAD_VARIABLES = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
)


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


class _Limiter:
    """BLAS libraries, and torch where it is loaded, on one thread each."""

    def __init__(self) -> None:
        _take_control()
        self._blas = _libraries().limit(limits=1)
        self._torch = sys.modules.get("torch")
        if self._torch is not None:
            self._threads = self._torch.get_num_threads()
            self._torch.set_num_threads(1)

    def restore(self) -> None:
        _take_control()
        self._blas.restore_original_limits()
        _take_control()  # and give it away: whoever is next to set a limit has it
        if self._torch is not None:
            self._torch.set_num_threads(self._threads)


def _take_control() -> None:
    """threadpoolctl 3.8 heeds one thread alone, the first that set a limit and lives; what
    others set is dropped without a word. Fits run in any thread, and may end in another one."""
    for library in _libraries().lib_controllers:
        let_go = getattr(library, "clear_controlling_thread", None)
        if let_go is not None:
            let_go(force=True)


_lock = threading.Lock()
_inside = 0
_limiter: _Limiter | None = None


def _afresh() -> None:
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


os.register_at_fork(after_in_child=_afresh)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS calls of this process run on one thread; afterwards on as many as before.

    Several threads may be inside at once: the first one in sets the limit, the last
    one out lifts it.
    """
    global _inside, _limiter
    with _lock:
        if _inside == 0:
            _limiter = _Limiter()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _limiter is not None:
                _limiter.restore()
