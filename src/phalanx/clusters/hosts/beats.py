"""Signs of life between hosts, in the store where they met.

Twice a second each host counts up a number of its own there and looks at the others'. A host whose
number stands still for too long is lost; one that fails, or leaves, says so in the same place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from phalanx.clusters.hosts.starting import must_start
from phalanx.errors import HostLost
from phalanx.pure.hosts import Place

EVERY = 0.5  # seconds
FAREWELL = 3.0  # seconds that the others get to hear why a host has failed
STILL = 3 * EVERY  # of whom no sign has come for so long need not be waited for with a farewell
AWAY = 2.0  # seconds without a look, after which a silence is counted anew
LEFT, GONE, FAILED = "left", "gone", "failed "


class Beats:
    """Of this host, and of all others as it sees them."""

    def __init__(self, place: Place, store: Any, host_seconds: float) -> None:
        self.place, self._store, self._bound = place, store, host_seconds
        self._others = [host for host in range(place.count) if host != place.host]
        self._said = dict.fromkeys(self._others, "0")
        self._heard = dict.fromkeys(self._others, monotonic())
        self._checked = self._since = self._answered = monotonic()
        self._last_word = LEFT
        self._is_over = threading.Event()
        self._interrupted: str | None = None
        self._store.set(str(place.host), "0")
        self._thread = threading.Thread(target=self._beat, name="phalanx-beats", daemon=True)

    def start(self) -> None:
        """Once all hosts are there."""
        self._heard = dict.fromkeys(self._others, monotonic())
        must_start(self._thread)

    def check(self) -> None:
        """Raise HostLost where another host has failed, has left, or is silent for too long.

        To be called all the time while something is waited for: a silence counts from then on, for
        before I may have been away myself.
        """
        if self._interrupted is not None:
            raise HostLost(None, self._interrupted)
        now = monotonic()
        if now - self._checked > AWAY:
            self._since = now
        self._checked = now
        for host in self._others:
            said, silence = self._said[host], now - max(self._heard[host], self._since)
            if said.startswith(FAILED):
                raise HostLost(host, f"has failed: {said.removeprefix(FAILED)}")
            # what it had sent before may be on its way
            if said in (LEFT, GONE) and silence > FAREWELL:
                raise HostLost(host, "has left the training, or has ended its program")
            if silence > self._bound:
                raise HostLost(host, f"has given no sign of life for {self._bound:.0f} s")

    def interrupt(self, why: str) -> None:
        """Have the next look find the hosts lost."""
        self._interrupted = why

    def lost(self, why: str) -> HostLost:
        """The error for a connection that broke: who it was shows in a moment, as a rule."""
        until = monotonic() + 3 * EVERY
        while monotonic() < until and not self._is_over.wait(EVERY / 5):
            try:
                self.check()
            except HostLost as error:
                return error
        return HostLost(None, f"is gone ({brief(why)})")

    def failed(self, why: str) -> None:
        """Say that this host cannot go on, and why."""
        self._part(FAILED + why[:2000])

    def close(self) -> None:
        """Leave, without a word if the store is gone."""
        self._part(LEFT)

    def _part(self, word: str) -> None:
        """Let the thread say the last word, and not wait for it where the store does not answer."""
        if not self._thread.is_alive():  # as in a forked child, which the others do not know
            return
        if not self._is_over.is_set():
            self._last_word = word
            self._is_over.set()
        answers = monotonic() - self._answered < STILL
        self._thread.join(FAREWELL + EVERY if answers else EVERY)

    def _say(self, what: str) -> None:
        """Tell the others, and give them a moment to hear it: the store may end with me, and what
        I have sent is lost with the sockets where it was not read yet."""
        until = monotonic() + FAREWELL
        self._store.set(str(self.place.host), what)
        self._wait_for(lambda said: said in (LEFT, GONE) or said.startswith(FAILED), until)
        if self.place.is_first:  # the store may be mine: let the others go first
            self._wait_for(lambda said: said == GONE, until)
        self._store.set(str(self.place.host), GONE)

    def _wait_for(self, has_said: Callable[[str], bool], until: float) -> None:
        """For a word of all others who still give signs of life."""
        while monotonic() < until:
            self._listen()
            if all(has_said(said) or self._is_still(host) for host, said in self._said.items()):
                return
            sleep(EVERY / 10)

    def _is_still(self, host: int) -> bool:
        """Whether a host has stopped counting, and has not said why."""
        return self._said[host].isdecimal() and monotonic() - self._heard[host] > STILL

    def _beat(self) -> None:
        """All that is said after the beginning: whoever asks the store may have to wait long."""
        count = 0
        try:
            while not self._is_over.wait(EVERY):
                count += 1
                self._store.set(str(self.place.host), str(count))
                self._listen()
            self._say(self._last_word)
        except Exception:  # the store is gone, and with it the signs of all others
            return

    def _listen(self) -> None:
        for host in self._others:
            said = self._store.get(str(host)).decode()
            self._answered = monotonic()
            if said != self._said[host]:
                self._said[host], self._heard[host] = said, self._answered


def brief(why: str) -> str:
    """The gist of gloo's message: without the place in its source, and its advice."""
    return why.rpartition("cc:")[2].partition("] ")[2].partition(". ")[0] or why
