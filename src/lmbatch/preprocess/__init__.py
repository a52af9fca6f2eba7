"""Raw files to token shards in a store, with a receipt for every task.

::

    config ─make_plan─▶ Plan ──run_task (anywhere, any number at once)──▶ shards + receipt
                          │      (with de-duplication: after two more stages)   │
                          └──────────── build_manifest (receipts alone) ◀───────┘
                                              │
                        verify_store · repair_store (believe nothing but the bytes)

``launch`` decides where the tasks run; nothing here knows how many workers there are.
"""

from lmbatch.preprocess.card import CARD_KEY, data_card, write_card
from lmbatch.preprocess.facts import Tally, TaskFacts, add_counts, list_finished, read_facts
from lmbatch.preprocess.heartbeat import Heartbeat, StoredHeartbeat, read_heartbeats, remove_heartbeats
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.merge import build_manifest, merge, read_receipts
from lmbatch.preprocess.observe import Observer, Pace, TaskAtWork, slowest, sort_out
from lmbatch.preprocess.outline import PlanOutline, outline_of, read_outline
from lmbatch.preprocess.plan import (
    Plan,
    PlannedFile,
    PlannedPiece,
    Task,
    load_plan,
    load_tokenizer_of,
    make_plan,
    open_raw,
    store_plan,
)
from lmbatch.preprocess.pulse import Pulse
from lmbatch.preprocess.repair import repair_store
from lmbatch.preprocess.stages import Stage, Unit, stages_of
from lmbatch.preprocess.task import receipt_key, run_task
from lmbatch.preprocess.verify import StoreReport, verify_store
from lmbatch.preprocess.worker import Worker

__all__ = [
    "CARD_KEY",
    "Heartbeat",
    "LiveTask",
    "Observer",
    "Pace",
    "Plan",
    "PlanOutline",
    "PlannedFile",
    "PlannedPiece",
    "Pulse",
    "Stage",
    "StoreReport",
    "StoredHeartbeat",
    "Tally",
    "Task",
    "TaskAtWork",
    "TaskFacts",
    "Unit",
    "Worker",
    "add_counts",
    "build_manifest",
    "data_card",
    "list_finished",
    "load_plan",
    "load_tokenizer_of",
    "make_plan",
    "merge",
    "open_raw",
    "outline_of",
    "read_facts",
    "read_heartbeats",
    "read_outline",
    "read_receipts",
    "receipt_key",
    "remove_heartbeats",
    "repair_store",
    "run_task",
    "slowest",
    "sort_out",
    "stages_of",
    "store_plan",
    "verify_store",
    "write_card",
]
