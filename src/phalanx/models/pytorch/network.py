"""A torch module bound to the flat vector of a job: gradients of shards, outputs, measures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from phalanx.errors import UserFunctionError
from phalanx.models.pytorch.batches import Batch
from phalanx.models.pytorch.generators import as_guest, seed_everything
from phalanx.models.pytorch.leaving import Leaving, LeftFactors, LeftGradients, put
from phalanx.models.pytorch.objective import Objective, called
from phalanx.models.pytorch.packing import unpacked
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.settings import Settings
from phalanx.models.pytorch.tracing import Pass, faster_pass, repeated, signature
from phalanx.models.pytorch.uses import Factoring, Tensors
from phalanx.models.pytorch.vector import Vector
from phalanx.models.pytorch.weighing import weight_of
from phalanx.pure.arrays import Array
from phalanx.pure.factors import FactorLayout, Multiply
from phalanx.pure.layout import Region
from phalanx.pure.randomness import Key

Example = Sequence[Array]  # the leaves of a few samples
BY_ROW, BY_COLUMN = ("crow_indices", "col_indices"), ("ccol_indices", "row_indices")
PARTS = {  # of a sparse tensor: the methods that give the dense ones which it consists of
    torch.sparse_coo: ("_indices", "_values"),
    **dict.fromkeys((torch.sparse_csr, torch.sparse_bsr), (*BY_ROW, "values")),
    **dict.fromkeys((torch.sparse_csc, torch.sparse_bsc), (*BY_COLUMN, "values")),
}
OUTPUT_SEED = 0  # of a module that draws while it predicts


@dataclass(frozen=True)
class TorchSpec:
    """packed: the pickle of (module, Objective, Example). trained: places of the parameters that
    the optimiser has, among all of the module's; `regions` says which of them it treats alike.
    counts: sizes of shards that are worth a tape (tracing.py). factoring: how gradients are made of
    factors, if shards are to leave these.
    """

    packed: bytes
    vector: Vector
    regions: tuple[Region, ...]
    n_parameters: int
    settings: Settings
    trained: tuple[int, ...]
    n_decayed: int = 0
    n_outputs: int = 0
    n_measures: int = 0
    counts: tuple[int, ...] = ()
    factoring: Factoring | None = None

    @property
    def size(self) -> int:
        return self.vector.size

    @property
    def factors(self) -> FactorLayout | None:
        return self.factoring.layout if self.factoring else None

    @property
    def multiply(self) -> Multiply:
        return self.settings.multiply

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.vector.dtype

    @property
    def runs_here(self) -> bool:
        return True

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("torch",)

    def __repr__(self) -> str:
        """What a checkpoint knows the model by; its code may change."""
        leaves = ", leaves factors" if self.factoring else ""
        switches = "".join(f", {name}={value}" for name, value in self.settings.switches)
        return f"TorchSpec({self.vector}, {self.settings}{switches}{leaves})"

    def as_guest(self) -> AbstractContextManager[None]:
        return as_guest()

    def build(self, params_N: Array) -> TorchModel:
        views = self.vector.param_views(params_N)
        module, objective, example = unpacked(self.packed, views)
        model = TorchModel(self, module, objective, params_N, views)
        if example is not None:
            model.record(example, self.counts)
        return model


class TorchModel:
    """See models/base.py: FactoredModel. The module is this process's own; its parameters are
    views."""

    def __init__(
        self,
        spec: TorchSpec,
        module: torch.nn.Module,
        objective: Objective,
        values_N: Array,
        views: list[torch.Tensor],
    ) -> None:
        spec.settings.apply()
        self.settings, self.vector, self.objective = spec.settings, spec.vector, objective
        self.device = torch.device(spec.settings.device)
        self.module = module.to(self.device)
        everything = parameters_of(self.module)
        self.params = [everything[i] for i in spec.trained]
        self._host = views
        if self.device.type == "cpu":
            for param, view in zip(self.params, self._host, strict=True):
                param.data = view
        self.buffers = Buffers(self.module, spec.vector, values_N)
        self._modes = [(part, part.training) for part in self.module.modules()]
        self._slots: dict[int, tuple[Array, list[torch.Tensor], dict[str, torch.Tensor]]] = {}
        self._gradients = LeftGradients(self.params)
        self._factors = LeftFactors(self.params, spec.factoring) if spec.factoring else None
        self._tapes: dict[tuple[Any, ...], tuple[Pass, bool]] = {}

    def record(self, example: Example, counts: Sequence[int]) -> None:
        """Prepare for shards of so many rows, with samples like those of the example."""
        self._prepare(training=True)
        for count in counts:
            samples = repeated(example, count)
            tape = faster_pass(self._loss_of, self._factors or self._gradients, samples)
            if tape is not None:
                self._tapes[signature(samples)] = tape

    def gradient(self, rows: Batch, grad_N: Array, key: Key) -> tuple[float, float]:
        _, slots, buffer_slots = self._slots_of(grad_N)
        outcome = self._by_tape(rows, slots, key)
        if outcome is None:
            outcome = self._by_autograd(rows, self._gradients, slots, key)
            self.buffers.save(buffer_slots)
        return outcome

    def leave(
        self, rows: Batch, factors: Sequence[Array], n_rows: int, key: Key
    ) -> tuple[float, float]:
        assert self._factors is not None
        slots = self._factors.slots(factors, rows.count)
        outcome = self._by_tape(rows, slots, key)
        if outcome is None:
            outcome = self._by_autograd(rows, self._factors, slots, key)
        self._factors.finish(factors, rows.count, outcome[1] / n_rows)
        return outcome

    def _by_tape(self, rows: Batch, slots: Tensors, key: Key) -> tuple[float, float] | None:
        """Play the tape that was recorded for such rows, if there is one."""
        tape = self._tapes.get(signature(rows.content)) if self._tapes else None
        weight = weight_of(self.objective.loss, rows.content[-1], rows.count) if tape else 0.0
        if tape is None or not weight > 0:  # of no target, torch's mean is 0 / 0
            return None
        played, draws = tape
        if draws:
            torch.default_generator.manual_seed(key.number())
        return float(played(rows.content, slots)[0]) * weight, weight

    def _by_autograd(
        self, rows: Batch, leaving: Leaving, slots: Tensors, key: Key
    ) -> tuple[float, float]:
        seed_everything(key.number())
        self._prepare(training=True)
        content = self._moved(rows)
        with self.settings.autocast():
            loss, weight, *results = leaving.of(
                lambda: self.objective.of_batch(self.module, content, rows.count), rows.count
            )
        put(results, slots)
        return float(loss.detach()) * weight, weight

    def _loss_of(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.objective.mean_loss(self.module, tensors), None

    def outputs(self, rows: Batch) -> Array:
        """Predictions [rows, ...]."""
        self._prepare(training=False)
        with torch.no_grad(), self.settings.autocast():
            outputs = called(self.module, self._moved(rows))
        array: Array = checked_outputs(outputs, rows.count).cpu().numpy()
        return array

    def measures(self, rows: Batch) -> Array:
        """Sums for a validation chunk: see Objective.measures."""
        self._prepare(training=False)
        with torch.no_grad(), self.settings.autocast():
            sums = self.objective.measures(self.module, self._moved(rows), rows.count)
        return np.array(sums)

    def _prepare(self, training: bool) -> None:
        set_modes(self._modes, training)
        if not training:
            seed_everything(OUTPUT_SEED)
        self.buffers.load()
        if self.device.type != "cpu":
            with torch.no_grad():
                torch._foreach_copy_(tuple(self.params), self._host)

    def _moved(self, rows: Batch) -> Any:
        return rows.content if self.device.type == "cpu" else moved(rows.content, self.device)

    def _slots_of(self, grad_N: Array) -> tuple[Array, list[torch.Tensor], dict[str, torch.Tensor]]:
        """Views into a shard's slot; kept, with the slot itself, since it never changes."""
        known = self._slots.get(id(grad_N))
        if known is None:
            views = self.vector.param_views(grad_N)
            known = grad_N, views, self.buffers.views(grad_N)
            self._slots[id(grad_N)] = known
        return known


