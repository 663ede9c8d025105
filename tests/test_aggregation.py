import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import UserFunctionError
from phalanx.pure.aggregation import (
    AGGREGATIONS,
    checked,
    max_,
    mean,
    median,
    sum_,
    trimmed_mean,
)
from phalanx.pure.arrays import aligned_empty, padded_rows

GRADS = np.array([[1.0, -8.0, 3.0], [2.0, 1.0, -3.0], [6.0, 4.0, 0.0], [3.0, 2.0, 9.0]])
WEIGHTS = np.array([1.0, 1.0, 2.0, 0.0])


def test_mean_weighs_by_samples():
    np.testing.assert_allclose(mean(GRADS, WEIGHTS), [15 / 4, 1 / 4, 0])


def test_mean_of_no_weight_at_all_is_zero():
    assert mean(GRADS, np.zeros(4)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("n_shards", [2, 3, 16])
@pytest.mark.parametrize("n", [3, 1_027, 8_195])
@pytest.mark.parametrize("weights", ["equal", "unequal"])
def test_the_mean_wherever_the_rows_lie(n_shards, n, weights):
    rng = np.random.default_rng(n_shards)
    grads = padded_rows(n_shards, n, np.float32)
    grads[...] = rng.standard_normal(grads.shape)
    before, weights_S = grads.copy(), np.full(n_shards, 7.0)
    if weights == "unequal":
        weights_S[-1] = 3
    result = mean(grads, weights_S)
    expected = np.average(before.astype(float), axis=0, weights=weights_S)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(grads, before)
    np.testing.assert_array_equal(mean(before, weights_S), result)


def test_sum_max_median_trimmed_mean():
    assert sum_(GRADS, WEIGHTS).tolist() == [12, -1, 9]
    assert max_(GRADS, WEIGHTS).tolist() == [6, -8, 9]
    assert median(GRADS, WEIGHTS).tolist() == [2.5, 1.5, 1.5]
    assert trimmed_mean(GRADS, WEIGHTS).tolist() == [2.5, 1.5, 1.5]


def test_max_takes_the_first_of_equal_magnitudes():
    assert max_(np.array([[-2.0], [2.0]]), np.ones(2)).tolist() == [-2]


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_shard_is_its_own_aggregate_in_a_new_array(name, dtype):
    grads = np.array([[1.5, -2.0]], dtype)
    result = AGGREGATIONS[name](grads, np.array([3.0]))
    assert result.dtype == dtype
    assert result.tolist() == [1.5, -2.0]
    assert not np.shares_memory(result, grads)


@pytest.mark.parametrize("name", sorted(set(AGGREGATIONS) - {"mean", "sum"}))
@given(st.permutations(range(4)))
def test_robust_rules_do_not_depend_on_the_order_of_shards(name, order):
    rule = AGGREGATIONS[name]
    np.testing.assert_array_equal(
        rule(GRADS, WEIGHTS), rule(GRADS[list(order)], WEIGHTS[list(order)])
    )


@pytest.mark.parametrize(
    "result", [1.0, np.ones(2), np.ones((4, 3)), "abc", None, np.ones(3, complex)]
)
def test_a_users_rule_must_return_one_gradient(result):
    def mine(grads_Sn, weights_S):
        return result

    with pytest.raises(UserFunctionError, match=r"returns numbers of shape \[n\].*mine returned"):
        checked(mine)(GRADS, WEIGHTS)


def test_a_users_rule_that_raises_is_named_with_its_shapes():
    def broken(grads_Sn, weights_S):
        raise ZeroDivisionError("oops")

    with pytest.raises(UserFunctionError, match=r"broken raised ZeroDivisionError: oops.*\(4, 3\)"):
        checked(broken)(GRADS, WEIGHTS)


def test_a_users_rule_cannot_change_the_shards_gradients():
    def greedy(grads_Sn, weights_S):
        grads_Sn[:] = 0
        return grads_Sn.sum(axis=0)

    before = GRADS.copy()
    assert checked(greedy)(GRADS, WEIGHTS).tolist() == [0, 0, 0]
    np.testing.assert_array_equal(GRADS, before)


@pytest.mark.parametrize("rule", AGGREGATIONS.values(), ids=AGGREGATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_were_gathered_are_reduced_to_the_bits_of_rows_at_home(dtype, rule):
    rng = np.random.default_rng(0)
    for n in (*range(1, 20), 100, 1027):
        for shards in (1, 2, 3, 4, 8):
            home = aligned_empty((shards, 2048), dtype)[:, 16 : 16 + n]
            home[...] = rng.normal(size=(shards, n))
            gathered = padded_rows(shards, n, dtype)
            gathered[...] = home
            weights = rng.integers(1, 9, shards).astype(float)
            assert rule(gathered, weights).tobytes() == rule(home, weights).tobytes(), (n, shards)
