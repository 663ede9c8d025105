"""The keeper: checkpoints of a training, written beside it, and a training that goes on from one.

The leader copies what a checkpoint holds between two steps, when the keeper has asked for it; a
thread of the driver writes the copy while the training goes on. What fails becomes an event.

There is one place for the copy, so the next one is asked for when it is written: of the driver's
looks, one finds it taken, and a later one finds it written. What comes due between is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from phalanx.arena import Arena
from phalanx.clusters.watching import started
from phalanx.data.fingerprint import fingerprint
from phalanx.data.samples import Samples
from phalanx.engine.ledger import Ledger
from phalanx.errors import CheckpointError
from phalanx.exchange.board import NEVER, OPENED, SNAPSHOT_DUE, SNAPSHOT_TAKEN, fence
from phalanx.job import EPOCH_SUMS, Job
from phalanx.models.local import LocalSpec
from phalanx.pure.agreement import listed
from phalanx.pure.arrays import Array
from phalanx.pure.cadence import Cadence
from phalanx.pure.layout import blocks_of
from phalanx.pure.registry import name_of
from phalanx.pure.stopping import Progress, Reason
from phalanx.pure.timetable import Timetable
from phalanx.run import EpochRecord, Event
from phalanx.training import checkpoint
from phalanx.training.facts import Told, differing
from phalanx.training.state import Standing, State

RULES = 13  # raised with whatever makes other bits of the same job; see tests/test_rules.py
WRITTEN, FAILED = "checkpoint", "checkpoint failed"
FINAL = (Reason.MAX_EPOCHS, Reason.LOSS_THRESHOLD, Reason.NO_IMPROVEMENT)


class Keeper:
    """Of one training. Raises CheckpointError at once where the folder cannot be written."""

    def __init__(
        self, folder: Path, cadence: Cadence, extra: dict[str, Any], tell: Callable[[Event], None]
    ) -> None:
        checkpoint.check_folder(folder)
        self.folder, self.cadence, self.extra, self._tell = folder, cadence, extra, tell
        self.identity: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._written: Event | None = None
        self._last = monotonic()
        self._due: int | None = None

    def begin(self, job: Job, arena: Arena, timetable: Timetable, standing: Standing) -> None:
        """A lease begins; `standing` has the epochs that were completed earlier."""
        self._job, self._arena, self._timetable = job, arena, timetable
        self._before, self._settings = list(standing.records), dict(standing.settings)
        self._due = None
        if self._thread is None or not self._thread.is_alive():
            self._ask(timetable.tick)  # else `look` asks, once the copy is written

    def look(self, arena: Arena) -> None:
        """See how far the last one is, and whether it is time for the next; called often."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._report()
        door = arena["door"]
        if self._due is not None and door[SNAPSHOT_TAKEN] >= self._due:
            self._due = None
            fence()
            self._write_beside(int(door[SNAPSHOT_TAKEN]))
        elif self._due is None:  # the tick of the last one may be open still
            self._ask(max(int(door[OPENED]), int(door[SNAPSHOT_TAKEN]) + 1))

    def wait(self) -> None:
        """Wait until nothing is being written any more."""
        if self._thread is not None:
            self._thread.join()

    def close(self, standing: Standing) -> None:
        """The training is over: write the last one, for whoever wants to go on from here."""
        self.wait()
        self._report()
        facts = facts_of(standing)
        self._write(
            arrays_of(standing.state), {"identity": self.identity, "extra": self.extra, **facts}
        )
        self._report()

    def _ask(self, tick: int) -> None:
        """Say from which tick on the leader is to take the next copy."""
        table, (amount, unit) = self._timetable, self.cadence
        moment = table.at(max(tick, table.tick + 1))
        if unit == "seconds":
            if monotonic() - self._last < amount:
                return
            self._due = tick + 1
        elif unit == "steps":
            self._due = table.tick_of_update(int((moment.updates // amount + 1) * amount))
        else:
            self._due = table.end_of_epoch(int((moment.epoch // amount + 1) * amount) - 1)
        self._arena["door"][SNAPSHOT_DUE] = min(self._due, NEVER)

    def _write_beside(self, tick: int) -> None:
        arena, table = self._arena, self._timetable
        moment, place = table.at(tick + 1), table.place_of(tick + 1)
        ledger = Ledger(arena, self._job.n_validation > 0)
        records = self._before + ledger.records(0, moment.row)
        values_XN = arena["snapshot_values"]
        arrays = {"parameters": values_XN[0], "state": values_XN[1:]}
        if arena["snapshot_scalars"].size:
            arrays["scalars"] = arena["snapshot_scalars"][moment.updates % 2]
        if arena["snapshot_best"].size:
            arrays["best"] = arena["snapshot_best"]
        if place:
            sums = {name: arena[f"snapshot_{name}"] for name in EPOCH_SUMS}
            arrays |= {name: array for name, array in sums.items() if array.size}
        position = (moment.epoch, place, moment.updates)
        progress = ledger.progress(moment.row)
        standing = _facts(position, progress, records, None, self._settings)
        facts = {"identity": self.identity, "extra": self.extra, **standing}
        self._last = monotonic()
        self._thread = started("phalanx-keeper", self._write, arrays, facts)
        if self._thread is None:
            self._write(arrays, facts)

    def _write(self, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        step, begun = facts["position"]["updates"], monotonic()
        try:
            path = checkpoint.save(self.folder, step, arrays, facts)
        except (CheckpointError, MemoryError) as error:
            self._written = Event(FAILED, step, str(error) or "out of memory", at=begun)
        else:
            took = 1000 * (monotonic() - begun)
            detail = f"{path.name}, written beside the training in {took:.0f} ms"
            self._written = Event(WRITTEN, step, detail, at=begun)

    def _report(self) -> None:
        self._thread = None
        written, self._written = self._written, None
        if written is not None:
            self._tell(written)


def arrays_of(state: State) -> dict[str, Array]:
    """What a checkpoint keeps of a state, by name."""
    values = {"parameters": state.params_N, "state": state.state_MN}
    if state.scalars_KC is not None:
        values["scalars"] = state.scalars_KC
    if state.best_N is not None:
        values["best"] = state.best_N
    # where early stopping took the best parameters, going on means going on from the last
    if state.last_N is not None:
        values |= {"parameters": state.last_N, "best": state.params_N}
    return values | state.sums


def facts_of(standing: Standing) -> dict[str, Any]:
    """What a checkpoint keeps beside the arrays."""
    state = standing.state
    position = (state.epochs, state.place, state.updates)
    progress, records = standing.progress, standing.records
    return _facts(position, progress, records, standing.reason, standing.settings)


def _facts(
    position: tuple[int, int, int],
    progress: Progress,
    records: list[EpochRecord],
    reason: Reason | None,
    settings: dict[int, list[list[float]]],
) -> dict[str, Any]:
    return {
        "position": dict(zip(("epoch", "place", "updates"), position, strict=True)),
        "progress": list(progress),
        "records": [_packed(record) for record in records],
        "reason": reason,
        "settings": list(settings.items()),
    }


def identity_of(
    job: Job, training: Samples, validation: Samples | None, told: Told
) -> dict[str, Any]:
    """What a training must have in common with a checkpoint to go on from it: all that decides
    the answer, less how long it is to run. told: see following.Following."""
    plan, rule = job.plan, job.rule
    return {
        "rules": RULES,
        "model": repr(job.model),
        "blocks": len(job.blocks),
        **_blocks_of_replicas(job),
        "samples": plan.n_samples,
        "batch_size": plan.batch_size,
        "shards": plan.n_shards,
        "seed": plan.seed,
        **({} if plan.max_steps is None else {"steps_per_epoch": plan.max_steps}),
        "data_distribution": name_of(plan.distribution),
        "aggregation": name_of(job.aggregation),
        "optimizer": repr(job.optimizer),
        "alpha": job.alpha,
        "clip": repr(job.clip),
        "nonfinite": job.nonfinite,
        "wire": job.wire,
        **({} if job.exact else {"exact": False}),
        "schedule": repr(rule.schedule),
        "tol": rule.tol,
        "n_iter_no_change": rule.patience,
        "early_stopping": rule.by_score,
        "data": fingerprint(training),
        "validation_data": fingerprint(validation),
        **{kind: dict(facts) for kind, facts in told.items()},
    }


def _blocks_of_replicas(job: Job) -> dict[str, int]:
    """Replicas cut their parameters by their own optimiser."""
    if not isinstance(job.model, LocalSpec):
        return {}
    regions, largest = job.model.regions, job.model.optimizer.largest_block
    return {"blocks of a replica": len(blocks_of(regions, largest))}


def resume(saved: checkpoint.Saved, identity: dict[str, Any]) -> Standing:
    """Go on from a checkpoint. Raises CheckpointError where it is of another training."""
    check_same(saved, identity)
    return standing_of(saved)


def standing_of(saved: checkpoint.Saved) -> Standing:
    """Where a training stood."""
    position, arrays = saved.facts["position"], saved.arrays
    sums = {name: arrays[name] for name in EPOCH_SUMS if name in arrays}
    state = State(
        arrays["parameters"],
        arrays["state"],
        position["updates"],
        position["epoch"],
        position["place"],
        arrays.get("best"),
        sums,
        scalars_KC=arrays.get("scalars"),
    )
    records = [record_from(record) for record in saved.facts["records"]]
    reason = saved.facts["reason"]
    return Standing(
        state,
        _progress(saved.facts["progress"]),
        records,
        Reason(reason) if reason in FINAL else None,
        dict(saved.facts.get("settings", [])),
    )


def check_same(saved: checkpoint.Saved, identity: dict[str, Any]) -> None:
    """Raise CheckpointError where the checkpoint is of another training."""
    there = saved.facts.get("identity", {})
    found = differing(there, identity)
    if len(found) > 1 and saved.facts.get("extra"):  # an estimator's: it draws its seed last of all
        found = differing({**there, "seed": identity["seed"]}, identity)
    if found:
        raise CheckpointError(
            "a checkpoint can be gone on from with the data and parameters that it was made with; "
            f"{saved.path} differs in {listed(found)}. Use those of the checkpoint "
            "(for other rules, the version of Phalanx that wrote it), or start anew without resume."
        )


def _packed(record: EpochRecord) -> list[Any]:
    return [*record[:-2], list(record.measures), list(record.sums)]


def record_from(packed: list[Any]) -> EpochRecord:
    """An epoch's record, as a checkpoint keeps it."""
    loss, score, rate, seconds, reason, measures, sums = packed
    ended = Reason(reason) if reason else None
    return EpochRecord(loss, score, rate, seconds, ended, tuple(measures), tuple(sums))


def _progress(packed: list[Any]) -> Progress:
    rate, epochs, seen, best_loss, best_score, stale, improved = packed
    return Progress(rate, int(epochs), int(seen), best_loss, best_score, int(stale), bool(improved))
