"""The caller's side of a training on Ray: who is a host, in which group, and what hosts ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import ray as untyped_ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from phalanx.clusters import wire
from phalanx.clusters.hosts.launch import Launch
from phalanx.clusters.ray.host import Asked, Host, Order, Proxies
from phalanx.errors import HostLost, TooFewHosts
from phalanx.pure.agreement import FLAG, REFUSE, differences
from phalanx.pure.arrays import Array
from phalanx.pure.hosts import Place

if TYPE_CHECKING:
    from phalanx.clusters.ray.cluster import RayCluster

ray: Any = untyped_ray

HEAR = 5.0  # seconds of one call that waits for a host's question
TURN = 0.5  # seconds between two looks at the nodes
CONNECT = 60.0  # seconds that Ray may take to start an actor
END = 15.0  # seconds that a host gets to write its last checkpoint
GRACE = 4.0  # seconds in which it shows why hosts have lost each other


@dataclass(eq=False)  # hence each is itself alone, and can be a key
class Member:
    """A host. address: None until it has come. trains: whether it was told to."""

    actor: Any
    node: str
    address: str | None = None
    trains: bool = False


class Driver:
    """Of one training. What it waits for are Ray's references, each with who answers it."""

    def __init__(self, cluster: RayCluster, train: Callable[..., Any], training: Any) -> None:
        job, *arguments, self.following = training
        self.cluster = cluster
        is_flagged = FLAG in (cluster.mixed, self.following.mixed)  # whoever of them was asked
        self._mixed = FLAG if is_flagged else REFUSE
        self.members: list[Member] = []
        self._refs: dict[Any, tuple[Callable[[Member, Any], None], Member]] = {}
        self._group: list[Member] = []
        self._generation = 0
        self._kind: dict[str, Any] = {}
        self._refused: set[str] = set()  # nodes
        self._is_broken_since: float | None = None
        self._results: dict[Member, Any] = {}
        self._values_XN: Array | None = None
        saved = self.following.resume
        # the last epoch and the last settings that were asked for, and what was answered
        self._begun = len(saved.facts["records"]) if saved else 0
        self._epoch: tuple[int, Any] = self._begun, (False, None)
        self._known_settings: tuple[int, Any] = (-1, None)
        self._last_end = ""  # of a host, in Ray's words
        self._work = ray.put((train, wire.pack(job), *arguments, *self._remote_following()))
        self._remote_host = ray.remote(max_concurrency=4, max_restarts=0)(Host)

    def run(self) -> Any:
        """Until one host has finished; returns what it returned.

        Raises what a host raised, and HostLost where there are too few hosts for too long.
        """
        self._short_since = monotonic()
        try:
            while not self._is_over():
                self._hire()
                self._regroup()
                self._hear()
            return self._results.get(self._group[0]) or next(iter(self._results.values()))
        finally:
            for member in self.members:
                with contextlib.suppress(Exception):
                    ray.kill(member.actor)

    def _is_over(self) -> bool:
        """Whether the first host has finished, whose record is the fullest; if it is lost now,
        another one's will do."""
        is_lost = self._is_broken_since is not None
        return bool(self._results) and (is_lost or self._group[0] in self._results)

    def _remote_following(self) -> tuple[Any, Proxies]:
        following = self.following
        proxies = Proxies(
            hears_epochs=following.on_epoch is not None,
            hears_events=following.on_event is not None,
            has_mirror=following.mirror is not None,
            has_agenda=following.agenda is not None,
            agenda_changes=following.agenda is not None and following.agenda.changes,
        )
        none = dict.fromkeys(("on_epoch", "on_event", "watch", "control", "mirror", "agenda"))
        return replace(following, mixed=self._mixed, **none), proxies

    # ---- who is a host

    def _hire(self) -> None:
        """Have a host on every node that has room for one, until there are enough."""
        used = {member.node for member in self.members} | self._refused
        missing = self.cluster.hosts - len(self.members)
        free = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in used]
        for node in [node for node in free if self._has_room(node)][: max(0, missing)]:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            actor = self._remote_host.options(
                num_cpus=self.cluster.workers_per_host or 1,
                num_gpus=self.cluster.gpus_per_host,
                scheduling_strategy=where,
            ).remote(2 * self.cluster.patience + CONNECT)
            member = Member(actor, node["NodeID"])
            self.members.append(member)
            self._await(actor.introduce.remote(), self._come, member)

    def _has_room(self, node: dict[str, Any]) -> bool:
        has = node["Resources"]
        return bool(
            has.get("CPU", 0) >= (self.cluster.workers_per_host or 1)
            and has.get("GPU", 0) >= self.cluster.gpus_per_host
        )

    def _come(self, member: Member, introduced: tuple[str, dict[str, Any]]) -> None:
        """A host that comes while others train must be of their kind, or it is left out."""
        member.address, kind = introduced
        self._kind = self._kind or kind
        found = differences([self._kind, kind])
        if found and self._generation and self._mixed == REFUSE:
            self._refused.add(member.node)
            self._lose(member)

    def _lose(self, member: Member) -> None:
        """A host is gone, or cannot go on."""
        if member in self.members:
            self.members.remove(member)
            with contextlib.suppress(Exception):
                ray.kill(member.actor)
        if member in self._group:
            self._is_broken_since = self._is_broken_since or monotonic() - GRACE
        self._refs = {ref: call for ref, call in self._refs.items() if call[1] is not member}

    # ---- which group

    def _regroup(self) -> None:
        """Put those who have come into one group, if they are not, and are enough.

        Raises HostLost where they are too few for too long.
        """
        come = [member for member in self.members if member.address is not None]
        come.sort(key=lambda member: member not in self._group)  # who trains keeps its place
        now = monotonic()
        if len(come) >= (self.cluster.min_hosts if self._generation else self.cluster.hosts):
            self._short_since = now
        is_late = now - self._short_since > self.cluster.patience
        if is_late and len(come) < self.cluster.min_hosts:
            self._end_training()
            raise self._too_few(len(come))
        is_broken = self._is_broken_since is not None and now - self._is_broken_since > GRACE
        if self._generation == 0:
            may_begin = len(come) == self.cluster.hosts or is_late
        else:
            may_begin = len(come) >= self.cluster.min_hosts and self._is_broken_since is None
        if (is_broken and len(come) >= self.cluster.min_hosts) or (
            may_begin and set(come) != set(self._group)
        ):
            self._form(come)

    def _too_few(self, n_hosts: int) -> HostLost:
        cluster = self.cluster
        room = f"{cluster.workers_per_host or 1} CPUs"
        room += f" and {cluster.gpus_per_host} GPUs" if cluster.gpus_per_host else ""
        return TooFewHosts(cluster.min_hosts, n_hosts, cluster.patience, room, self._last_end)

    def _end_training(self) -> None:
        """Have the first of those who are left write what the training has come to."""
        left = [member for member in self._group if member in self.members and member.trains]
        ends = [ref for ref, (_, member) in self._refs.items() if member in left[:1]]
        if ends:
            with contextlib.suppress(Exception):
                ray.get(left[0].actor.end.remote(), timeout=END)
                ray.wait(ends, num_returns=len(ends), timeout=END)

    @property
    def _has_answered(self) -> bool:
        """Whether the caller has been asked for more than a training that begins asks for."""
        return self._epoch[0] > self._begun or self._known_settings[0] > self._begun

    def _all_lost(self) -> HostLost:
        return HostLost(None, "is needed that has the training's state; all were lost at once")

    def _has_state(self, members: list[Member]) -> bool:
        """Whether one of them has begun; who was told to train may have met nobody yet."""
        asked = [member.actor.has_begun.remote() for member in members if member.trains]
        while asked:
            ready, asked = ray.wait(asked, num_returns=1, timeout=self.cluster.patience)
            if not ready:
                break  # those who are left stand still
            with contextlib.suppress(RayActorError, ActorUnavailableError):
                if ray.get(ready[0]):
                    return True
        return False

    def _form(self, members: list[Member]) -> None:
        """Order these into a new group; who does not train yet begins."""
        was_broken, before = self._is_broken_since is not None, self._group
        if self._has_answered and not self._has_state(members):
            raise self._all_lost()
        self._generation += 1
        self._group, self._is_broken_since = members, None
        orders: list[Any] = []
        try:
            port = ray.get(members[0].actor.listen.remote(), timeout=self.cluster.patience)
            for host, member in enumerate(members):
                place = Place(host, len(members))
                how = Launch(
                    place,
                    str(members[0].address),
                    port,
                    join_seconds=self.cluster.patience,
                    host_seconds=self.cluster.host_seconds,
                )
                order = Order(how, self._generation)
                orders.append(member.actor.order.remote(order, was_broken))
            self._deliver(orders, members)
            # all of them: where the group before never came about, one of them may train alone
            staying = [member for member in members if member in before]
            pauses = [member.actor.pause.remote(self._generation) for member in staying]
            ray.get(pauses, timeout=self.cluster.patience)
        except (RayActorError, ActorUnavailableError, TimeoutError) as error:
            self._is_broken_since = monotonic()  # whose end it was shows by its references
            if isinstance(error, TimeoutError) and not orders:
                self._lose(members[0])  # it is there, and stands still
        for member in members:
            if not member.trains and member in self.members:
                member.trains = True
                self._await(member.actor.train.remote(self._work), self._finish, member)
                self._listen(member)

    def _deliver(self, orders: list[Any], members: list[Member]) -> None:
        """Wait until all have their orders; who does not take his stands still, and is lost."""
        ready, _ = ray.wait(orders, num_returns=len(orders), timeout=self.cluster.patience)
        late = [m for order, m in zip(orders, members, strict=True) if order not in ready]
        for member in late:
            self._lose(member)
        ray.get(ready)
        if late:
            raise TimeoutError

    # ---- what hosts say

    def _await(self, ref: Any, then: Callable[[Member, Any], None], member: Member) -> None:
        self._refs[ref] = then, member

    def _listen(self, member: Member) -> None:
        self._await(member.actor.hear.remote(HEAR), self._answer, member)

    def _hear(self) -> None:
        """What has come within a moment. Raises what a host raised."""
        if not self._refs:
            sleep(TURN)
            return
        ready, _ = ray.wait(list(self._refs), num_returns=1, timeout=TURN)
        for ref in ready:
            if ref not in self._refs:
                continue
            then, member = self._refs.pop(ref)
            try:
                value = ray.get(ref)
            except RayTaskError as error:
                self._take_error(member, error)
            except (RayActorError, ActorUnavailableError) as error:
                self._last_end = str(error).strip().partition("\n")[0]
                self._lose(member)
            else:
                then(member, value)

    def _take_error(self, member: Member, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, HostLost):
            self._lose(member)
            return
        cause.add_note(f"raised on the host on node {member.node}")
        raise cause

    def _finish(self, member: Member, result: Any) -> None:
        self._results[member] = result

    def _answer(self, member: Member, asked: Asked | None) -> None:
        """Answer a host, and listen again."""
        if asked is not None:
            if asked.what == "regroup" and asked.told < self._generation:
                pass  # it is in a newer group by now
            elif asked.what == "regroup":
                self._is_broken_since = self._is_broken_since or monotonic()
            elif asked.what == "event":
                self.following.on_event(asked.told)
            elif asked.what == "show":
                self._show(*asked.told)
            else:
                answer = self._end_epoch if asked.what == "epoch" else self._settings
                member.actor.answer.remote(answer(asked.told))
        self._listen(member)

    def _show(self, values_XN: Array, scalars_KC: Array) -> None:
        self._values_XN = values_XN.copy()  # what comes out of Ray's store cannot be written to
        self.following.mirror.show(self._values_XN, scalars_KC)

    def _end_epoch(self, told: tuple[int, Any]) -> Any:
        """Whether to stop, and the parameters if a callback has changed them.

        Each epoch is told to the caller once, though another host may ask again.
        """
        if told[0] > self._epoch[0]:
            self._epoch = told[0], self._tell_epoch(told)
        return self._epoch[1]

    def _tell_epoch(self, told: tuple[int, Any]) -> tuple[bool, Array | None]:
        stops = bool(self.following.on_epoch(*told))
        mirror, values_XN = self.following.mirror, self._values_XN
        if mirror is None or values_XN is None or not mirror.changed(values_XN[0]):
            return stops, None
        return stops, values_XN[0]

    def _settings(self, epoch: int) -> Any:
        if epoch != self._known_settings[0]:
            self._known_settings = epoch, self.following.agenda.settings(epoch)
        return self._known_settings[1]
