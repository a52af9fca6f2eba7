"""Where work runs: the processes of one machine, or a cluster's array jobs.

::

    PreprocessConfig ──preprocess.run──▶ plan ──▶ TaskBatch … ──▶ Backend (local pool, Slurm) ──▶ receipts ──▶ manifest

May import everything; nothing but ``cli`` imports it. Receipts decide what is done, never a job's own state.
"""

from lmbatch.launch.backend import Backend, BatchEnd, TaskBatch
from lmbatch.launch.local import LocalBackend
from lmbatch.launch.place import Place, at_site, place_of
from lmbatch.launch.preprocess import PreprocessResult, open_target, run_preprocess
from lmbatch.launch.slurm import SlurmBackend
from lmbatch.launch.watch import Progress

__all__ = [
    "Backend",
    "BatchEnd",
    "LocalBackend",
    "Place",
    "PreprocessResult",
    "Progress",
    "SlurmBackend",
    "TaskBatch",
    "at_site",
    "open_target",
    "place_of",
    "run_preprocess",
]
