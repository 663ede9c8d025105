"""A compiled Keras model as something that any process can build it from, on any backend.

What Keras can serialise travels as its own config; classes and functions of the user's travel as
pickles, those of a notebook by value. Weights do not: they lie in the arena, or, where they do not
change, beside the blueprint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from phalanx.errors import InvalidInput
from phalanx.models.keras3.configs import created, kept_arguments, portable, restored
from phalanx.pure.arrays import Array

LAMBDA = "<lambda>"


@dataclass(frozen=True)
class Constructed:
    """An object of a user's class that says nothing of how it is serialised: the class by name,
    and what it was created with."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Blueprint:
    """config: of the model. custom: the user's classes and functions by name. compiled: the
    arguments of `compile`, without the optimiser. example: a few samples, (x,), (x, y) or
    (x, y, weight), for a model that is built when it is first called. trainable,
    trainable_weights: whether each of the layers is, and each of `model.weights`. use_cudnn: of
    each layer that has it, else None. constants: values of the weights that training does not
    change, by place among `model.weights`. output_names: what the losses of a functional model's
    outputs are called by. carried: attributes that the user has given to layers and that creating
    them anew does not, by the layer's place.
    """

    config: Any
    custom: dict[str, Any]
    compiled: dict[str, Any]
    example: Any
    trainable: tuple[bool, ...]
    trainable_weights: tuple[bool, ...]
    use_cudnn: tuple[Any, ...]
    constants: dict[int, Array]
    floatx: str
    policy: str
    image_data_format: str
    epsilon: float
    output_names: tuple[str, ...] | None = None
    carried: dict[int, dict[str, Any]] = field(default_factory=dict)

    def build(self) -> Any:
        """The model in this process."""
        import keras

        keras.config.set_floatx(self.floatx)
        if keras.config.dtype_policy().name != self.policy:
            keras.config.set_dtype_policy(self.policy)
        keras.config.set_image_data_format(self.image_data_format)
        keras.config.set_epsilon(self.epsilon)
        with keras.saving.custom_object_scope(self.custom):
            model = self._created()
            if self.output_names is not None:
                model.output_names = list(self.output_names)  # those of other layers, else
            arguments = restored(self.compiled, self.custom)
            keras.Model.compile(model, optimizer=None, **arguments)
            self._carry(model, of_model=True)  # which its `call` may need
            if not model.built:
                model(self.example[0])
            self._carry(model, of_model=False)
        self._set_flags(model)
        weights = model.weights
        for place, value in self.constants.items():
            weights[place].assign(value)
        return model

    def _created(self) -> Any:
        if isinstance(self.config, Constructed):
            arguments = restored(self.config.arguments, self.custom)
            return self.custom[self.config.name](**arguments)
        return created(self.config, self.custom)

    def _carry(self, model: Any, of_model: bool) -> None:
        """Give the model, or its layers, what they would lack."""
        layers = model._flatten_layers()
        for place, attributes in self.carried.items():
            if (place == 0) is of_model:
                for name, value in restored(attributes, self.custom).items():
                    setattr(layers[place], name, value)

    def _set_flags(self, model: Any) -> None:
        """Set what configs lack of layers and weights."""
        layers = model._flatten_layers()
        for layer, trainable, use_cudnn in zip(
            layers, self.trainable, self.use_cudnn, strict=False
        ):
            if layer.trainable is not trainable:
                layer.trainable = trainable
            if getattr(layer, "use_cudnn", None) != use_cudnn:
                layer.use_cudnn = use_cudnn  # which the configs of recurrent layers lack
        for weight, trainable in zip(model.weights, self.trainable_weights, strict=True):
            if weight.trainable is not trainable:
                weight.trainable = trainable


def config_of(model: Any) -> Any:
    """The model's own config, without what it was compiled with. Raises InvalidInput."""
    import keras

    kind = type(model)
    with _serialising(model):
        if kind.get_config is not keras.Model.get_config:
            return keras.saving.serialize_keras_object(model)
        known = getattr(model, "_auto_config", None)
        defaults = known.config if known else {}  # Keras keeps nothing else
        return Constructed(kind.__name__, portable({**defaults, **kept_arguments(model)}))


def compiled_of(model: Any) -> dict[str, Any]:
    """The arguments of `compile` but the optimiser, ready to be pickled. Raises InvalidInput."""
    kept = model._compile_config.config
    names = ("loss", "loss_weights", "metrics", "weighted_metrics")
    with _serialising(model):
        return {name: portable(kept[name]) for name in names if kept.get(name) is not None}