class Buffers:
    """The module's buffers that training changes. A shard begins with those of the last step, and
    what it makes of them goes to its slot, as its gradient does."""

    def __init__(self, module: torch.nn.Module, vector: Vector, values_N: Array) -> None:
        self._vector = vector
        self._owners = {}
        names = (*vector.averaged, *vector.copied)
        for name in names:
            path, _, key = name.rpartition(".")
            self._owners[name] = module.get_submodule(path)._buffers, key
        self._dtypes = {name: self._of(name).dtype for name in names}
        self._common = self.views(values_N)
        others = {name: b for name, b in module.named_buffers() if name not in self._owners}
        self._constant = {name: (buffer, buffer.clone()) for name, buffer in others.items()}

    def views(self, flat_N: Array) -> dict[str, torch.Tensor]:
        """The buffers in a vector of the layout."""
        return self._vector.buffer_views(flat_N, self._dtypes)

    def load(self) -> None:
        """Take those of the last step."""
        with torch.no_grad():
            for name, common in self._common.items():
                self._of(name).copy_(common)

    def save(self, slots: dict[str, torch.Tensor]) -> None:
        """Write what the shard made of them. Raises UserFunctionError for one that was thought
        to be constant."""
        with torch.no_grad():
            for name, slot in slots.items():
                slot.copy_(self._of(name))
        for name, (buffer, before) in self._constant.items():
            if differ(buffer, before):
                raise UserFunctionError(
                    f"a buffer that a step changes must be changed by every step; {name!r} was not "
                    "changed by the first samples, and was by others. Change it in every forward "
                    "pass in training mode."
                )

    def _of(self, name: str) -> torch.Tensor:
        buffers, key = self._owners[name]
        buffer = buffers[key]
        assert buffer is not None
        return buffer


