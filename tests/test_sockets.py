"""Hosts that are threads here exchange arrays over sockets, and notice who is gone."""

import socket
import threading

import numpy as np
import pytest

from phalanx.clusters import lines
from phalanx.errors import HostLost, InvalidInput
from phalanx.hosts import Place

torch = pytest.importorskip("torch")
from phalanx.clusters.sockets import SocketGroup  # noqa: E402

HOSTS, LONG, HOME = 3, 30, "127.0.0.1"


def each(work, count=HOSTS):
    """What `work(host)` returns on each host, or its error."""
    found = [None] * count

    def run(host):
        try:
            found[host] = work(host)
        except Exception as error:
            found[host] = error

    threads = [threading.Thread(target=run, args=(h,), daemon=True) for h in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), "a host hangs"
    return found


@pytest.fixture(scope="module", autouse=True)
def descriptors_that_torch_keeps():
    store_at(0, serves=True)


@pytest.fixture
def groups():
    served = store_at(0, serves=True)
    port = served.port
    made = each(lambda host: SocketGroup(Place(host, HOSTS), store_at(port), HOME, 20.0))
    yield made
    each(lambda host: made[host].leave())
    made.clear()


def store_at(port, serves=False):
    return torch.distributed.TCPStore(HOME, port, None, serves, wait_for_workers=False)


def quietly():
    pass


@pytest.mark.parametrize("size", [0, 1, 300_000])  # the last is more than a socket takes at once
def test_everybody_gets_everybody_s_piece(groups, size):
    def exchange(host):
        pieces = [np.full(size * (to != host), 10 * host + to, np.float32) for to in range(HOSTS)]
        places = [np.zeros(size * (by != host), np.float32) for by in range(HOSTS)]
        rows_Hn = np.zeros((HOSTS, 4))
        told = np.full(5, 7.0) if host == 1 else np.zeros(5)
        pending = groups[host].all_to_all(pieces, places)  # several are under way
        groups[host].all_gather(np.full(4, float(host)), rows_Hn).wait(quietly)
        pending.wait(quietly)
        groups[host].broadcast(told, 1).wait(quietly)
        return places, rows_Hn, told

    for host, (places, rows_Hn, told) in enumerate(each(exchange)):
        for by, place in enumerate(places):
            assert (place == 10 * by + host).all()
        assert rows_Hn[:, 0].tolist() == [0, 1, 2]
        assert (told == 7.0).all()


def test_whoever_waits_for_one_that_has_closed_its_lines_is_told_which(groups):
    for line in groups[2]._lines.values():
        line.socket.shutdown(socket.SHUT_RDWR)

    def gather(host):
        groups[host].all_gather(np.zeros(3), np.zeros((HOSTS, 3))).wait(quietly)

    for error in each(gather, 2):
        assert isinstance(error, HostLost)
        assert "host 2" in str(error)


def test_what_look_raises_ends_a_wait(groups):
    def look():
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        groups[0].all_gather(np.zeros(3), np.zeros((HOSTS, 3))).wait(look)


class Answers(dict):
    """A store."""

    def set(self, name, value):
        self[name] = value.encode()

    def get(self, name):
        while name not in self:
            pass
        return dict.__getitem__(self, name)


def test_a_stranger_is_turned_away():
    store = Answers()

    def join(host):
        if host == 1:
            address, port, _ = store.get("lines/0").decode().split()
            with socket.create_connection((address, int(port))) as stranger:
                stranger.sendall(lines.GREETING.pack(1, b"x" * 32))
                assert not stranger.recv(1)
        return lines.lines(Place(host, 2), store, HOME, 10.0)

    (zero,), (one,) = [found.values() for found in each(join, 2)]
    with zero, one:
        assert zero.getpeername() == one.getsockname()


def test_a_host_that_cannot_come_is_named():
    with pytest.raises(HostLost, match="host 1 has met the others"):
        lines.lines(Place(0, 2), Answers(), HOME, 0.1)


def test_an_address_is_of_the_interface_or_of_the_way():
    assert lines.own_address("127.0.0.1") == "127.0.0.1"
    assert lines.own_address("10.9.8.7", "lo") == "127.0.0.1"
    with pytest.raises(InvalidInput, match="network interface"):
        lines.own_address("127.0.0.1", "no-such-card")
