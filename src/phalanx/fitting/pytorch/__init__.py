"""torch modules: from the arguments of `phalanx.fit` to a job, and back into the user's objects."""

import random
from importlib import import_module


def _import_quietly(name: str) -> None:
    """Import a module of which the libraries draw from Python's generator, the caller's own."""
    state = random.getstate()
    import_module(name)
    random.setstate(state)


_import_quietly("phalanx.fitting.wishes")  # of scikit-learn, and so of rich
