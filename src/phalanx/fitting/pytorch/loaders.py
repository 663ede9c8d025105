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
    of its own.
    """
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset, loader.collate_fn  # for whoever refuses it without a loader as well
    if type(loader.batch_sampler) is not BatchSampler:
        raise InvalidInput(
            "batches are cut by batch_size=, so that they are the same for any number of workers; "
            f"got a DataLoader with {_named(loader.batch_sampler, 'batch_size=None')}. Pass its "
            "dataset, and batch_size=."
        )
    sampler = loader.sampler
    if not _visits_all_once(sampler):
        raise InvalidInput(
            "every sample is visited once an epoch, in the order of data_distribution=; got a "
            f"DataLoader with {_named(sampler, '')}. Leave the sampler out; for a part of the "
            "samples pass a torch.utils.data.Subset, for weights of samples a loss that weighs "
            "them, and for copies on several machines nothing: Phalanx divides the samples itself."
        )
    left = len(loader.dataset) % (loader.batch_size or 1)  # type: ignore[arg-type]
    if loader.drop_last and left:
        raise InvalidInput(
            "every sample is visited once an epoch, the last and smaller batch weighted by its "
            f"samples; got a DataLoader with drop_last=True, which would leave {left} of "
            f"{len(loader.dataset)} out. Set drop_last=False, "  # type: ignore[arg-type]
            "or pass a Subset of the dataset."
        )
    return loader.dataset, loader.collate_fn


def batch_size_of(data: Any, asked: int | None) -> int:
    """What was asked for, else what a DataLoader has, else 32."""
    if asked is not None or not isinstance(data, DataLoader):
        return BATCH_SIZE if asked is None else asked
    return BATCH_SIZE if data.batch_size is None else data.batch_size


def _visits_all_once(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _named(sampler: Any, otherwise: str) -> str:
    return otherwise if sampler is None else f"a {type(sampler).__name__}"
