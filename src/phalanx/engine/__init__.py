"""The step as a transaction: shards computed, blocks updated, whoever lives to do it.

This package and `exchange` are compiled, as they stand, into wheels (setup.py): a step of a small
network takes a fifth less time then.
"""


def is_compiled() -> bool:
    """Whether it is the compiled form that runs."""
    from phalanx.engine import worker

    return not worker.__file__.endswith(".py")
