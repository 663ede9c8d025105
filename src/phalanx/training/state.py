"""The state of a training, as it is handed from one session, or one day, to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from phalanx.arena import Arena
from phalanx.job import EPOCH_SUMS, Job, Lease
from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Progress, Reason, Rule
from phalanx.run import EpochRecord


@dataclass
class State:
    """What training changes: parameters [N], optimiser state [M, N], and what came before.

    place: ticks of the epoch that are over; where it is not 0, `sums` has what the epoch came to
    so far (losses [T], weights [T], penalties [T, K]). best_N: the best by score so far, if any.
    last_N: at the end of a training that took the best parameters, the last ones.
    scalars_KC: the optimiser's numbers beside its rows, where it has any.
    """

    params_N: Array
    state_MN: Array
    updates: int = 0
    epochs: int = 0
    place: int = 0
    best_N: Array | None = None
    sums: dict[str, Array] = field(default_factory=dict)
    last_N: Array | None = None
    scalars_KC: Array | None = None

    def load(self, arena: Arena) -> None:
        """Put it into a new arena."""
        arena["values"][0] = self.params_N
        if self.state_MN.any():  # else it is all zeros, as the arena is
            arena["values"][1:] = self.state_MN
        if arena["best"].size:
            arena["best"][:] = self.params_N if self.best_N is None else self.best_N
        if self.scalars_KC is not None:
            arena["scalars"][self.updates % 2] = self.scalars_KC
        for name, sums in self.sums.items():
            arena[name][...] = sums

    def own(self) -> State:
        """The same in memory of its own, so that the arena's can be given back."""
        last_N = None if self.last_N is None else self.last_N.copy()
        params_N, state_MN = self.params_N.copy(), self.state_MN.copy()
        return replace(self, params_N=params_N, state_MN=state_MN, last_N=last_N)

    def take_best(self) -> None:
        """End with the best parameters instead of the last, where they were followed."""
        if self.best_N is not None:
            self.params_N, self.last_N = self.best_N, self.params_N


@dataclass
class Standing:
    """Where a training stands, with the epochs that it has completed. `reason`: why it has ended,
    once it has. `settings`: of the optimiser, [G, H] as lists, by the epoch that began with them;
    of epochs that began without asking the driver there are none. `digest`: of the last state,
    where hosts have compared theirs."""

    state: State
    progress: Progress
    records: list[EpochRecord] = field(default_factory=list)
    reason: Reason | None = None
    settings: dict[int, list[list[float]]] = field(default_factory=dict)
    digest: str | None = None


def reason_to_end(rule: Rule, taken: Standing) -> Reason | None:
    """Why a training that is gone on from is over already, if it is: it may have stopped after its
    last epoch, but before that was known everywhere."""
    reason = taken.reason
    if reason is None and taken.records and taken.state.place == 0:
        reason = taken.records[-1].reason
    if reason is Reason.MAX_EPOCHS and taken.progress.epochs < rule.max_epochs:
        return None  # the user has allowed more of them
    return reason


def state_of(job: Job, arena: Arena, lease: Lease, is_final: bool) -> State:
    """The state at the end of a lease. Where it is final, early stopping takes the best one.

    The final parameters and optimiser state are the arena's own, which nobody changes any more:
    whoever keeps them takes a copy. Those to go on from elsewhere are copies, since the arena, with
    the samples that may lie in it, is not to stay for as long.
    """
    params_N, state_MN = arena["values"][0], arena["values"][1:]
    best_N = arena["best"].copy() if job.rule.by_score else None
    named = {name: arena[name].copy() for name in EPOCH_SUMS if arena[name].size}
    sums = named if lease.place else {}
    state = State(params_N, state_MN, lease.updates, lease.first_epoch, lease.place, best_N, sums)
    if arena["scalars"].size:
        state.scalars_KC = arena["scalars"][lease.updates % 2].copy()
    if not is_final:
        return state.own()
    state.take_best()
    return state
