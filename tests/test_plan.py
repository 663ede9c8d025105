import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.pure.plan import (
    DISTRIBUTIONS,
    Plan,
    auto_shards,
    random,
    sequential,
    stratified,
    strided,
)

jobs = st.tuples(
    st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**31 - 1)
)


def plan_of(job, distribution, labels=None):
    n_samples, batch_size, shards, seed = job
    return Plan(n_samples, min(batch_size, n_samples), shards, seed, distribution, labels)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@given(job=jobs, epoch=st.integers(0, 5))
def test_every_sample_once_an_epoch(name, job, epoch):
    labels = np.arange(job[0]) % 3
    plan = plan_of(job, DISTRIBUTIONS[name], labels)
    order = plan.order(epoch)
    visited = [
        order[start:stop]
        for step in range(plan.n_steps)
        for start, stop in (plan.shard(step, s) for s in range(plan.n_shards))
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(visited)), np.arange(job[0]))


@given(job=jobs)
def test_shards_are_contiguous_even_and_larger_first(job):
    plan = plan_of(job, sequential)
    for step in range(plan.n_steps):
        bounds = [plan.shard(step, s) for s in range(plan.n_shards)]
        sizes = [stop - start for start, stop in bounds]
        assert (bounds[0][0], bounds[-1][1]) == plan.batch(step)
        assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:], strict=False))
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) <= plan.max_shard_rows


@given(job=jobs)
def test_all_shards_of_a_step_are_those_with_samples_each_as_it_is_alone(job):
    plan = plan_of(job, sequential)
    for step in range(plan.n_steps):
        alone = [plan.shard(step, s) for s in range(plan.n_shards)]
        assert plan.shards(step) == [(start, stop) for start, stop in alone if start < stop]


def test_with_fewer_rows_than_shards_the_first_have_one_each():
    plan = Plan(10, 7, 5, 0, sequential)
    assert plan.shards(0) == [(0, 2), (2, 4), (4, 5), (5, 6), (6, 7)]
    assert plan.shards(1) == [(7, 8), (8, 9), (9, 10)]
    assert plan.shard(1, 4) == (10, 10)


def test_random_differs_by_epoch_and_seed_and_by_nothing_else():
    plan = Plan(50, 10, 2, 7, random)
    np.testing.assert_array_equal(plan.order(3), Plan(50, 25, 5, 7, random).order(3))
    assert not np.array_equal(plan.order(3), plan.order(4))
    assert not np.array_equal(plan.order(3), Plan(50, 10, 2, 8, random).order(3))


@pytest.mark.parametrize("max_steps", [None, 2])
def test_visits_are_the_batches_of_all_steps(max_steps):
    plan = Plan(10, 4, 2, 0, sequential, max_steps=max_steps)
    made = 0
    for step in range(9):
        assert plan.visits(step) == made
        start, stop = plan.batch(step % plan.n_steps)
        made += stop - start


def test_strided_takes_every_nth_sample():
    assert Plan(10, 2, 1, 0, strided).order(0).tolist() == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]


def test_stratified_keeps_each_classes_share_in_every_batch():
    labels = np.repeat([0, 1], [80, 20])
    plan = Plan(100, 10, 1, 0, stratified, labels)
    for epoch in range(3):
        order = plan.order(epoch)
        per_batch = [labels[order[slice(*plan.batch(t))]].sum() for t in range(plan.n_steps)]
        assert set(per_batch) <= {1, 2, 3}
        assert sum(per_batch) == 20


def test_stratified_needs_labels():
    with pytest.raises(InvalidInput, match="needs one class label"):
        Plan(10, 2, 1, 0, stratified)


@pytest.mark.parametrize(
    "bad",
    [
        lambda epoch: np.zeros(epoch.n_samples, int),
        lambda epoch: np.arange(epoch.n_samples - 1),
        lambda epoch: np.arange(epoch.n_samples) + 1,
        lambda epoch: np.arange(epoch.n_samples) / 1.0,
        lambda epoch: None,
    ],
)
def test_a_users_distribution_must_be_a_permutation(bad):
    with pytest.raises(UserFunctionError, match="exactly once"):
        Plan(10, 3, 1, 0, bad).order(0)


def test_a_users_distribution_may_write_into_its_labels():
    def merged(epoch):
        epoch.labels_B[epoch.labels_B == 2] = 1
        return np.argsort(epoch.labels_B, kind="stable")

    labels = np.array([2, 1, 0, 1])
    plan = Plan(4, 2, 1, 0, merged, labels)
    assert plan.order(0).tolist() == plan.order(1).tolist() == [2, 0, 1, 3]
    assert labels.tolist() == [2, 1, 0, 1]


def test_a_users_distribution_that_raises_is_named():
    def broken(epoch):
        raise KeyError("x")

    with pytest.raises(UserFunctionError, match="broken raised KeyError"):
        Plan(10, 3, 1, 0, broken).order(0)


@pytest.mark.parametrize(
    ("batch", "parameters", "shards"),
    [(200, 7_510, 2), (256, 235_146, 4), (256, 5_824_522, 4), (120, 83, 1), (1, 10**9, 1)],
)
def test_auto_shards_of_known_jobs(batch, parameters, shards):
    assert auto_shards(batch, parameters) == shards


@pytest.mark.parametrize(
    ("batch", "shards"), [(8, 1), (31, 1), (32, 2), (64, 4), (128, 4), (256, 4), (512, 8)]
)
def test_auto_shards_of_deep_models_may_be_small(batch, shards):
    assert auto_shards(batch, 1_000_000, is_deep=True) == shards
    assert auto_shards(batch, 1_000, is_deep=True) == 1
    assert auto_shards(batch, 2_000_000, is_deep=True) == auto_shards(batch, 2_000_000)
    assert auto_shards(batch, 5_000_000, is_deep=True) == max(1, batch // 128)


@given(st.integers(1, 10**5), st.integers(1, 10**9))
def test_auto_shards_is_a_power_of_two_that_leaves_rows(batch, parameters):
    shards = auto_shards(batch, parameters)
    assert shards & (shards - 1) == 0
    assert 1 <= shards <= 16
    assert shards == 1 or batch / shards >= 64
