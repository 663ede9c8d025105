"""The pool: worker processes that stay warm between jobs, forked from one fork server."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from phalanx import references
from phalanx.clusters import wire
from phalanx.clusters.threads import THREAD_VARIABLES
from phalanx.errors import PhalanxError

SEND_PATIENCE = 10.0  # seconds for a message to be taken; a stopped process takes none


SERVER_LIVES = 4  # fork servers that are tried for one worker, if somebody kills them
SERVER_PATIENCE = 60.0  # seconds for the fork server's answer; loading its libraries takes one
NO_ROOM = (errno.EAGAIN, errno.ENOMEM)  # for one more process
ORPHANED = "its fork server was ended, and it with it"


class Member:
    """A worker process, seen from the driver. `due`: answers that it owes."""

    def __init__(self, rank: int, pid: int, sock: socket.socket) -> None:
        self.rank, self.pid, self.sock = rank, pid, sock
        self.due = 0


class Pool:
    """A fork server and the workers forked from it so far."""

    def __init__(self) -> None:
        self.is_open = True
        self.members: list[Member] = []
        self.path = import_path()
        self._libraries: tuple[str, ...] = ()
        self._changes = references.changes()
        self._start_server()

    def _start_server(self) -> None:
        mine, theirs = _socket_pair()
        with theirs:
            try:
                self._process = _serving(theirs.fileno())
            except OSError as error:
                mine.close()
                if error.errno in NO_ROOM:
                    raise _no_room("the fork server", error) from error
                raise
        mine.settimeout(SERVER_PATIENCE)
        self._server, self._owes = mine, True  # until it has answered once, it imports
        wire.send(mine, self.path)

    def load(self, libraries: tuple[str, ...]) -> None:
        """Have the fork server load what the workers of a job need, before they are forked.

        Those there are, forked before, are ended: each would take as long to load it as the server.
        """
        if set(libraries) - set(self._libraries):
            self._libraries = tuple(dict.fromkeys(self._libraries + libraries))
            self._ask_to_load()
            self._bury_all()

    def _ask_to_load(self) -> None:
        if not self._libraries:
            return
        try:
            self._exchange(("load", self._libraries))
        except (EOFError, OSError):
            self._process.kill()  # a late answer would be to the wrong question; mended at a fork
        except BaseException:
            end_pool(self)  # after half an exchange, the next answer would be to the wrong question
            raise

    def is_sound(self) -> bool:
        """Whether nobody owes an answer, nor has ended while there was nothing to do; idle
        processes say nothing."""
        if not self.is_open or any(member.due for member in self.members):
            return False
        poller = select.poll()
        for sock in (self._server, *(member.sock for member in self.members)):
            poller.register(sock, select.POLLIN)
        return not poller.poll(0)

    def take(self, n_workers: int) -> list[Member]:
        """The first `n_workers` workers; new ones where they have imported what is no more."""
        if self._changes != references.changes():
            self._changes = references.changes()
            self._bury_all()
        return [self.seat(rank) for rank in range(n_workers)]

    def seat(self, rank: int) -> Member:
        """The worker of that rank, forked if there is none.

        Raises PhalanxError where none can be started, and closes the pool.
        """
        return next((m for m in self.members if m.rank == rank), None) or self._fork(rank)

    def forget(self) -> None:
        """Leave the workers to the process that this one was forked from."""
        self.is_open, self.members = False, []

    def close(self) -> None:
        """End the workers and the fork server, and wait until they are gone."""
        self.is_open = False
        for member in self.members:
            member.sock.close()
        self.members = []
        if self._owes:  # it may import for seconds before it sees that its socket is closed
            self._process.kill()
        self._server.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel ends its workers with it
            self._process.wait()

    def bury(self, member: Member) -> str:
        """Make sure that a worker is gone, and forget it; returns what ended it, in words."""
        if not self.is_open:
            return ORPHANED
        self.members.remove(member)
        member.sock.close()
        try:
            code = self._exchange(("end", member.pid))
        except (EOFError, OSError):
            self._process.kill()  # stopped, perhaps; a late answer would be to the wrong question
            code = None
        except BaseException:
            end_pool(self)  # as when it is asked to load
            raise
        return ORPHANED if code is None else _cause(code)

    def _bury_all(self) -> None:
        for member in [*self.members]:
            self.bury(member)

    def _fork(self, rank: int) -> Member:
        mine, theirs = _socket_pair()
        mine.settimeout(SEND_PATIENCE)
        try:
            with theirs:
                pid = self._forked(rank, theirs.fileno())
        except BaseException as error:
            mine.close()
            end_pool(self)  # after half an exchange, the next answer would be to the wrong question
            if not isinstance(error, (EOFError, OSError)):
                raise
            raise PhalanxError(
                f"worker {rank} could not be started: the fork server ended, with exit status "
                f"{self._process.wait()}. What it printed, if anything, says why; a single worker "
                "(n_jobs=1, or workers=1) needs no process."
            ) from error
        member = Member(rank, pid, mine)
        self.members.append(member)
        return member

    def _forked(self, rank: int, descriptor: int) -> int:
        """The pid of a new worker; from a new fork server if somebody has ended the old one."""
        for _ in range(SERVER_LIVES - 1):
            try:
                return self._ask_for_fork(rank, descriptor)
            except (EOFError, OSError):
                self._process.kill()
                if self._process.wait() > 0:  # 0 may be all that is told of one that was killed
                    raise  # nobody killed it, so another one would not work either
                self._server.close()
                self._start_server()
                self._ask_to_load()
        return self._ask_for_fork(rank, descriptor)

    def _ask_for_fork(self, rank: int, descriptor: int) -> int:
        pid = self._exchange(("fork", rank), [descriptor])
        if isinstance(pid, OSError):
            raise _no_room(f"worker {rank}", pid)
        return int(pid)

    def _exchange(self, request: tuple[object, ...], descriptors: Sequence[int] = ()) -> Any:
        """What the fork server answers."""
        self._owes = True
        wire.send(self._server, request, descriptors)
        answer, _ = wire.receive(self._server)
        self._owes = False
        return answer


def _serving(descriptor: int) -> subprocess.Popen[bytes]:
    """The process of a new fork server."""
    code = "import sys; from phalanx.clusters.forkserver import main; main(int(sys.argv[1]))"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(descriptor)],
        pass_fds=[descriptor],
        env={**os.environ, **THREAD_VARIABLES, "PYTHONPATH": _package_path()},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _no_room(who: str, error: OSError) -> PhalanxError:
    return PhalanxError(
        f"{who} could not be started: the system had no room for one more process ({error}). End "
        "others, raise the limit (ulimit -u, or a container's pids.max), or use fewer workers; a "
        "single one (n_jobs=1, or workers=1) needs no process."
    )


def import_path() -> list[str]:
    """Where this process finds modules, the current folder by its name, if it still has one."""
    try:
        return [path or os.getcwd() for path in sys.path]
    except FileNotFoundError:
        return [path for path in sys.path if path]


def _package_path() -> str:
    """Where the fork server finds phalanx itself; it is told the rest of the path by message."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))


