"""What runs inside a worker process: take a job, run its leases, answer with reports or errors."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from phalanx.arena import Arena, Fields
from phalanx.clusters import wire
from phalanx.clusters.base import Forward
from phalanx.clusters.heap import Garbage, keep_freed_memory
from phalanx.clusters.inprocess import predict_chunks
from phalanx.clusters.surroundings import Surroundings
from phalanx.data.placement import Placement
from phalanx.engine.worker import Worker
from phalanx.exchange.board import Aborted
from phalanx.job import Job, Lease
from phalanx.pure.faults import Script


@dataclass(frozen=True)
class TakeJob:
    """A job for a life of a seat. told: packed once, so that a replacement is told what the first
    workers were.

    The descriptors of the arena and of the caller's memory come along, here as below.
    """

    life: int
    told: wire.Packed[Told]


@dataclass(frozen=True)
class Told:
    """A job, its arena's fields, and where its samples lie."""

    around: Surroundings
    script: Script
    job: Job
    fields: Fields
    training: Placement
    validation: Placement | None


@dataclass(frozen=True)
class TakeForward:
    """A prediction, its arena's fields, and where its samples lie."""

    around: Surroundings
    work: Forward
    fields: Fields
    samples: Placement


@dataclass(frozen=True)
class DropJob:
    """The job is over; give its memory back."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker. `error` is the pickled exception where it can be pickled."""

    summary: str
    traceback: str
    error: bytes | None
    aborted: bool


def serve(sock: socket.socket, rank: int) -> None:
    """Answer the driver's messages until it closes the socket."""
    # a child that a user's function forks must not keep the socket open when the worker is dead
    os.register_at_fork(after_in_child=sock.close)
    keep_freed_memory()
    worker: Worker | None = None
    garbage = Garbage()
    while True:
        answer: Any = None
        try:
            message, descriptors = wire.receive(sock)
        except EOFError:
            return
        except wire.Unreadable as error:
            wire.send(sock, _failure(error))
            continue
        try:
            match message:
                case TakeJob():
                    worker = _worker(message, descriptors, rank)
                case Lease():
                    assert worker is not None
                    worker.run(message)
                case TakeForward():
                    _predict(message, descriptors, rank)
                    garbage.collect()
                case DropJob():
                    worker = None
                    garbage.collect()
        except BaseException as error:  # an EOFError of the user's function, too
            answer = _failure(error)  # the driver has the others stop, once it has this
        try:
            wire.send(sock, answer)
        except OSError:
            return


def _worker(message: TakeJob, descriptors: list[int], rank: int) -> Worker:
    with closing_all(descriptors) as (shared, memory):
        told = message.told.unpacked()
        told.around.take()
        arena = Arena.attach(told.fields, shared)
        training = told.training.attach(arena, memory)
        validation = told.validation.attach(arena, memory) if told.validation else None
    return Worker(told.job, arena, training, validation, rank, message.life, told.script)


def _predict(message: TakeForward, descriptors: list[int], rank: int) -> None:
    with closing_all(descriptors) as (shared, memory):
        message.around.take()
        arena = Arena.attach(message.fields, shared)
        samples = message.samples.attach(arena, memory)
    predict_chunks(message.work, arena["parameters"], samples, arena["outputs"], rank)


@contextmanager
def closing_all(descriptors: list[int]) -> Iterator[list[int]]:
    """Close descriptors at the end."""
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _failure(error: BaseException) -> Failure:
    summary = "".join(traceback.format_exception_only(error)).strip()
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = None
    return Failure(summary, traceback.format_exc(), pickled, isinstance(error, Aborted))
