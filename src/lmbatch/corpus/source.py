"""What every reader is given."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.config import CorpusConfig
from lmbatch.corpus.fields import RecordMaker
from lmbatch.corpus.splitting import FileProbe, Piece
from lmbatch.store import Store


@dataclass(slots=True)
class Seen:
    """What a reader really read of a piece; complete when its records are.

    ``first_position`` is where it began and ``end_position`` where it stopped: in bytes, of the decompressed stream
    if there is one; in rows for Parquet and ``datasets`` folders. The end of one piece is the beginning of the next.
    With ``first_records`` or a limit the end is where the last record was taken; ``more`` tells whether another one
    stands behind the limit.

    ``position`` (of the latest record) and ``stored_bytes`` (read of the stored file, where it is counted) are for
    those who want to know how far the reader is.
    """

    first_position: int = 0
    end_position: int = 0
    records: int = 0
    position: int = 0
    stored_bytes: int | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One piece of one file, and where to note what was seen of it."""

    store: Store
    config: CorpusConfig
    piece: Piece
    probe: FileProbe
    seen: Seen

    @property
    def make(self) -> RecordMaker:
        """The maker of this file's records."""
        return RecordMaker(self.config, self.piece.path)

    @property
    def stop(self) -> int | None:
        """Records that begin at or after this position belong to the next piece; None: there is no next piece."""
        return self.piece.end if self.probe.splittable and self.piece.end < self.probe.size else None
