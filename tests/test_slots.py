"""A shard's slot is one array for the whole training."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from phalanx import MLPClassifier
from phalanx.engine.slots import Slots
from phalanx.models.mlp.network import Network

ARENA = {"grads": np.arange(12.0).reshape(3, 4), "grads_away": np.arange(24.0).reshape(2, 3, 4)}


@pytest.mark.parametrize(("doer", "owner"), [(0, 0), (1, 0)])
def test_the_same_array_every_time(doer, owner):
    slots = Slots(ARENA, 1, 3)
    slot_n = slots.one(2, doer, owner)
    assert slots.one(2, doer, owner) is slot_n
    rows_Sn = ARENA["grads"] if doer == owner else ARENA["grads_away"][doer]
    assert np.shares_memory(slot_n, rows_Sn)
    assert slot_n.tolist() == rows_Sn[2, 1:3].tolist()


def test_rows_of_several_doers_are_gathered():
    rows_Sn = Slots(ARENA, 1, 3).gathered(range(3), [0, 1, 1], [0, 0, 1])
    assert rows_Sn.tolist() == [[1, 2], [17, 18], [9, 10]]


def test_a_training_keeps_views_of_as_many_slots_as_it_has_shards(monkeypatch):
    networks = []
    build = Network.__init__
    monkeypatch.setattr(
        Network, "__init__", lambda self, *args: networks.append(self) or build(self, *args)
    )
    x = np.random.default_rng(0).normal(size=(40, 3))
    model = MLPClassifier((4,), max_iter=5, batch_size=8, shards=4)
    with pytest.warns(ConvergenceWarning):
        model.fit(x, x[:, 0] > 0)
    assert max(len(network._gradients) for network in networks) == 4
