"""A batch, and what became of it, as two small JSON files: how the two sides of a container talk.

::

    element (outside)                                          `lmbatch task` (in the image)
    write_batch ──▶ FOLDER/JOB_batch.json ──▶ read_batch ──▶ do the tasks
    read_answer ◀── FOLDER/JOB_answer.json ◀── write_answer

The answer is written whole or not at all. There is none if the process was killed, and then its end says why. No
pickle crosses: an image need not have submitit, nor the same Python.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmbatch.errors import LmbatchError, TaskError, UsageError
from lmbatch.launch.backend import TaskBatch, TaskFailure


def batch_of(value: Mapping[str, Any]) -> TaskBatch:
    """A batch from what `dataclasses.asdict` made of it. Raises KeyError and TypeError for anything else."""
    return TaskBatch(**{**value, "tasks": tuple(value["tasks"])})


def write_batch(path: Path, batch: TaskBatch) -> None:
    """Write what is to be done; it names places and tasks, and holds no credentials."""
    _write(path, asdict(batch))


def read_batch(path: Path) -> TaskBatch:
    """What is to be done. Raises UsageError for a file that is not such a batch."""
    try:
        return batch_of(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(
            f"{path}: the batch cannot be read: {error.strerror}",
            remedy="in a container its folder must be mounted under the same path",
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path}: not a batch of tasks of this version ({error})",
            remedy="the lmbatch that wrote it and the one that reads it must be of one version",
        ) from None


def write_answer(path: Path, failures: Mapping[str, TaskFailure]) -> None:
    """Say which tasks failed, and why; all others are done."""
    _write(path, {"failures": {task: asdict(failure) for task, failure in failures.items()}})


def write_error(path: Path, error: Exception) -> None:
    """Say why no task could be done."""
    told = error.message if isinstance(error, LmbatchError) else str(error)
    _write(path, {"error": told, "remedy": getattr(error, "remedy", None)})


def read_answer(path: Path) -> dict[str, TaskFailure] | None:
    """The tasks that failed; None if there is no answer. Raises TaskError with the reason if none could be done."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if "error" in value:
            raise TaskError(str(value["error"]), remedy=value.get("remedy"))
        return {task: TaskFailure(**failure) for task, failure in value["failures"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TaskError(f"{path}: what the container answered cannot be read ({error})") from None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
