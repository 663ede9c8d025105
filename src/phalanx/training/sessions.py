"""A training's way from session to session, as hosts and workers come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import RLock
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from phalanx.clusters.base import Session, Tell
from phalanx.clusters.control import Control
from phalanx.clusters.hosts.launched import Hosts
from phalanx.clusters.hosts.machine import fingerprint
from phalanx.clusters.hosts.talking import agree, gather
from phalanx.data.samples import Samples
from phalanx.errors import HostLost, HostsDiffer, InvalidInput, NonFiniteLoss
from phalanx.exchange.group import Group
from phalanx.job import Job
from phalanx.pure.agreement import FLAG
from phalanx.pure.arrays import Array
from phalanx.pure.hosts import ALONE
from phalanx.run import Event, digest
from phalanx.training.afterwards import DIFFER, WHY_DIFFERENT, warnings_of
from phalanx.training.claim import claimed
from phalanx.training.course import Course, History, telling
from phalanx.training.facts import flat
from phalanx.training.following import Following
from phalanx.training.handover import hand_over
from phalanx.training.keeper import Keeper, identity_of, resume
from phalanx.training.staffing import cluster_of, regrouped
from phalanx.training.state import Standing, State, reason_to_end


class Sessions:
    """What stays the same from session to session; the job changes with workers and hosts."""

    def __init__(
        self,
        job: Job,
        start: State,
        training: Samples,
        validation: Samples | None,
        following: Following,
        history: History,
    ) -> None:
        self.job, self.start = job, start
        self.training, self.validation = training, validation
        self.following, self.history = following, history
        self.control = following.control or Control(job.n_workers)
        self.tell = telling(history, following)
        self._has_resumed = self.is_interrupted = False
        self._keeper: Keeper | None = None
        self._held = ExitStack()

    def close(self) -> None:
        """Leave the folder of checkpoints, when nothing is being written to it any more."""
        if self._keeper is not None:
            self._keeper.wait()
        self._held.close()

    def interrupt(self) -> None:
        """The first Ctrl-C: end at the next step's edge, be it in a session that is yet to come.

        Raises KeyboardInterrupt where there is nothing yet that could be lost.
        """
        session = self.control.session
        if session is None and not self.history.spans:
            raise KeyboardInterrupt
        self.is_interrupted = True
        if session is not None:
            session.interrupt()

    def begin(
        self, standing: Standing, hosts: Hosts, group: Group | None
    ) -> tuple[Standing, Group | None]:
        """Where to begin: at the start, or at a checkpoint that this host or another one has."""
        lost: HostLost | None = None
        try:
            with telling_others(group):
                if group is not None:
                    self.agree(group)
                self.keeper_of(group)  # whose folder is checked before any work starts
                standing = self._resumed(standing)
                return standing if group is None else hand_over(group, standing), group
        except HostLost as error:
            lost = error
        group = hosts.next(group, lost)
        with telling_others(group):
            self.keeper_of(group)
            standing = self._resumed(standing)
        return self.regroup(standing, hosts, group, lost)

    def _identity(self) -> dict[str, Any]:
        return identity_of(self.job, self.training, self.validation, self.following.told)

    def _resumed(self, standing: Standing) -> Standing:
        """Where the checkpoint stands, if there is one and it has not been gone on from."""
        saved = self.following.resume
        if saved is None or self._has_resumed:
            return standing
        standing = resume(saved, self._identity())
        standing.reason = reason_to_end(self.job.rule, standing)
        if standing.reason is not None:
            standing.state.take_best()
        self._has_resumed = True
        self.tell(Event("resumed", standing.state.updates, f"from {saved.path}", at=monotonic()))
        return standing

    def run(self, standing: Standing, group: Group | None) -> tuple[Standing, HostLost | None]:
        """Train on with these workers and hosts; where it then stands, and who was lost."""
        job = self.job = regrouped(self.job, self.control.workers)
        cluster = cluster_of(job.model, job.n_seats, job.n_workers, group)
        opened = cluster.session(job, self.training, self.validation, self.tell)
        with opened as session, self._attached(session):
            keeper = self.keeper_of(group)
            course = Course(job, session, standing, self.history, self.following, keeper, group)
            try:
                standing = course.run()
            except NonFiniteLoss:  # raised before anybody can have begun to update
                course.show()
                raise
            except HostLost as lost:  # likewise: nobody updates before all has come
                course.show()
                return course.halted(), lost
        if group is not None and standing.reason is not None:
            compare_ends(group, standing, self.tell)
        return standing, None

    @contextmanager
    def _attached(self, session: Session) -> Iterator[None]:
        """Within it, what the user wishes reaches the session."""
        self.control.attach(session)
        try:
            if self.is_interrupted:  # while workers or hosts changed, which came first
                session.interrupt()
            yield
        finally:
            self.control.attach(None)

    def regroup(
        self, standing: Standing, hosts: Hosts, group: Group | None, lost: HostLost | None
    ) -> tuple[Standing, Group | None]:
        """Go on with other hosts, from where the furthest of them stands.

        Where one of these is lost before all know that, what this host has is what it had.
        """
        while True:
            place = ALONE if group is None else group.place
            why = "others have come" if lost is None else lost.brief
            what = f"{place.count} from now on; {why}"
            self.tell(Event("hosts changed", standing.state.updates, what, at=monotonic()))
            self.job = replace(self.job, place=place)
            if group is None:
                return standing, group
            try:
                with telling_others(group):
                    self.agree(group)
                    return hand_over(group, standing), group
            except HostLost as error:
                lost = error
            group = hosts.next(group, lost)

    def next_group(
        self, standing: Standing, hosts: Hosts, group: Group | None, lost: HostLost | None
    ) -> Group | None:
        """As Hosts.next of clusters/hosts/launched.py does. Where a host that was not the first is
        the one that is left at the end, it keeps what it has."""
        try:
            return hosts.next(group, lost)
        except HostLost as error:
            if self.following.hosts is not None:
                self.keep(standing, None)
            for said in warnings_of(self.history.events):
                error.add_note(said)
            raise

    def agree(self, group: Group) -> None:
        """Make sure that all hosts train the same; a host that comes later does so as well."""
        job, start, following = self.job, self.start, self.following
        self.job, events = agreed(group, job, start, self.training, self.validation, following)
        self.history.events += events

    def keeper_of(self, group: Group | None) -> Keeper | None:
        """Who writes checkpoints, on the host that is to."""
        following = self.following
        if following.checkpoints is None or not (group is None or group.place.is_first):
            return None
        if self._keeper is None:
            keeper = Keeper(*following.checkpoints, self.tell)
            if following.hosts is None:  # else the caller has claimed it, for all hosts
                self._held.enter_context(claimed(keeper.folder))
            self._keeper = keeper
            self._keeper.identity = self._identity()
        return self._keeper

    def keep(self, standing: Standing, group: Group | None) -> None:
        """Write a checkpoint of where it stands, if there are to be any."""
        if keeper := self.keeper_of(group):
            keeper.close(standing)


_speakers: WeakKeyDictionary[Group, RLock] = WeakKeyDictionary()


@contextmanager
def in_one_thread(group: Group | None) -> Iterator[None]:
    """Within it, this thread alone speaks with the other hosts: what several threads say would
    reach others than it is meant for.

    Raises InvalidInput where another thread does.
    """
    if group is None:
        yield
        return
    speaker = _speakers.setdefault(group, RLock())
    if not speaker.acquire(blocking=False):
        raise InvalidInput(
            "where several hosts train, fits come one after another, in the same order on all; "
            "another thread of this program is training. Wait until it is done, or fit in the "
            "thread whose callback this is."
        )
    try:
        yield
    finally:
        speaker.release()


@contextmanager
def telling_others(group: Group | None) -> Iterator[None]:
    """Let the other hosts know of what makes this one fail, unless they know by themselves."""
    try:
        yield
    except (HostLost, HostsDiffer):
        raise
    except BaseException as error:
        if group is not None:
            group.failed(f"{type(error).__name__}: {error}")
        raise


def agree_on_point(group: Group, x_N: Array, evaluations: int) -> None:
    """Make sure that all hosts of a minimiser, which each follows by itself, are at one point.

    Raises HostsDiffer: they would wait for each other in different evaluations.
    """
    digests = gather(group, f"evaluation {evaluations} of L-BFGS", digest(x_N, x_N[:0]))
    if len(set(digests)) > 1:
        raise HostsDiffer(
            "the hosts of a training must come to the same weights; after as many as "
            f"{evaluations} evaluations of L-BFGS they are at others. {WHY_DIFFERENT}"
        )


def compare_ends(group: Group, standing: Standing, tell: Tell) -> None:
    """Wait for the other hosts' last word, since nobody leaves before all have what they need to
    end; tell where they have come to other ends."""
    state = standing.state
    standing.digest = digest(state.params_N, state.state_MN)
    try:
        digests = gather(group, "the end of a session", standing.digest)
    except HostLost as lost:
        group.failed(lost.brief)  # whoever still waits for me need not
        return
    if len(set(digests)) > 1:
        ends = ", ".join(f"host {host}: {other[:12]}" for host, other in enumerate(digests))
        text = f"the hosts came to different weights (digests of {ends})"
        tell(Event(DIFFER, state.updates, text, at=monotonic()))


def agreed(
    group: Group,
    job: Job,
    start: State,
    training: Samples,
    validation: Samples | None,
    following: Following,
) -> tuple[Job, list[Event]]:
    """The job on this one of several hosts, if all are to train the same; what they differ in.

    Raises HostsDiffer.
    """
    facts = flat(identity_of(job, training, validation, following.told)) | {
        "max_epochs": job.rule.max_epochs,
        "loss_threshold": job.rule.loss_threshold,
    }
    if not any(gather(group, "the beginning of a training", following.resume is not None)):
        facts["initial parameters"] = digest(start.params_N, start.state_MN)
    found = agree(group, fingerprint(), facts, following.mixed == FLAG)
    events = [Event("hosts differ", start.updates, text, at=monotonic()) for text in found]
    return replace(job, place=group.place, is_mixed=bool(found)), events
