"""The plan: which bytes of which files make which task.

It is a stored file, made once, and the same for any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmbatch.config import PreprocessConfig, differences, fingerprint, identity
from lmbatch.config.base import Section, operational
from lmbatch.corpus import (
    FileProbe,
    InputFile,
    build_cleaner,
    cleaning_libraries,
    list_inputs,
    piece_bytes,
    probe,
    split_file,
)
from lmbatch.corpus.duplicates import dedup_libraries
from lmbatch.errors import PlanError, TokenizerError, VocabularyError
from lmbatch.shards import dtype_for
from lmbatch.store import (
    FORMAT_VERSION,
    PLAN_KEY,
    RECEIPTS_PREFIX,
    TOKENIZER_PREFIX,
    FileEntry,
    Store,
    TokenizerEntry,
    open_store,
)
from lmbatch.tokens import TextTokenizer, load_tokenizer

log = logging.getLogger(__name__)

_PROBES_AT_ONCE = 16
_MENDING = "run the same `lmbatch preprocess` again, which knows its plan by the receipts, or use another store"


class PlannedFile(Section):
    """An input file as it was when the plan was made; a task refuses it if it has changed since."""

    path: str
    size: int
    etag: str | None = None
    modified: float | None = None
    probe: FileProbe


class PlannedPiece(Section):
    """A range of one planned file: ``file`` is its number in the plan, ``bytes`` what tasks are balanced by."""

    file: int
    start: int
    end: int
    bytes: int


class Task(Section):
    """The unit of work and of proof: some pieces of input, one receipt."""

    id: str
    pieces: tuple[PlannedPiece, ...]

    @property
    def input_bytes(self) -> int:
        """Size of its input, as tasks are balanced by it."""
        return sum(piece.bytes for piece in self.pieces)


class Plan(Section):
    """Everything a worker needs to know, and nothing about how many workers there are."""

    format_version: int = FORMAT_VERSION
    config: PreprocessConfig
    raw: str = operational()
    tokenizer: TokenizerEntry
    dtype: str
    files: tuple[PlannedFile, ...]
    tasks: tuple[Task, ...]
    # No part of the fingerprint: a finished store stays readable everywhere; a worker must have the same ones.
    libraries: dict[str, str] = operational({})
    # How many tasks compare documents; fixed by the first plan that is stored, since signatures are laid out by it.
    partitions: int | None = operational(None)
    fingerprint: str = operational("")

    def sealed(self) -> Plan:
        """The same plan with its fingerprint filled in."""
        return self.model_copy(update={"fingerprint": fingerprint(self)})

    @property
    def input_bytes(self) -> int:
        """Size of all input, as tasks are balanced by it."""
        return sum(task.input_bytes for task in self.tasks)


def make_plan(config: PreprocessConfig) -> tuple[Plan, TextTokenizer]:
    """List, probe and cut the input; the plan, and the tokenizer that it was made with.

    Reads the head of every file and nothing else. Raises InputMissingError for an empty corpus, TokenizerError for an
    unusable tokenizer, VocabularyError for a dtype that it does not fit and ConfigError for cleaning that cannot work.
    """
    raw = open_store(config.corpus.raw)
    inputs = list_inputs(raw, config.corpus)
    build_cleaner(config.cleaning)  # a missing library or list of words stops here, not in every task
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenizer.eod)
    tokenizer.check_segmenter()
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:  # each waits for the head of a file, nothing more
        probes = list(pool.map(lambda file: probe(raw, config.corpus, file), inputs))
    files = [
        PlannedFile(path=file.path, size=file.size, etag=file.etag, modified=file.modified, probe=facts)
        for file, facts in zip(inputs, probes, strict=True)
    ]
    tasks = _tasks(_pieces(inputs, probes, config), config)
    plan = Plan(
        config=config,
        raw=raw.uri,
        tokenizer=TokenizerEntry(
            fingerprint=tokenizer.fingerprint,
            size=tokenizer.size,
            largest_id=tokenizer.largest_id,
            eod_token=tokenizer.eod_token,
            eod_id=tokenizer.eod_id,
            files=tuple(_entry(name, data) for name, data in sorted(tokenizer.files().items())),
        ),
        dtype=choose_dtype(config.shards.dtype, tokenizer.largest_id),
        files=tuple(files),
        tasks=tasks,
        libraries=_libraries(config),
        partitions=_partitions(config, sum(task.input_bytes for task in tasks)),
    )
    return plan.sealed(), tokenizer


def choose_dtype(wanted: str, largest_id: int) -> str:
    """The dtype of the shards. Raises VocabularyError if the one that was asked for cannot hold the largest id."""
    fitting = dtype_for(largest_id)
    if wanted == "auto":
        return fitting
    if wanted == "uint16" and fitting != "uint16":
        raise VocabularyError(
            f"shards.dtype is uint16, but the tokenizer gives ids up to {largest_id}",
            remedy="set shards.dtype to int32 or auto",
        )
    return wanted


def _pieces(inputs: Sequence[InputFile], probes: Sequence[FileProbe], config: PreprocessConfig) -> list[PlannedPiece]:
    pieces: list[PlannedPiece] = []
    for number, (file, facts) in enumerate(zip(inputs, probes, strict=True)):
        for piece in split_file(file, facts, config.corpus, config.tasks.bytes):
            size = piece_bytes(piece, facts)
            pieces.append(PlannedPiece(file=number, start=piece.start, end=piece.end, bytes=size))
    return pieces


def _tasks(pieces: Sequence[PlannedPiece], config: PreprocessConfig) -> tuple[Task, ...]:
    # Who counts records over all files must have read those before.
    together = config.corpus.max_records is not None
    return group_tasks(pieces, sum(piece.bytes for piece in pieces) if together else config.tasks.bytes)


def group_tasks(pieces: Sequence[PlannedPiece], target_bytes: int) -> tuple[Task, ...]:
    """Pieces in order, neighbours together as long as they stay within ``target_bytes``."""
    groups: list[list[PlannedPiece]] = []
    filled = 0
    for piece in pieces:
        if not groups or filled + piece.bytes > target_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += piece.bytes
    return tuple(Task(id=f"task-{number:06d}", pieces=tuple(group)) for number, group in enumerate(groups))


def _entry(name: str, data: bytes) -> FileEntry:
    return FileEntry(key=TOKENIZER_PREFIX + name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _libraries(config: PreprocessConfig) -> dict[str, str]:
    return {**cleaning_libraries(config.cleaning), **dedup_libraries(config.dedup)}


def _partitions(config: PreprocessConfig, input_bytes: int) -> int | None:
    return None if config.dedup is None else max(1, -(-input_bytes // config.dedup.partition_bytes))


def store_plan(store: Store, plan: Plan, tokenizer: TextTokenizer) -> Plan:
    """Publish the plan, and keep the tokenizer beside it: from here on the store is all that a worker needs.

    Returns it with the number of partitions that the stored one has. Raises PlanError if the store holds another plan,
    or a damaged one that no receipt tells to be this one.
    """
    data = plan.model_dump_json(indent=1).encode() + b"\n"
    if not store.publish(PLAN_KEY, data):
        stored = _stored_or_mended(store, plan, data)
        if stored.fingerprint != plan.fingerprint:
            raise _other_plan(store, stored, plan)
        plan = plan.model_copy(update={"partitions": stored.partitions})
    for name, data in tokenizer.files().items():
        store.put(TOKENIZER_PREFIX + name, data)
    return plan


def _stored_or_mended(store: Store, plan: Plan, data: bytes) -> Plan:
    """The stored plan; where it is damaged and the receipts are of ``plan``, that one, which takes its place."""
    try:
        return load_plan(store)
    except PlanError as error:
        if plan.fingerprint not in _plans_of_receipts(store):
            raise
        log.warning("%s: written anew, as the receipts are of this very plan", error.message)
        store.put(PLAN_KEY, data)
        return plan


def _plans_of_receipts(store: Store) -> Iterator[str]:
    for info in store.list(RECEIPTS_PREFIX):
        with suppress(ValueError, TypeError, KeyError):  # damaged as well; another one will tell
            yield json.loads(store.read(info.key))["plan"]


def _other_plan(store: Store, stored: Plan, plan: Plan) -> PlanError:
    lines = differences(_comparable(stored), _comparable(plan))
    shown = "".join(f"\n    {line}" for line in lines[:8]) or " it was made by another version of lmbatch"
    more = f"\n    … and {len(lines) - 8} more" if len(lines) > 8 else ""
    return PlanError(
        f"{store.uri}: holds the plan of another job:{shown}{more}",
        remedy="give another store for the new settings, or empty this one first",
    )


def check_libraries(plan: Plan) -> None:
    """Raises PlanError if cleaning or de-duplication would stand on other versions here than in the plan.

    Two workers with different dictionaries or Unicode tables would treat the same text differently, unnoticed.
    """
    here = _libraries(plan.config)
    for name, version in plan.libraries.items():
        if here.get(name) != version:
            raise PlanError(
                f"the texts were planned with {name} {version}, {platform.node()} has {here.get(name)}",
                remedy="use the same Python and packages on every node, or plan anew into another store",
            )


def load_tokenizer_of(store: Store, plan: Plan, folder: Path) -> TextTokenizer:
    """The tokenizer that lies beside the plan, copied into a local folder.

    Raises TokenizerError if it is not the one that the plan was made with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in plan.tokenizer.files:
        store.get_file(entry.key, folder / entry.key.removeprefix(TOKENIZER_PREFIX))
    tokenizer = load_tokenizer(folder, plan.tokenizer.eod_token)
    if tokenizer.fingerprint != plan.tokenizer.fingerprint or tokenizer.eod_id != plan.tokenizer.eod_id:
        raise TokenizerError(
            f"{store.uri}/{TOKENIZER_PREFIX}: not the tokenizer that the plan was made with",
            remedy="run `lmbatch repair` on the store",
        )
    return tokenizer


