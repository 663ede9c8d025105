"""Which Keras models are to leave factors of their gradients (pure/factors.py)."""

from __future__ import annotations

import keras

from phalanx.fitting.keras3.described import DescribedModel
from phalanx.fitting.pytorch import factoring
from phalanx.models.keras3.generators import undisturbed
from phalanx.models.keras3.network import KerasSpec
from phalanx.pure.plan import Plan


def factored(described: DescribedModel, plan: Plan) -> KerasSpec:
    """The description of a model that leaves factors; that which it has, where it has none, or they
    do not pay. Of models of Keras' own layers and losses, in a process with the torch backend:
    others may do anything else in another step, or compute it otherwise."""
    spec, params = described.spec, [variable._value for variable in described.live]
    is_here = not spec.is_elsewhere and all(param.device.type == "cpu" for param in params)
    if described.is_custom or not is_here:
        return spec
    if not factoring.is_worth_a_trial(spec):
        return spec
    with undisturbed(), described.trial.without_traces():
        example = [leaf.numpy() for leaf in keras.tree.flatten(described.trial.content)]
        found = factoring.tried(described.trial.loss_of, example, params, spec.vector, plan)
    made: KerasSpec = factoring.with_factors(spec, found)
    return made
