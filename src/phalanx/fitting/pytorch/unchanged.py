"""What a callback may not change: what is trained, and by which groups."""

from __future__ import annotations

import torch

from phalanx.errors import InvalidInput

NEXT = "End this fit (a callback that returns True does), change it, and call fit again"


class Trainable:
    """Which parameters are trained, and in which groups of the optimiser, as a fit begins."""

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer = module, optimizer
        self._flags, self._groups = self._flags_now(), self._groups_now()

    def check(self) -> None:
        """Raise InvalidInput if that has changed: the workers' copies know nothing of it."""
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

    def _flags_now(self) -> dict[str, bool]:
        return {name: p.requires_grad for name, p in self._module.named_parameters()}

    def _groups_now(self) -> list[list[int]]:
        return [[id(p) for p in group["params"]] for group in self._optimizer.param_groups]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
