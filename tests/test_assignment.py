import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import UserFunctionError
from phalanx.pure.assignment import (
    ASSIGNMENTS,
    assign,
    is_sooner,
    load_balanced,
    round_robin,
    useful_workers,
)
from phalanx.pure.layout import Region

speeds = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9)


@pytest.mark.parametrize("name", sorted(ASSIGNMENTS))
@given(n_tasks=st.integers(1, 50), speeds_W=speeds)
def test_every_task_has_one_owner_that_exists(name, n_tasks, speeds_W):
    owners = assign(ASSIGNMENTS[name], n_tasks, speeds_W)
    assert len(owners) == n_tasks
    assert all(0 <= owner < len(speeds_W) for owner in owners)


@pytest.mark.parametrize(
    ("n_shards", "multiply", "useful"), [(1, False, 1), (1, True, 4), (2, False, 4), (2, True, 4)]
)
def test_a_single_shard_is_one_workers_unless_all_multiply_its_factors(n_shards, multiply, useful):
    blocks = [Region(start, start + 300_000) for start in range(0, 1_200_000, 300_000)]
    assert useful_workers(9, n_shards, blocks, multiply) == useful


def test_round_robin_deals_in_turn():
    assert round_robin(7, [1, 9, 1]) == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("speeds_W", "shares"),
    [([1, 1], [8, 8]), ([3, 1], [12, 4]), ([1, 0.25], [13, 3]), ([1, 1, 2], [4, 4, 8])],
)
def test_load_balanced_gives_shares_by_speed(speeds_W, shares):
    owners = load_balanced(16, speeds_W)
    assert [owners.count(rank) for rank in range(len(speeds_W))] == shares
    assert owners == sorted(owners)


@given(n_tasks=st.integers(1, 40), speeds_W=speeds)
def test_load_balanced_is_never_slower_than_round_robin(n_tasks, speeds_W):
    def slowest(owners):
        return max(owners.count(r) / v for r, v in enumerate(speeds_W))

    balanced, dealt = load_balanced(n_tasks, speeds_W), round_robin(n_tasks, speeds_W)
    assert slowest(balanced) <= slowest(dealt) * (1 + 1e-9)


@pytest.mark.parametrize("owners", [[0], [0, 2, 0], [0, -1, 0], [0.5, 0, 0], None, "012"])
def test_a_users_assignment_is_checked(owners):
    def mine(n_tasks, speeds_W):
        return owners

    with pytest.raises(UserFunctionError, match=r"must return 3 ranks, each in 0\.\.1; mine"):
        assign(mine, 3, [1.0, 1.0])


def test_a_users_assignment_that_raises_is_named():
    def broken(n_tasks, speeds_W):
        raise RuntimeError("no")

    with pytest.raises(UserFunctionError, match="broken raised RuntimeError: no"):
        assign(broken, 3, [1.0])


@given(owned=st.integers(1, 40), waiting=st.integers(1, 40))
def test_whoever_is_as_fast_as_the_owner_takes_whatever_waits(owned, waiting):
    assert is_sooner(waiting, owned, owned)
    assert not is_sooner(waiting, owned, 0)  # whose speed by the plan is none
