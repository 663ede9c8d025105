"""A multi-layer perceptron whose shards leave factors instead of gradients; see pure/factors.py.

It computes right where the factors are to lie: what a layer puts out are the inputs of the next.
Shards that lie side by side go through it in one pass, where that comes to the same bits
(side_by_side.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from phalanx.data.samples import Rows
from phalanx.models.mlp.network import MLPSpec, Network
from phalanx.models.mlp.passing import Pass, room_for
from phalanx.models.mlp.side_by_side import tried
from phalanx.pure.arrays import Array
from phalanx.pure.factors import Factor, FactorLayout, Product, factors_pay, in_panels
from phalanx.pure.layout import Region
from phalanx.pure.randomness import Key

FEWEST = 32_768  # parameters of which factors pay, measured with one and two workers


@dataclass(frozen=True)
class FactoredMLP(MLPSpec):
    """batch_size: rows of a batch, at most, in so many shards. is_sparse: whether its samples are
    sparse, and not left."""

    batch_size: int = 1
    n_shards: int = 1
    is_sparse: bool = False

    @cached_property
    def factors(self) -> FactorLayout:
        """Of each layer its inputs and its deltas; the samples lie as they come."""
        sizes = [size for pair in pairwise(self.sizes) for size in pair]
        factors = [Factor(sizes[0], True, self.is_sparse), *map(Factor, sizes[1:])]
        n_layers, starts = len(self.sizes) - 1, [start for start, _ in self.layout.bounds]
        weights = [Product(starts[i], 2 * i + 1, 2 * i) for i in range(n_layers)]
        biases = [Product(starts[n_layers + i], 2 * i + 1) for i in range(n_layers)]
        rows = self.batch_size, self.n_shards, self.dtype.itemsize
        return FactorLayout(tuple(factors), (*weights, *biases), *rows)

    @property
    def plain(self) -> MLPSpec:
        """The network that leaves gradients."""
        return MLPSpec(self.sizes, self.activation, self.loss, self.dtype_name, self.dropout)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        return in_panels(self.plain.regions, self.factors)

    def build(self, params_N: Array) -> FactoredNetwork:
        return FactoredNetwork(self, params_N)


def factored(spec: MLPSpec, batch_size: int, n_shards: int, is_sparse: bool = False) -> MLPSpec:
    """The description of the network that leaves factors, or itself where they do not pay.

    For a mean or a sum over the shards.
    """
    plain = spec.sizes, spec.activation, spec.loss, spec.dtype_name, spec.dropout
    made = FactoredMLP(*plain, batch_size, n_shards, is_sparse)
    return made if factors_pay(made.factors, spec.n_parameters, FEWEST) else spec


class FactoredNetwork(Network):
    """See models/base.py: JoinedModel."""

    spec: FactoredMLP

    def __init__(self, spec: FactoredMLP, params_N: Array) -> None:
        super().__init__(spec, params_N)
        self._passes: dict[tuple[int, ...], Pass] = {}
        self._room = room_for(spec, spec.factors)

    def may_be_joined(self, n_shards: int) -> bool:
        return self._at_once(n_shards) is not None

    def inputs(self, batch: Sequence[Array], shards: Sequence[int]) -> Array:
        return self._pass(batch, shards).x_CF

    def leave_all(
        self,
        rows: Rows,
        batch: Sequence[Array],
        shards: Sequence[int],
        counts: Sequence[int],
        n_rows: int,
        keys: Sequence[Key],
    ) -> list[tuple[float, float]]:
        return self._pass(batch, shards).compute(rows, counts, n_rows, keys)

    def _pass(self, batch: Sequence[Array], shards: Sequence[int]) -> Pass:
        """Kept, and with it the batch, by whose identity it is known."""
        key = (id(batch), *shards)
        known = self._passes.get(key)
        if known is None:
            at_once = self._at_once(len(shards)) or 1
            known = Pass(self, batch, self.spec.factors, shards, at_once, self._room)
            self._passes[key] = known
        return known

    def _at_once(self, n_shards: int) -> int | None:
        """Shards of each product in a pass over so many; None where there may be no such pass."""
        return 1 if n_shards == 1 else tried(self.spec.plain, self.spec.factors, n_shards)
