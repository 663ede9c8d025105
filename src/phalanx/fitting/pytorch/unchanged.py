"""What a callback may not change: what is trained, by which groups, and what stays as it is."""

from __future__ import annotations

import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch.parameters import named_parameters_of

NEXT = "End this fit (a callback that returns True does), change it, and call fit again"


class Trainable:
    """Which parameters are trained, and in which groups of the optimiser, as a fit begins.

    learnt: names of the buffers that training changes, and a callback may.
    """

    def __init__(
        self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, learnt: set[str]
    ) -> None:
        self._module, self._optimizer, self._learnt = module, optimizer, learnt
        self._flags, self._groups = self._flags_now(), self._groups_now()
        self._params, self._constants = self._params_now(), self._constants_now()

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

        now_by_name = self._constants_now()
        for name, (tensor, version) in self._constants.items():
            other, newer = now_by_name.get(name, (None, 0))
            if other is not tensor or newer != version:
                raise InvalidInput(
                    "what is not trained stays the same throughout a fit, since workers have "
                    f"copies of it; a callback has changed {name!r}. {NEXT}; or let forward() "
                    "compute it, in a buffer, from what it has counted."
                )

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


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
