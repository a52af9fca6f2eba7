"""What a job will cost, before it is run.

::

    Plan ──choose_ranges──▶ probe (a process does the real work on them) ──▶ receipts ──rates_of──▶ Rates
                            or the first receipts of the run itself ──────────▲                       │
    Place (workers, site) ────────────────────────────────────────────────────────────────forecast ◀──┘
                                                                  Estimate, warnings ◀────────┘

ranges, rates, makespan, traffic, forecast and fit are pure, and so is what they have beside them for the stages of
de-duplication (dedup_rates, dedup_traffic, dedup); probe and worker measure; this module looks at the place.
`preprocess.estimate` keeps what was said and compares it with what happened.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lmbatch.errors import LmbatchError
from lmbatch.launch.estimate.dedup_rates import DedupRates
from lmbatch.launch.estimate.fit import Room, warnings_of
from lmbatch.launch.estimate.forecast import Basis, forecast
from lmbatch.launch.estimate.probe import LAUNCHER_STARTS, PROBE_BYTES, PROBE_SECONDS, RANGES, ProbeError, run_probe
from lmbatch.launch.estimate.rates import rates_of
from lmbatch.launch.place import Place
from lmbatch.launch.slurm_commands import SlurmCommands
from lmbatch.preprocess import Plan
from lmbatch.preprocess.estimate import Estimate
from lmbatch.store import Receipt, Store
from lmbatch.tokens import TextTokenizer

__all__ = [
    "PROBE_BYTES",
    "PROBE_SECONDS",
    "Estimate",
    "ProbeError",
    "estimate_by_probe",
    "estimate_from_receipts",
]


def estimate_by_probe(
    plan: Plan,
    tokenizer: TextTokenizer,
    place: Place,
    store: Store,
    *,
    driver_seconds: float,
    total_bytes: int = PROBE_BYTES,
    count: int = RANGES,
    seconds: float = PROBE_SECONDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Probe the input and say what the plan will cost. Writes nothing but a temporary folder. Raises ProbeError."""
    found = run_probe(plan, tokenizer, total_bytes=total_bytes, count=count, seconds=seconds, on_progress=on_progress)
    basis = Basis(
        rates=rates_of(found.receipts, found.first, plan.input_bytes),
        startup_seconds=found.startup_seconds * LAUNCHER_STARTS,
        driver_seconds=driver_seconds,
        source="probe",
        ranges=len(found.receipts),
        measured_bytes=max(1, sum(receipt.input_bytes for receipt in found.receipts)),
        store=store.uri,
        raw=plan.raw,
        array_limit=_limit_of(place),
        dedup=found.dedup,
    )
    return _with_warnings(plan, place, store, basis)


def estimate_from_receipts(
    plan: Plan,
    place: Place,
    store: Store,
    receipts: Sequence[Receipt],
    *,
    startup_seconds: float,
    dedup: DedupRates | None = None,
) -> Estimate:
    """The same from the first receipts of the run itself: for jobs so small that a probe would be felt."""
    basis = Basis(
        rates=rates_of(receipts, None, plan.input_bytes),
        startup_seconds=startup_seconds,
        driver_seconds=0.0,
        source="receipts",
        ranges=len(receipts),
        measured_bytes=max(1, sum(receipt.input_bytes for receipt in receipts)),
        store=store.uri,
        raw=plan.raw,
        array_limit=_limit_of(place),
        dedup=dedup,
    )
    return _with_warnings(plan, place, store, basis)


def _with_warnings(plan: Plan, place: Place, store: Store, basis: Basis) -> Estimate:
    estimate = forecast(plan, place, basis, made=time.time())
    warnings = tuple(warnings_of(plan, place, estimate, room_of(plan, place, store)))
    return estimate.model_copy(update={"warnings": warnings})


def room_of(plan: Plan, place: Place, store: Store) -> Room:
    """What this machine has; of a cluster's nodes nothing is known here."""
    target = store.local_path("plan.json")
    stored = _free(target.parent) if target is not None else None
    if place.executor == "slurm":
        return Room(store=stored)
    spool = Path(plan.config.spool or tempfile.gettempdir())
    return Room(_free_memory(), _free(spool), stored)


def _free(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _free_memory() -> int | None:
    """MemAvailable of proc(5): free memory, and what the kernel gives back when it is asked."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _limit_of(place: Place) -> int | None:
    if place.executor != "slurm":
        return None
    try:
        limits = SlurmCommands().limits()
    except LmbatchError:  # planned where there is no Slurm
        return None
    return max(1, min(limits.array, limits.jobs))
