"""What a callback may not change: what is trained, by which groups, and what stays as it is."""

from __future__ import annotations

from typing import Any

import torch

from phalanx.errors import InvalidInput
from phalanx.fitting.told import texts_of
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.optimizers import NO_SETTINGS
from phalanx.models.pytorch.parameters import named_parameters_of

Seen = tuple[Any, int]  # a value, and torch's count of its changes
NEXT = "End this fit (a callback that returns True does), change it, and call fit again"


class Trainable:
    """Which parameters are trained, and in which groups of the optimiser, as a fit begins; and the
    optimiser's state, as it was shown last.

    learnt: names of the buffers that training changes, and a callback may.
    """

    def __init__(self, module: torch.nn.Module, described: Described, learnt: set[str]) -> None:
        self._module, self._described, self._learnt = module, described, learnt
        self._optimizer = described.live
        self._flags, self._groups = self._flags_now(), self._groups_now()
        self._params, self._constants = self._params_now(), self._constants_now()
        self._entries = self._entries_now()
        self._state: dict[tuple[int, str], Seen] | None = None

    def state_shown(self) -> None:
        """The optimiser has just been given the state that it is to keep."""
        self._state = self._state_now()

    def check(self) -> None:
        """Raise InvalidInput if that has changed: the workers' copies know nothing of it."""
        params = self._params_now()
        replaced = [name for name, p in self._params.items() if params.get(name) is not p]
        if replaced:
            raise InvalidInput(
                "a module keeps its parameters throughout a fit, whatever values they get; a "
                f"callback has replaced {_named(replaced)}. {NEXT}; or write into it by copy_()."
            )
        now = self._flags_now()
        changed = [name for name, flag in self._flags.items() if now.get(name) is not flag]
        if changed:
            raise InvalidInput(
                "what is trained stays the same throughout a fit; a callback has set "
                f"requires_grad={now.get(changed[0])} for {_named(changed)}. {NEXT}; or set the "
                "learning rate of the optimiser's group to 0 meanwhile."
            )
        if self._groups_now() != self._groups:
            raise InvalidInput(
                "an optimiser's groups stay the same throughout a fit; a callback has changed "
                f"them: there are {len(self._groups_now())} where there were {len(self._groups)}, "
                f"or they hold other parameters. {NEXT}; or give it all groups from the start, "
                "those that are to wait with a learning rate of 0."
            )
        self._check_entries()
        self._check_state()
        now_by_name = self._constants_now()
        for name, (tensor, version) in self._constants.items():
            other, newer = now_by_name.get(name, (None, 0))
            if other is not tensor or newer != version:
                raise InvalidInput(
                    "what is not trained stays the same throughout a fit, since workers have "
                    f"copies of it; a callback has changed {name!r}. {NEXT}; or let forward() "
                    "compute it, in a buffer, from what it has counted."
                )

    def _check_entries(self) -> None:
        for g, (now, before) in enumerate(zip(self._entries_now(), self._entries, strict=True)):
            for name in now | before:
                if now.get(name) != before.get(name):
                    raise InvalidInput(
                        "of the settings of an optimiser's groups a callback may change those that "
                        f"were numbers in all of them; one has changed {name!r} of group {g} from "
                        f"{before.get(name)} to {now.get(name)}. {NEXT}."
                    )

    def _check_state(self) -> None:
        if self._state is None:  # in rounds the optimiser's own has no part
            return
        now = self._state_now()
        for at in now | self._state:
            if not _are_one(now.get(at), self._state.get(at)):
                raise InvalidInput(
                    "an optimiser's state is what training makes of it, for callbacks to read; one "
                    f"has changed {at[1]!r} of the optimiser's parameter {at[0]}. {NEXT}: it will "
                    "begin with the state that the optimiser then has."
                )

    def _entries_now(self) -> list[dict[str, str]]:
        """What is no setting that a step takes anew, of each group, as texts."""
        described = self._described
        taken = {name for name, _ in described.described.settings}
        others = {*NO_SETTINGS, *described.counts, *taken}
        groups = self._optimizer.param_groups
        return [texts_of({k: v for k, v in group.items() if k not in others}) for group in groups]

    def _state_now(self) -> dict[tuple[int, str], Seen]:
        """By parameter and name."""
        return {
            (i, name): (value, value._version if isinstance(value, torch.Tensor) else 0)
            for i, param in enumerate(self._described.params)
            for name, value in self._optimizer.state.get(param, {}).items()
        }

    def _constants_now(self) -> dict[str, tuple[torch.Tensor, int]]:
        """Other parameters and buffers, each with torch's count of its changes."""
        trained = {place for group in self._groups_now() for place in group}
        named = [*named_parameters_of(self._module), *self._module.named_buffers()]
        return {
            name: (tensor, 0 if tensor.is_inference() else tensor._version)
            for name, tensor in named
            if name not in self._learnt and (id(tensor) not in trained or not self._flags.get(name))
        }

    def _params_now(self) -> dict[str, torch.nn.Parameter]:
        return dict(named_parameters_of(self._module))

    def _flags_now(self) -> dict[str, bool]:
        return {name: p.requires_grad for name, p in named_parameters_of(self._module)}

    def _groups_now(self) -> list[list[int]]:
        return [[id(p) for p in group["params"]] for group in self._optimizer.param_groups]


def _are_one(one: Seen | None, other: Seen | None) -> bool:
    if one is None or other is None:
        return False
    return one[0] is other[0] and one[1] == other[1]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
