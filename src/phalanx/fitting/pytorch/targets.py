"""What is said of targets once a loss was no number: whether they hold NaN themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from phalanx.data.samples import Samples
from phalanx.errors import NonFiniteLoss
from phalanx.models.pytorch.batches import NestedSamples, leaves_of


@contextmanager
def telling_of_nan(samples: Samples, place: int) -> Iterator[None]:
    """Within it, the error of a loss that is no number has a note if there is NaN among the
    targets, which are looked at then and not before: a loss may know what to do with it.

    place: of the targets among the parts of the samples.
    """
    try:
        yield
    except NonFiniteLoss as error:
        rows = _rows_with_nan(samples, place)
        if rows:
            error.add_note(
                f"The targets y hold NaN in {len(rows)} of {samples.n_samples} rows, the first "
                f"of which is y[{rows[0]}]. Leave these samples out, or give them a value."
            )
        raise


def _rows_with_nan(samples: Samples, place: int) -> list[int]:
    """None where the parts of the samples are not known."""
    nest = samples.nest if isinstance(samples, NestedSamples) else None
    if not isinstance(nest, (tuple, list)) or len(nest) < 2:
        return []
    has_nan_B = np.zeros(samples.n_samples, bool)
    for leaf in leaves_of(nest[place]):
        array = samples.arrays[leaf.name]
        if array.dtype.kind == "f":
            has_nan_B |= np.isnan(array).reshape(len(array), -1).any(axis=1)
    return [int(row) for row in np.flatnonzero(has_nan_B)]