def _cause(code: int) -> str:
    if code >= 0:
        return f"it exited with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, neither of them on the place of a standard stream that is closed."""
    ends = socket.socketpair()
    pair = tuple(end if end.fileno() > 2 else _moved(end) for end in ends)
    _sockets.update(pair)
    return pair  # type: ignore[return-value]


def _moved(end: socket.socket) -> socket.socket:
    import fcntl

    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


_sockets: WeakSet[socket.socket] = WeakSet()  # both ends of all that lead to workers and servers
_pool: Pool | None = None
_set_aside: list[Pool] = []  # of jobs in whose callbacks others run
_spare: list[Pool] = []  # of jobs that ran in callbacks; the next epoch's may be alike


def warm_pool() -> Pool:
    """The process's pool, started if there is none.

    Started anew if `sys.path` has changed, or if one of its processes was killed while idle.
    """
    global _pool
    if _pool is not None and not (_pool.path == import_path() and _pool.is_sound()):
        shutdown()
    if _pool is None:
        _pool = Pool()
    return _pool


@contextmanager
def further_pool() -> Iterator[Pool]:
    """A pool for a job that runs inside another one, in its callback."""
    global _pool
    if _pool is not None:
        _set_aside.append(_pool)
    outer, _pool = _pool, _spare.pop() if _spare else None
    try:
        yield warm_pool()
    finally:
        if _pool is not None:
            _spare.append(_pool)
        _pool = outer
        if outer is not None:
            _set_aside.remove(outer)


def end_further_pools() -> None:
    """End those of the jobs that ran inside another one, since that one is over."""
    while _spare:
        end_pool(_spare.pop())


def shutdown() -> None:
    """End all worker processes. The next fit that wants some starts them anew."""
    if _pool is not None:
        end_pool(_pool)


def end_pool(pool: Pool) -> None:
    """End a pool's processes, and no other pool's: a job in another thread may be using that."""
    global _pool
    if pool is _pool:
        _pool = None
    if pool.is_open:
        with contextlib.suppress(OSError):
            pool.close()


def _forget_after_fork() -> None:
    """A forked child of the caller has no workers yet; it starts its own when it needs some."""
    global _pool
    pools = [*_set_aside, *_spare, *filter(None, [_pool])]
    _set_aside.clear()
    _spare.clear()
    _pool = None
    for pool in pools:
        pool.forget()
    for sock in [*_sockets]:  # a worker's end must close with the worker
        sock.close()


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_after_fork)
