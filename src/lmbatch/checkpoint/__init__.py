"""Checkpoints: saved so that no kill can tear one, found again by their bytes and not by a pointer.

::

    training step ──save──▶ checkpoints/step-00000040/<attempt>/…   payload: safetensors and JSON, hashed and fsynced
                            checkpoints/step-00000040/receipt.json  published once, last: it names every byte above
                                   │                 │
                                   │                 └──background──▶ mirror: another store, payload, then records
                                   │                                  (curve, ledger; records.py), then receipt
    rule.py: newest, every N steps, best, pinned ──▶ what stays, here and in the mirror
                                   ▼
    resume ◀──newest_valid── list, verify sha256, walk back over torn and damaged ones, fall back to the mirror
    export ◀──at(step)──────┘

``train`` saves and resumes, ``infer`` exports, ``cli`` lists, verifies, pins and prunes. Nothing here imports torch but
``state``, whose functions are looked up only when they are asked for: listing checkpoints works on a login node.
"""

from typing import TYPE_CHECKING, Any

from lmbatch.checkpoint.checkpoints import Checkpoint, Checkpoints, CheckpointSummary, SavedCheckpoint
from lmbatch.checkpoint.host_memory import snapshot_bytes
from lmbatch.checkpoint.lock import RunLock, is_locked, read_holder
from lmbatch.checkpoint.receipt import CheckpointFacts, CheckpointReceipt, Refusal

if TYPE_CHECKING:
    from lmbatch.checkpoint.state import load_model_weights, load_training_state, save_training_state

_NEEDS_TORCH = ("load_model_weights", "load_training_state", "save_training_state")


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmbatch.checkpoint import state

    return getattr(state, name)


__all__ = [
    "Checkpoint",
    "CheckpointFacts",
    "CheckpointReceipt",
    "CheckpointSummary",
    "Checkpoints",
    "Refusal",
    "RunLock",
    "SavedCheckpoint",
    "is_locked",
    "load_model_weights",
    "load_training_state",
    "read_holder",
    "save_training_state",
    "snapshot_bytes",
]
