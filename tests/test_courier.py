"""Several hosts train one model over a group in memory: the bits are those of one host, and a step
whose exchange fails has changed nothing."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from threading import Thread, get_ident

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from host_threads import Table, ThreadHosts, in_threads, train_alone, train_together
from phalanx.clusters.hosts.talking import gather, lead
from phalanx.clusters.processes import Processes
from phalanx.data.samples import TableSamples
from phalanx.engine.courier import Courier
from phalanx.engine.making import SideBySide
from phalanx.errors import CheckpointError, HostLost, HostsDiffer, NonFiniteLoss, PhalanxError
from phalanx.exchange.board import HALT, INTERRUPT, REGROUP
from phalanx.job import Job, Lease
from phalanx.models.base import OutputScore
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.factored import FactoredMLP, FactoredNetwork
from phalanx.pure.aggregation import mean, median
from phalanx.pure.assignment import round_robin
from phalanx.pure.cadence import Cadence
from phalanx.pure.clipping import Clip
from phalanx.pure.hosts import ALONE, Place
from phalanx.pure.layout import Kind, Region
from phalanx.pure.metrics import log_loss
from phalanx.pure.optimizers import SGD, Adam
from phalanx.pure.plan import Plan, random
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Rule
from phalanx.training.afterwards import warn_afterwards
from phalanx.training.following import Checkpoints, Following
from phalanx.training.state import State

RNG = np.random.default_rng(0)
N, BATCH, EPOCHS = 43, 12, 2  # the last batch has 7 rows: fewer than there are shards at times
X = RNG.normal(size=(N, 6)).astype(np.float32)
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
TRAINING = TableSamples.of(X, CLASSES)
BROKEN = TableSamples.of(np.where(np.arange(N)[:, np.newaxis] == 5, np.float32("nan"), X), CLASSES)
MORE = RNG.normal(size=(600, 6)).astype(np.float32)
VALIDATION = TableSamples.of(MORE, (MORE[:, 0] > 0).astype(int))  # three chunks
SPEC = MLPSpec((6, 200, 30, 3), "relu", "log_loss", "float32", dropout=0.2)  # two blocks

SHARDS_OF_FACTORS = 5
FACTORED = FactoredMLP(
    (6, 257, 300, 3), "relu", "log_loss", "float32", dropout=0.2, batch_size=BATCH,
    n_shards=SHARDS_OF_FACTORS,
)  # fmt: skip
SPARSE_FACTORED = replace(FACTORED, is_sparse=True)
SPARSE = TableSamples.of(csr_matrix(np.where(X > 0, X, 0)), CLASSES)


@pytest.fixture(params=[-1, 10**9], ids=["divided", "undivided"], autouse=True)
def blocks(request, monkeypatch):
    """Whether hosts divide the blocks, small as these networks are."""
    monkeypatch.setattr("phalanx.pure.hosts.MESSAGE_BYTES", request.param)


@dataclass(frozen=True)
class Averages:
    """A model with regions of every kind: a mean to be learnt, a running mean, a counter."""

    n_learnt: int = 5000  # two blocks
    n_others: int = 6
    n_measures: int = 1
    runs_here: bool = True
    libraries: tuple[str, ...] = ()
    n_decayed: int = 0
    n_outputs: int = 6

    @property
    def dtype(self):
        return np.dtype(np.float32)

    @property
    def n_parameters(self):
        return self.n_learnt

    @property
    def size(self):
        return self.n_learnt + 2 * self.n_others

    @property
    def factors(self):
        return None

    @property
    def regions(self):
        middle = self.n_learnt + self.n_others
        return (
            Region(0, 3000),
            Region(3000, middle - 2000, Kind.AVERAGED),
            Region(middle - 2000, middle, group=0),
            Region(middle, self.size, Kind.COPIED),
        )

    def as_guest(self):
        return nullcontext()

    def build(self, params_N):
        return BuiltAverages(self, params_N)


class BuiltAverages:
    def __init__(self, spec, params_N):
        self.spec, self.params_N = spec, params_N

    def gradient(self, rows, grad_N, key):
        learnt = self.spec.n_learnt + self.spec.n_others
        grad_N[:learnt] = self.params_N[:learnt] * rows.x.mean() - np.resize(rows.x, learnt)
        grad_N[learnt:] = self.params_N[learnt:] + np.float32(1 + key.shard)
        return float(np.abs(grad_N).sum(dtype=np.float64)), float(rows.count), float(rows.x.sum())


def job_of(spec=SPEC, shards=4, batch=BATCH, validates=False, epochs=EPOCHS, **more):
    settings = dict(
        optimizer=Adam(), aggregation=mean, assignment=round_robin,
        rule=Rule(Constant(0.1), epochs, patience=10**6, by_score=validates), alpha=0.01,
        n_workers=1, n_seats=1,
    )  # fmt: skip
    if validates:
        settings |= dict(n_validation=VALIDATION.n_samples, score=OutputScore(log_loss))
    return Job(model=spec, plan=Plan(N, batch, shards, 7, random), **{**settings, **more})


def start_of(job):
    def start():
        params_N = np.random.default_rng(1).normal(0, 0.1, job.model.size)
        rows = len(job.optimizer.slots)
        state_MN = np.zeros((rows, job.model.size), job.model.dtype)
        return State(params_N.astype(job.model.dtype), state_MN)

    return start


def trained(job, count, hosts=None, followings=None):
    """Of each of so many hosts: what it trained to, or its error."""
    training = TRAINING if job.nonfinite == "keep" else BROKEN
    training = SPARSE if job.model == SPARSE_FACTORED else training
    data = job, start_of(job), training, VALIDATION if job.n_validation else None
    if count == 0:
        return [train_alone(*data, followings and followings[0])]
    return train_together(*data, hosts or ThreadHosts(count), count, followings)


def told(found):
    if isinstance(found, Exception):
        raise found
    record = found.run
    return record.digest, record.losses, record.scores, record.reason, found.records[-1].measures


CASES = {
    "plain": {},
    "one shard": {"shards": 1},
    "many shards": {"shards": 12},  # more than rows of the last batch
    "validation": {"validates": True},
    "clipped": {"clip": Clip(norm=0.05)},
    "median": {"aggregation": median},
    "one block": {"spec": MLPSpec((6, 4, 3), "tanh", "log_loss", "float64")},
    "factors": {"spec": FACTORED, "shards": SHARDS_OF_FACTORS},
    "factors clipped": {
        "spec": FACTORED, "shards": SHARDS_OF_FACTORS, "clip": Clip(norm=0.05), "validates": True,
    },
    "sparse": {"spec": SPARSE_FACTORED, "shards": SHARDS_OF_FACTORS},
    "bf16": {"wire": "bf16"},
    "fp16": {"wire": "fp16", "clip": Clip(norm=0.05), "validates": True},
    "skip": {"nonfinite": "skip"},
    "averages": {"spec": Averages(), "optimizer": SGD()},
    "averages bf16": {"spec": Averages(), "optimizer": SGD(), "wire": "bf16", "shards": 3},
    "averages fp16 clipped": {
        "spec": Averages(), "optimizer": Adam(), "wire": "fp16", "clip": Clip(norm=1.0),
    },
}  # fmt: skip


def case(name):
    return job_of(**CASES[name])


@cache
def alone(name):
    return told(trained(case(name), 0)[0])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_hosts_gives_the_same_bits(name, count):
    for found in trained(case(name), count):
        assert told(found) == alone(name)
        assert found.run.hosts == count


def test_hosts_that_end_with_different_weights_are_told(monkeypatch):
    """A function that is another one on each, under the same name; each reduces all blocks."""
    monkeypatch.setattr("phalanx.pure.hosts.MESSAGE_BYTES", 10**9)
    threads = []

    def differing(grads_Sn, weights_S):
        threads.append(get_ident())
        return mean(grads_Sn, weights_S) * (1 if get_ident() == threads[0] else 2)

    first, second = (each.run for each in trained(job_of(aggregation=differing), 2))
    assert first.digest != second.digest
    (event,) = [event for event in first.events if event.what == "weights differ"]
    assert f"host 0: {first.digest[:12]}, host 1: {second.digest[:12]}" in event.detail
    with pytest.warns(UserWarning, match="the hosts came to different weights.*train anew"):
        warn_afterwards(first)


def test_hosts_hash_their_ends_once(monkeypatch):
    expected = alone("plain")
    monkeypatch.setattr("phalanx.training.train.digest", pytest.fail)
    assert [told(each) for each in trained(case("plain"), 2)] == [expected] * 2


def test_a_lost_host_is_told_that_its_last_checkpoint_failed(tmp_path, monkeypatch):
    def failing(*args):
        raise CheckpointError("no space left on the disk")

    monkeypatch.setattr("phalanx.training.checkpoint.save", failing)
    kept = Checkpoints(tmp_path, Cadence(10**6, "steps"), {})
    hosts = ThreadHosts(2, fails=[[(0, 12)]], left=0)
    lost, _ = trained(case("plain"), 2, hosts, [Following(checkpoints=kept), Following()])
    assert isinstance(lost, HostLost)
    (note,) = lost.__notes__
    assert "the last checkpoint of the training could not be written: no space left" in note


INEXACT = ["plain", "one shard", "many shards", "clipped", "fp16", "averages fp16 clipped"]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", INEXACT)
def test_hosts_that_send_the_mean_of_their_shards_agree(name, count):
    """To the bit with each other, and in all but the last digits with what is exact."""
    found = [told(each) for each in trained(replace(case(name), exact=False), count)]
    assert found == [found[0]] * count
    np.testing.assert_allclose(found[0][1], alone(name)[1], rtol=0.02 if "fp16" in name else 1e-4)
    if count == 1 or name == "one shard":
        assert found[0] == alone(name)


def sent(job):
    """Elements that two hosts send each other in a training."""
    hosts = ThreadHosts(2)
    for found in trained(job, 2, hosts):
        told(found)
    laid = hosts.tables[0].laid.values()
    kinds = [by_host[0] for by_host in laid]
    return sum(len(p) for kind, pieces in kinds if kind == "all_to_all" for p in pieces)


def test_the_mean_of_several_shards_travels_once():
    job = case("plain")
    size, steps = job.model.size, EPOCHS * job.plan.n_steps
    assert sent(replace(job, exact=False)) <= size * steps < sent(job)


def test_factors_are_less_to_send_than_gradients():
    plain = job_of(MLPSpec((6, 257, 300, 3), "relu", "log_loss", "float32"), 2, batch=32)
    leaves = FactoredMLP((6, 257, 300, 3), "relu", "log_loss", "float32", batch_size=32, n_shards=2)
    assert sent(replace(plain, model=leaves)) < sent(plain) / 4


@pytest.mark.parametrize(("count", "at_once"), [(0, {SHARDS_OF_FACTORS}), (2, {1})])
def test_hosts_compute_one_shard_while_another_travels(count, at_once, monkeypatch):
    seen, real = set(), SideBySide.make
    monkeypatch.setattr(
        SideBySide, "make", lambda it, group, batch: seen.add(len(group)) or real(it, group, batch)
    )
    monkeypatch.setattr(FactoredNetwork, "may_be_joined", lambda *_: True)
    for found in trained(case("factors"), count):
        told(found)
    assert seen == at_once


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", ["factors", "factors clipped"])
def test_what_is_made_of_factors_may_be_divided(name, count, monkeypatch):
    """As it is among hosts of several kinds."""
    divides = property(lambda job: not job.place.is_alone)
    monkeypatch.setattr(Job, "divides_blocks", divides)
    for found in trained(case(name), count):
        assert told(found) == alone(name)


@pytest.mark.parametrize("name", ["plain", "factors"])
def test_hosts_of_several_kinds_update_from_one_gradient(name):
    """Where each reduced all blocks, their parameters would come to differ more and more."""
    job = replace(case(name), is_mixed=True, place=Place(0, 2))
    assert job.divides_blocks
    assert not replace(job, place=ALONE).divides_blocks


def test_a_skipped_step_and_a_short_batch_are_among_them():
    job = case("many shards")
    assert len(job.plan.shards(job.plan.n_steps - 1)) == 7
    losses = alone("skip")[1]
    assert np.isfinite(losses).all()
    assert trained(replace(case("skip"), nonfinite="keep"), 0)[0].run.losses == alone("plain")[1]
    assert alone("bf16")[0] != alone("plain")[0], "rounding is part of the answer"


def test_a_loss_that_is_not_finite_ends_all_hosts():
    found = trained(replace(case("plain"), nonfinite="stop"), 3, ThreadHosts(3, left=0))
    raised = [error for error in found if isinstance(error, NonFiniteLoss)]
    assert len(raised) == 1
    assert sum(isinstance(error, HostLost) for error in found) == 2


class TestLoss:
    """Exchanges that fail."""

    COUNT = 3

    def operations(self, job, followings=None):
        """How many there are in a training: until the first step, and in all."""
        hosts = ThreadHosts(self.COUNT)
        for found in trained(job, self.COUNT, hosts, followings):
            told(found)
        kinds = {number: laid[0][0] for number, laid in hosts.tables[0].laid.items()}
        steps = [number for number, kind in kinds.items() if kind == "all_to_all"]
        return steps[0], len(kinds)

    def survives(self, name, fails, left=None, followings=None, expected=None):
        hosts = ThreadHosts(self.COUNT, fails, left)
        results = trained(case(name), self.COUNT, hosts, followings and followings())
        expected = expected or alone(name)
        for number, found in enumerate(results):
            if isinstance(found, HostLost) and number >= (left or self.COUNT):
                continue
            assert told(found) == expected, (fails, number)
        return results

    @pytest.mark.parametrize("who", [[0], [1], [2], [0, 1, 2]])
    @pytest.mark.parametrize("name", ["plain", "validation", "averages fp16 clipped"])
    def test_a_loss_at_any_operation_loses_no_step(self, name, who):
        first, last = self.operations(case(name))
        for number in range(first + who[-1], last + 1, 3):
            self.survives(name, [[(host, number) for host in who]])

    @pytest.mark.parametrize("left", [1, 2])
    def test_fewer_hosts_go_on(self, left):
        first, last = self.operations(case("validation"))
        for number in range(first, last // 2, 3):
            results = self.survives("validation", [[(self.COUNT - 1, number)]], left)
            assert results[0].run.hosts == left

    def test_losses_in_a_row(self):
        first, _ = self.operations(case("plain"))
        for number in range(1, 12):
            again = [(number % self.COUNT, number)]
            results = self.survives("plain", [[(0, first + 3)], again, again])
            events = [event.what for event in results[0].run.events]
            assert events.count("hosts changed") >= 1

    def test_losses_with_callbacks(self):
        """Of which those of the first host hold for all."""

        def followings():
            return [Following(on_epoch=lambda epoch, record: None) for _ in range(self.COUNT)]

        first, last = self.operations(case("validation"), followings())
        for number in range(first, last + 1):
            self.survives("validation", [[(number % self.COUNT, number)]], None, followings)

    def test_the_first_hosts_callback_stops_all(self):
        def stopping():
            return [
                Following(on_epoch=lambda epoch, record, host=host: epoch == 1 + host)
                for host in range(self.COUNT)
            ]

        expected = told(trained(case("validation"), 0, followings=stopping())[0])
        assert expected[3] == "callback"
        for found in trained(case("validation"), self.COUNT, followings=stopping()):
            assert told(found) == expected

    def test_hosts_that_send_means_lose_no_step(self):
        job = replace(case("plain"), exact=False)
        expected = told(trained(job, self.COUNT)[0])
        first, last = self.operations(job)
        a_step = 4  # of operations: who loses the last one may have to make it alone
        for number in range(first, last - a_step):
            hosts = ThreadHosts(self.COUNT, [[(number % self.COUNT, number)]])
            assert [told(found) for found in trained(job, self.COUNT, hosts)] == [expected] * 3

    def test_before_the_first_step_the_others_begin(self):
        for host in range(self.COUNT):
            self.survives("plain", [[(host, 1)]])


def test_the_wish_to_end_goes_before_the_wish_for_other_workers():
    courier = Courier.__new__(Courier)
    courier.door = [0] * 10
    courier._heed(np.array([[REGROUP], [INTERRUPT], [0]]))
    assert courier.door[HALT] == INTERRUPT
    courier.door[HALT] = 0
    courier._heed(np.array([[0], [0]]))
    assert courier.door[HALT] == 0


def test_a_host_that_has_no_memory_for_its_courier_leaves_nothing(monkeypatch):
    """As tests/conftest.py looks."""

    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr("phalanx.clusters.processes.Courier", without_memory)
    (group,) = Table(1).groups()
    session = Processes(2, group).session(case("plain"), TRAINING, None, print)
    with pytest.raises(MemoryError), session:
        pass


def test_a_host_that_has_no_thread_for_its_courier_says_so(monkeypatch):
    def failing(thread):
        raise RuntimeError("can't start new thread")

    (group,) = Table(1).groups()
    job = replace(case("plain"), n_workers=2, n_seats=2)
    with Processes(2, group).session(job, TRAINING, None, print) as session:
        monkeypatch.setattr(Thread, "start", failing)
        with pytest.raises(PhalanxError, match="no room for one more"):
            session.run(Lease(0, EPOCHS, 0, 0), None)


class TestTalking:
    def test_every_host_hears_every_host(self):
        groups = Table(3).groups()
        told = [None, {"a": [1]}, "x" * 1000]
        found = in_threads(*(lambda g=g: gather(g, "all", told[g.place.host]) for g in groups))
        assert found == [told] * 3

    def test_hosts_that_speak_of_different_things_differ(self):
        def speak(group):
            with pytest.raises(HostsDiffer, match=r"they are at this \(host 0\), that \(host 1\)"):
                gather(group, ("this", "that")[group.place.host], None)

        in_threads(*(lambda g=g: speak(g) for g in Table(2).groups()))

    @pytest.mark.parametrize("host", [0, 2])
    def test_one_host_leads(self, host):
        groups, arrays = Table(3).groups(), [np.full((2, 3), number) for number in range(3)]
        in_threads(*(lambda g=g: lead(g, arrays[g.place.host], host) for g in groups))
        assert all((array == host).all() for array in arrays)

    def test_hosts_that_start_elsewhere_differ(self):
        job, hosts = case("plain"), ThreadHosts(2)
        draws = np.random.default_rng(0)  # of all hosts, so each begins with other parameters

        def start():
            return State(draws.normal(size=job.model.size), np.zeros((2, job.model.size)))

        for error in train_together(job, start, TRAINING, None, hosts, 2):
            assert isinstance(error, HostsDiffer)
            assert "initial parameters" in str(error)
