"""A task's records, read and cleaned: the same ones in the same order for every stage that asks."""

from __future__ import annotations

from collections.abc import Iterator

from lmbatch.corpus import Cleaner, Document, Piece, Record, Seen, read_piece
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.plan import Plan, PlannedFile, Task
from lmbatch.store import PieceReceipt, Store


def read_cleaned(
    raw: Store, plan: Plan, task: Task, clean: Cleaner, seen: list[PieceReceipt], live: LiveTask
) -> Iterator[tuple[int, Record, Record]]:
    """The number of its piece, the record as it was read, and what cleaning made of it, for every record.

    ``seen`` gets each piece when it has been read, ``live`` before. With ``max_records`` one task is the whole corpus,
    and files behind the limit are not opened.
    """
    left = plan.config.corpus.max_records
    for number, planned in enumerate(task.pieces):
        file = plan.files[planned.file]
        piece = Piece(path=file.path, start=planned.start, end=planned.end)
        facts = Seen()
        live.reads(piece, file.probe, facts)
        records = iter(()) if left == 0 else read_piece(raw, plan.config.corpus, piece, file.probe, facts, most=left)
        for record in records:
            yield number, record, clean(record) if isinstance(record, Document) else record
        seen.append(
            PieceReceipt(
                path=file.path,
                start=planned.start,
                end=planned.end,
                first_position=facts.first_position,
                end_position=facts.end_position,
                records=facts.records,
                unread="all" if left == 0 else "rest" if facts.more else None,
            )
        )
        left = None if left is None else left - facts.records
    live.has_read_all()


def files_of(plan: Plan, task: Task) -> Iterator[PlannedFile]:
    """The files that a task reads from, each once."""
    for number in sorted({piece.file for piece in task.pieces}):
        yield plan.files[number]