def set_modes(modes: Sequence[tuple[torch.nn.Module, bool]], training: bool) -> None:
    """Have all parts of a module train, or none, but for those that the user has in eval(). Before
    each pass, since a step may have called train() or eval()."""
    for part, is_training in modes:
        wanted = is_training and training
        if part.training is not wanted:  # to set it costs ten times as much as to look
            part.training = wanted


def differ(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Whether two buffers differ in any bit. The version counter does not tell: batch
    normalisation changes its statistics without it."""
    if other is None or one.shape != other.shape or one.layout != other.layout:
        return True
    return not all(map(torch.equal, dense_parts(one), dense_parts(other)))


def dense_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """What holds the values of a tensor: itself, if it is dense."""
    names = PARTS.get(tensor.layout)
    return [tensor] if names is None else [getattr(tensor, name)() for name in names]


def moved(content: Any, device: torch.device) -> Any:
    """A nest on a device: its tensors, and whatever else knows how to get there."""
    if hasattr(content, "to"):
        return content.to(device, non_blocking=True)
    if isinstance(content, dict):
        return {key: moved(part, device) for key, part in content.items()}
    if isinstance(content, (tuple, list)):
        parts = [moved(part, device) for part in content]
        return type(content)(*parts) if hasattr(content, "_fields") else type(content)(parts)
    return content


def checked_outputs(outputs: Any, count: int) -> torch.Tensor:
    """Raise UserFunctionError unless they are one tensor with a row a sample."""
    if not isinstance(outputs, torch.Tensor) or outputs.ndim == 0 or len(outputs) != count:
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
        raise UserFunctionError(
            f"a module's output must be one tensor with a row a sample, so that rows computed "
            f"apart can be put together; for {count} samples it returned {shape}. Wrap the module "
            "in one that returns such a tensor."
        )
    return outputs.float() if outputs.dtype is torch.bfloat16 else outputs
