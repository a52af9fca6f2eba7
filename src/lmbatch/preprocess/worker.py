"""What does units of a plan in one process: whatever several of them need is loaded once, and only if it is needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from lmbatch.preprocess.dedup import (
    ComparePartition,
    DropLists,
    SignedTasks,
    SignTask,
    run_compare,
    run_sign,
)
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.plan import Plan, Task, load_tokenizer_of
from lmbatch.preprocess.stages import stages_of
from lmbatch.preprocess.task import run_task
from lmbatch.store import Store
from lmbatch.tokens import Encoder


class Worker:
    """Does units of any stage, by id; ``live`` is told how far it is, ``spool`` is a local folder of its own."""

    def __init__(
        self, store: Store, raw: Store, plan: Plan, spool: Path, engine: str | None = None, live: LiveTask | None = None
    ) -> None:
        self._store, self._raw, self._plan, self._spool = store, raw, plan, spool
        self._engine = engine or plan.config.tokenizer.engine
        self._live = live or LiveTask()
        self._units = {unit.id: unit for stage in stages_of(plan) for unit in stage.units}

    def run(self, unit_id: str) -> None:
        """Do the unit, unless its receipt is there. Raises what its stage raises, and KeyError for an unknown id."""
        unit = self._units[unit_id]
        if isinstance(unit, SignTask):
            run_sign(self._store, self._raw, self._plan, unit, self._spool, self._live)
        elif isinstance(unit, ComparePartition):
            run_compare(self._store, self._plan, unit, self._signed, self._spool, self._live)
        elif isinstance(unit, Task):
            lists = self._lists if self._plan.partitions is not None else None
            run_task(self._store, self._raw, self._plan, unit, self._encoder, self._spool, self._live, lists)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(load_tokenizer_of(self._store, self._plan, self._spool / "tokenizer"), self._engine)

    @cached_property
    def _signed(self) -> SignedTasks:
        return SignedTasks(self._store, self._plan)

    @cached_property
    def _lists(self) -> DropLists:
        return DropLists(self._store, self._plan)
