"""A training's course: who follows it, and its way through a session, lease by lease."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from struct import Struct

from phalanx.arena import Arena
from phalanx.clusters.base import Session, Tell, Watch
from phalanx.clusters.hosts.talking import gather, lead
from phalanx.engine.ledger import Ledger
from phalanx.exchange.board import HALT, INTERRUPT, LAST, NEVER, OPENED, REGROUP
from phalanx.exchange.group import Group
from phalanx.job import LEASE_EPOCHS, SPAN_COLUMNS, Job, Lease
from phalanx.pure.stopping import Reason
from phalanx.run import EpochRecord, Event, Span
from phalanx.training.following import Following
from phalanx.training.keeper import Keeper
from phalanx.training.state import Standing, reason_to_end, state_of

SPAN = Struct(f"{SPAN_COLUMNS}d")  # read one by one: thousands of lists at once set off the
# collector, which then looks at all that was ever imported


@dataclass
class History:
    """What has happened in a training so far."""

    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def telling(history: History, following: Following) -> Tell:
    """Who writes events down, and tells whoever follows."""

    def tell(event: Event) -> None:
        history.events.append(event)
        if following.on_event is not None:
            following.on_event(event)

    return tell


class Course:
    """A training's way through one session, from where it stands."""

    def __init__(
        self,
        job: Job,
        session: Session,
        standing: Standing,
        history: History,
        following: Following,
        keeper: Keeper | None,
        group: Group | None,
    ) -> None:
        self.job, self.session, self.arena = job, session, session.arena
        self.standing, self.history, self.following = standing, history, following
        self.keeper, self.group = keeper, group
        self.door = session.arena.words("door")
        self.ledger = Ledger(session.arena, job.n_validation > 0)
        state = standing.state
        self.lease = Lease(state.epochs, 0, 0, state.updates, state.place)
        state.load(session.arena)
        agenda = following.agenda
        self._pauses = following.on_epoch is not None or (agenda is not None and agenda.changes)

    def run(self) -> Standing:
        """Lease after lease until there is a reason to stop, or the session is to change.

        Raises HostLost; `halted` then says where it stands.
        """
        return self._stand(self._go_on())

    def _go_on(self) -> Reason | None:
        """Lease after lease."""
        if self.group is not None:
            self._pauses = any(gather(self.group, "the beginning of a lease", self._pauses))
        reason = self._ask_again()
        while reason is None and self.door[HALT] != REGROUP:
            epochs = self._run_lease()
            if epochs:
                reason = epochs[-1].reason
                if self._epoch_ends(epochs[-1]):
                    reason = reason or Reason.CALLBACK
            if reason is None and self.door[HALT] == INTERRUPT:
                reason = Reason.INTERRUPTED  # else Ctrl-C came when there was nothing left to end
        return reason

    def _ask_again(self) -> Reason | None:
        """What the caller has said of the last epoch: who heard it may be the host that was lost.

        A caller on another host remembers, and nobody else is asked again. The epoch may have been
        the last one all the same.
        """
        records = self.standing.records
        if not (records and self.lease.place == 0):
            return None
        is_remote = self.following.hosts is not None
        stops = is_remote and self._pauses and self._epoch_ends(records[-1])
        reason = reason_to_end(self.job.rule, self.standing)
        return reason or (Reason.CALLBACK if stops else None)

    def halted(self) -> Standing:
        """Where it stands after an exchange that failed, in which nobody has updated anything."""
        reason: Reason | None = None
        if self.door[OPENED] > self.lease.tick:
            self.door[LAST] = self.door[OPENED] - 1
            epochs = self._take(self.lease)
            if epochs and not self._pauses:  # else the caller is to hear of it first
                reason = epochs[-1].reason
        return self._stand(reason)

    def _stand(self, reason: Reason | None) -> Standing:
        self.standing.reason = reason
        self.standing.state = state_of(self.job, self.arena, self.lease, reason is not None)
        return self.standing

    def _epoch_ends(self, record: EpochRecord) -> bool:
        """Let the user's callback see it; whether the callback wants to stop.

        With several hosts each calls its own; what the first one's says, and what it has made of
        the parameters, holds for all.
        """
        on_epoch, mirror = self.following.on_epoch, self.following.mirror
        values_N = self.arena["values"][0]
        stops = has_changed = False
        if on_epoch is not None:
            if mirror is not None:
                scalars_KC = self.arena["scalars"][self.lease.updates % 2]
                mirror.show(self.arena["values"], scalars_KC)
            with self.session.in_callback():
                stops = bool(on_epoch(len(self.standing.records), record))
            has_changed = mirror is not None and mirror.changed(values_N)
        if self.group is not None and self._pauses:
            told = gather(self.group, "the end of an epoch", (stops, has_changed))
            stops, has_changed = told[0][0], any(changed for _, changed in told)
            if has_changed:
                lead(self.group, values_N)
        if has_changed:
            step = self.lease.updates
            self.history.events.append(Event("parameters changed by a callback", step))
        return stops

    def show(self) -> None:
        """Show the user's model what was committed last, though the training has failed since."""
        mirror, tick = self.following.mirror, int(self.door[OPENED])
        if mirror is not None:
            updates = self.job.timetable(self.lease).at(max(tick, self.lease.tick + 1)).updates
            mirror.show(self.arena["values"], self.arena["scalars"][updates % 2])

    def _run_lease(self) -> list[EpochRecord]:
        """Run the next lease; the epochs that it completed."""
        progress, agenda = self.standing.progress, self.following.agenda
        left = self.job.rule.max_epochs - progress.epochs
        lease = replace(self.lease, n_epochs=min(left, 1 if self._pauses else LEASE_EPOCHS))
        if agenda is not None:
            self.arena["settings"][...] = agenda.settings(lease.first_epoch)
            if self.group is not None:
                lead(self.group, self.arena["settings"])
            self.standing.settings[lease.first_epoch] = self.arena["settings"][0].tolist()
        self.ledger.begin(progress)
        self.door[LAST] = NEVER
        if self.keeper is not None:
            timetable = self.job.timetable(lease)
            self.keeper.begin(self.job, self.arena, timetable, self.standing)
        self.session.run(lease, self._watch())
        if self.keeper is not None:
            self.keeper.look(self.arena)
        return self._take(lease)

    def _take(self, lease: Lease) -> list[EpochRecord]:
        """The epochs that a lease has completed, now that it is over."""
        epochs, self.lease = after(self.job, self.arena, lease)
        self.standing.records += epochs
        self.standing.progress = self.ledger.progress(len(epochs))
        self.history.spans += take_spans(self.arena, lease, len(epochs))
        return epochs

    def _watch(self) -> Watch | None:
        """Both who wants to see the arena and the keeper, if there is either."""
        watch, keeper = self.following.watch, self.keeper
        if keeper is None:
            return watch
        if watch is None:
            return keeper.look

        def both(arena: Arena) -> None:
            watch(arena)
            keeper.look(arena)

        return both


def after(job: Job, arena: Arena, lease: Lease) -> tuple[list[EpochRecord], Lease]:
    """The epochs that a lease completed, and where the next one begins."""
    door, timetable = arena["door"], job.timetable(lease)
    following = int(door[LAST]) + 1
    moment = timetable.at(following)
    epochs = Ledger(arena, job.n_validation > 0).records(0, moment.row)
    place = timetable.place_of(following)
    return epochs, Lease(moment.epoch, 0, int(door[OPENED]), moment.updates, place)


def take_spans(arena: Arena, lease: Lease, n_epochs: int) -> list[Span]:
    """Who did what in a lease, taken out of the arena."""
    spans_WE = arena["spans"][:, : n_epochs + 1]
    found = [
        Span(rank, lease.first_epoch + row, begun, compute, update, wait, int(shards))
        for rank, lines in enumerate(spans_WE)
        for row, (begun, compute, update, wait, shards) in enumerate(SPAN.iter_unpack(lines))
        if begun
    ]
    spans_WE[...] = 0
    return found
