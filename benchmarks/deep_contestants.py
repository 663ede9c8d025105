"""The contestants of deep.py: see contestants.py, Contestant."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from time import perf_counter

import deep_keras
import deep_loops
import phalanx
from contestants import Contestant
from deep_cases import DeepCase
from deep_loops import Kind, Setting
from deep_modules import seeded
from deep_names import (
    DDP,
    FABRIC,
    KERAS,
    LIMIT,
    LIMIT_FUSED,
    PHALANX_1,
    PHALANX_2,
    PHALANX_KERAS,
    TORCH_1,
    TORCH_2,
)
from peers import Peers

CORES = SHARDS = 2


class PhalanxTorch:
    """phalanx.fit of the module, made anew each round."""

    def __init__(self, case: DeepCase, workers: int) -> None:
        self._case, self._workers = case, workers
        samples = case.samples()
        self._data = samples.x, samples.y

    def round(self, epochs: int) -> float:
        seeded()
        module = self._case.module()
        begun = perf_counter()
        phalanx.fit(
            module, self._data, loss="cross_entropy", optimizer="adam", epochs=epochs,
            batch_size=self._case.batch, workers=self._workers, shards=SHARDS,
        )  # fmt: skip
        return (perf_counter() - begun) / (epochs * self._case.steps)

    def close(self) -> None:
        pass


class PhalanxKeras:
    """phalanx.fit of the Keras model, made anew each round."""

    def __init__(self, case: DeepCase, workers: int) -> None:
        self._case, self._workers = case, workers
        samples = case.samples(for_keras=True)
        self._data = samples.x, samples.y

    def round(self, epochs: int) -> float:
        model = deep_keras.compiled(self._case)
        begun = perf_counter()
        phalanx.fit(
            model, *self._data, batch_size=self._case.batch, epochs=epochs, verbose=0,
            workers=self._workers, shards=SHARDS,
        )  # fmt: skip
        return (perf_counter() - begun) / (epochs * self._case.steps)

    def close(self) -> None:
        pass


def loops(case: DeepCase, setting: Setting) -> Peers:
    """A torch contestant's processes."""
    port = free_port()
    return Peers(deep_loops.serve, [(case, setting, rank, port) for rank in range(setting.world)])


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def contestants(case: DeepCase) -> dict[str, Contestant]:
    """Everybody who trains a case, in the order of the table."""
    everybody: dict[str, Contestant] = {
        PHALANX_2: PhalanxTorch(case, CORES),
        PHALANX_1: PhalanxTorch(case, 1),
        TORCH_1: loops(case, Setting(Kind.APART, 1)),
        TORCH_2: loops(case, Setting(Kind.APART, 1, threads=CORES)),
        DDP: loops(case, Setting(Kind.DDP, CORES)),
        LIMIT: loops(case, Setting(Kind.APART, CORES)),
        LIMIT_FUSED: loops(case, Setting(Kind.APART, CORES, fused=True)),
    }
    if find_spec("lightning_fabric"):
        everybody[FABRIC] = loops(case, Setting(Kind.FABRIC, CORES))
    if find_spec("keras"):
        everybody[KERAS] = Peers(deep_keras.serve, [(case, CORES)])
        if trains_keras(case):
            everybody[PHALANX_KERAS] = PhalanxKeras(case, CORES)
    return everybody


def trains_keras(case: DeepCase) -> bool:
    """Whether phalanx.fit takes Keras models by now."""
    try:
        PhalanxKeras(case.quick(), CORES).round(1)
    except NotImplementedError:
        return False
    return True