def custom_of(model: Any) -> dict[str, Any]:
    """The user's own classes and functions that a model refers to, by name, and by the name that
    `keras.saving.register_keras_serializable` has given them."""
    import keras

    named: dict[str, Any] = dict(functions_of(model))
    things = [*named.values()]
    for value in _parts(model):
        thing = value if isinstance(value, (type, FunctionType)) else type(value)
        if is_users(thing):
            named.setdefault(thing.__name__, thing)
            things.append(thing)
    registered = {keras.saving.get_registered_name(thing): thing for thing in things}
    return {**registered, **named}


def functions_of(model: Any) -> dict[str, FunctionType]:
    """The user's functions that layers hold (activations ...), and wrappers that the model was
    compiled with, each by a name of its own."""
    import keras

    found: dict[str, FunctionType] = {}
    compiled = [*_compiled_with(model)]
    wrappers = [part for part in compiled if isinstance(part, (keras.Loss, keras.Metric))]
    for holder in (*model._flatten_layers(), *wrappers):
        for value in _held(holder).values():
            if isinstance(value, FunctionType) and is_users(value):
                name = value.__name__
                if name == LAMBDA or found.get(name, value) is not value:
                    name = f"function_{len(found)}"
                if value not in found.values():
                    found[name] = value
    return found


@contextmanager
def _serialising(model: Any) -> Iterator[None]:
    """Within it, Keras can serialise the model and what it was compiled with; whatever is raised
    becomes an InvalidInput."""
    try:
        with _named(functions_of(model)), _uncompiled(model):
            yield
    except Exception as error:
        raise InvalidInput(
            "a model, its loss and its metrics must be serialisable, so that workers can have "
            f"their own; those of {type(model).__name__} are not ({type(error).__name__}: "
            f"{error}). Implement get_config() in your classes, as for model.save()."
        ) from error


@contextmanager
def _uncompiled(model: Any) -> Iterator[None]:
    """Within it, neither the model nor those in it have losses and optimisers, which the config of
    a layer would tell of and nobody asks for."""
    models = [layer for layer in model._flatten_layers() if getattr(layer, "compiled", False)]
    try:
        for each in models:
            each.compiled = False
        yield
    finally:
        for each in models:
            each.compiled = True


@contextmanager
def _named(functions: dict[str, FunctionType]) -> Iterator[None]:
    """Within it, they bear these names: Keras serialises functions by name, and lambdas without
    what they refer to."""
    before = [function.__name__ for function in functions.values()]
    try:
        for name, function in functions.items():
            function.__name__ = name
        yield
    finally:
        for name, function in zip(before, functions.values(), strict=True):
            function.__name__ = name


def is_users(thing: Any) -> bool:
    """Whether a class or function is the user's, or of some other library's."""
    module = getattr(thing, "__module__", "") or ""
    return module.split(".")[0] not in (
        "keras", "builtins", "numpy", "torch", "jax", "tensorflow",
    )  # fmt: skip


def _held(holder: Any) -> dict[str, Any]:
    """What a layer, a loss or a metric holds as attributes, but for a layer's own methods, which
    Keras wraps."""
    kind = type(holder)
    return {
        name: value
        for name, value in vars(holder).items()
        if not (isinstance(value, FunctionType) and hasattr(kind, name))
    }


def _parts(model: Any) -> Iterator[Any]:
    """The layers, what they hold, and what the model was compiled with."""
    import keras

    kinds = (
        FunctionType,
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
        keras.losses.Loss,
        keras.metrics.Metric,
    )
    for layer in model._flatten_layers():
        yield layer
        yield from (value for value in _held(layer).values() if isinstance(value, kinds))
    yield from _compiled_with(model)
    if model.compiled:
        yield model.optimizer


def _compiled_with(model: Any) -> Iterator[Any]:
    """All arguments of `compile` but the optimiser."""
    kept = model._compile_config.config if model.compiled else {}
    yield from _leaves([value for name, value in kept.items() if name != "optimizer"])


def _leaves(nest: Any) -> Iterator[Any]:
    if isinstance(nest, dict):
        nest = list(nest.values())
    if isinstance(nest, (list, tuple)):
        for part in nest:
            yield from _leaves(part)
    elif nest is not None:
        yield nest
