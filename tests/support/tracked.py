"""What SwanLab and Weights & Biases have written, read back from their files.

Both are logs in LevelDB's format (https://github.com/google/leveldb/blob/main/doc/log_format.md) of protobuf records:
blocks of 32 KiB, in them pieces of a checksum (4 bytes), a length (2), a kind (1: whole, 2: first, 3: middle, 4: last)
and so many bytes, after a file header of 7 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768


def log_records(path: Path) -> Iterator[bytes]:
    """The records of a log, whole ones only."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def wandb_files(folder: Path) -> list[Path]:
    """One of each attempt, oldest first."""
    return sorted(folder.glob("*run-*/run-*.wandb"))


def wandb_rows(path: Path) -> list[dict[str, Any]]:
    """What was logged, as ``{"step": 3, "train/loss": …}``."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in log_records(path):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    return rows


def swanlab_files(folder: Path) -> list[Path]:
    """One of each attempt, oldest first."""
    return sorted(folder.glob("run-*/run-*.swanlab"))


def swanlab_scalars(path: Path) -> list[tuple[str, int, float]]:
    """What was logged, as ``("train/loss", 3, 2.1)``."""
    from swanlab.proto.swanlab.record.v1 import record_pb2

    records = [record_pb2.Record.FromString(data) for data in log_records(path)]
    found = [record.scalar for record in records if record.HasField("scalar")]
    return [(scalar.key, scalar.step, scalar.value.number) for scalar in found]