def load_plan(store: Store) -> Plan:
    """The stored plan. Raises ObjectNotFoundError if there is none and PlanError if it cannot be trusted."""
    where = f"{store.uri}/{PLAN_KEY}"
    try:
        plan = Plan.model_validate_json(store.read(PLAN_KEY))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PlanError(
            f"{where}: not a plan that this version can read: {first['loc']}: {first['msg']}",
            remedy=f"use the lmbatch that wrote it; if it is damaged, {_MENDING}",
        ) from None
    if fingerprint(plan) != plan.fingerprint:
        raise PlanError(
            f"{where}: its content does not give its fingerprint",
            remedy=f"the file was changed or damaged: {_MENDING}",
        )
    return plan


def _comparable(plan: Plan) -> dict[str, Any]:
    """What two plans differ in, in words that a user knows."""
    files = {file.path: f"{file.size} bytes, {file.etag or file.modified}" for file in plan.files}
    return {
        "config": identity(plan.config),
        "input": files,
        "tokenizer": json.loads(plan.tokenizer.model_dump_json()),
        "format_version": plan.format_version,
    }


def open_raw(plan: Plan, patience: float = 0.0) -> Store:
    """The store that holds the input files; ``patience`` as in `open_store`."""
    return open_store(plan.raw, patience=patience)
