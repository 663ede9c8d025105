"""Who follows a training: callbacks, checkpoints, the user's own model, hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from phalanx.clusters.base import Tell, Watch
from phalanx.clusters.control import Control
from phalanx.clusters.hosts.launched import Hosts
from phalanx.pure.agreement import REFUSE
from phalanx.pure.arrays import Array
from phalanx.pure.cadence import Cadence
from phalanx.run import EpochRecord
from phalanx.training.checkpoint import Saved
from phalanx.training.facts import Told


class Checkpoints(NamedTuple):
    """A folder, how often a checkpoint is written to it, and what else it is to hold."""

    folder: Path
    cadence: Cadence
    extra: dict[str, Any]


OnEpoch = Callable[[int, EpochRecord], bool | None]


class Mirror(Protocol):
    """The user's own model, as callbacks see it."""

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """Take the parameters of the training, and the optimiser's state and scalars."""

    def changed(self, values_N: Array) -> bool:
        """Write parameters that a callback has changed into the training's; whether it has."""


class Agenda(Protocol):
    """The optimiser's settings, where they come from the driver."""

    changes: bool  # whether one epoch's differ from another's

    def settings(self, epoch: int) -> Array:
        """Of each step of an epoch, [T, G, H]."""


class RemoteCluster(Protocol):
    """Hosts that are not those of the caller's program."""

    @property
    def n_workers(self) -> int | None:
        """Of each host; None for as many as the caller asks for."""

    def train(self, train: Callable[..., Any], *training: Any) -> Any:
        """Call `train` with this on every host, and return what one of them returns.

        The last of the arguments, a Following, stays here, and is asked from there.
        """


@dataclass
class Following:
    """Who follows a training, and what is kept of it.

    on_epoch: called after each epoch; stops the training by returning True. watch: called with
    the arena about twenty times a second. on_event: called for each event, at once. control:
    where wishes about the number of workers come from. checkpoints: where, how often, and what
    else is to be written there. resume: what to go on from. mirror: shows the parameters to
    on_epoch. agenda: the optimiser's settings. hosts: who trains together; None for those that the
    program was launched on. mixed: whether hosts may differ in what decides the last bits. told:
    what can be said of the caller's own objects, which hosts and checkpoints must have in common.
    """

    on_epoch: OnEpoch | None = None
    watch: Watch | None = None
    on_event: Tell | None = None
    control: Control | None = None
    checkpoints: Checkpoints | None = None
    resume: Saved | None = None
    mirror: Mirror | None = None
    agenda: Agenda | None = None
    hosts: Hosts | None = None
    cluster: RemoteCluster | None = None
    mixed: str = REFUSE
    told: Told = field(default_factory=dict)
