"""Raw files in, documents out.

::

    config.corpus ─┐
                   ▼
    Store ──▶ list_inputs ──▶ InputFile ──▶ probe ──▶ FileProbe ──▶ split_file ──▶ Piece      (planning)
                                                          │                          │
    Store ───────────────────────────────────────────▶ read_piece ◀──────────────────┘      (a task)
                                                          │
                               Document · Rejected ◀──────┴──────▶ Seen: where it began and stopped
                                   │
                     build_cleaner ▼ split_of ──▶ train or validation

``preprocess`` calls it to plan and to read, ``tokens`` to draw a sample to train a tokenizer on. A reader never skips
in silence: whatever is no document comes out as Rejected, with file, position and reason.

json_array (boundaries, json_head, json_scanner, json_careful), lines, csv_rows, whole_files and columns read one
format each; demo fetches the demo corpus.
"""

from lmbatch.corpus.cleaning import (
    PLACEHOLDERS,
    Cleaner,
    Redactor,
    build_cleaner,
    build_redactor,
    cleaning_libraries,
)
from lmbatch.corpus.document import Document, Record, Rejected
from lmbatch.corpus.identity import split_of
from lmbatch.corpus.inputs import InputFile, list_inputs
from lmbatch.corpus.metered import bytes_behind
from lmbatch.corpus.probing import probe
from lmbatch.corpus.reading import read_piece
from lmbatch.corpus.source import Seen
from lmbatch.corpus.splitting import FileProbe, Piece, piece_bytes, split_file

__all__ = [
    "PLACEHOLDERS",
    "Cleaner",
    "Document",
    "FileProbe",
    "InputFile",
    "Piece",
    "Record",
    "Redactor",
    "Rejected",
    "Seen",
    "build_cleaner",
    "build_redactor",
    "bytes_behind",
    "cleaning_libraries",
    "list_inputs",
    "piece_bytes",
    "probe",
    "read_piece",
    "split_file",
    "split_of",
]
