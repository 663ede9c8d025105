"""What is taken of a torch DataLoader: dataset, collate function and size of the batches."""

from __future__ import annotations

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from phalanx.errors import InvalidInput

BATCH_SIZE = 32


def unpacked(loader: DataLoader[Any]) -> tuple[Any, Any]:
    """Its dataset and collate function.

    Raises InvalidInput for a loader that does not visit every sample once an epoch, or in an order
    of its own, or that makes its batches otherwise.
    """
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset, loader.collate_fn  # for whoever refuses it without a loader as well
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise InvalidInput(
            "workers read samples from a DataLoader's dataset, and make batches by its collate_fn; "
            f"got a {type(loader).__name__}, whose own __iter__ none of them would call. Do in "
            "collate_fn what it does to a batch, or in the module or step=."
        )
    batches = loader.batch_sampler  # what the loader says of itself is a default beside it
    if type(batches) is not BatchSampler:
        raise InvalidInput(
            "batches are cut by batch_size=, so that they are the same for any number of workers; "
            f"got a DataLoader with {_named(batches, 'batch_size=None')}. Pass its "
            "dataset, and batch_size=."
        )
    n_samples = len(loader.dataset)  # type: ignore[arg-type]
    if not _visits_all_once(batches.sampler, n_samples):
        raise InvalidInput(
            "every sample is visited once an epoch, in the order of data_distribution=; got a "
            f"DataLoader with {_named(batches.sampler, '')}. Leave the sampler out; for a part of "
            "the samples pass a torch.utils.data.Subset, for weights of samples a loss that weighs "
            "them, and for copies on several machines nothing: Phalanx divides the samples itself."
        )
    left = n_samples % batches.batch_size
    if batches.drop_last and left:
        raise InvalidInput(
            "every sample is visited once an epoch, the last and smaller batch weighted by its "
            f"samples; got a DataLoader with drop_last=True, which would leave {left} of "
            f"{n_samples} out. Set drop_last=False, or pass a Subset of the dataset."
        )
    return loader.dataset, loader.collate_fn


def batch_size_of(data: Any, asked: int | None) -> int:
    """What was asked for, else what a DataLoader has, else 32."""
    if asked is not None or not isinstance(data, DataLoader):
        return BATCH_SIZE if asked is None else asked
    batches = data.batch_sampler
    return batches.batch_size if isinstance(batches, BatchSampler) else BATCH_SIZE


def _visits_all_once(sampler: Any, n_samples: int) -> bool:
    if type(sampler) not in (RandomSampler, SequentialSampler):
        return False
    is_drawn = getattr(sampler, "replacement", False)
    return not is_drawn and len(sampler) == len(sampler.data_source) == n_samples


def _named(sampler: Any, otherwise: str) -> str:
    return otherwise if sampler is None else f"a {type(sampler).__name__}"
