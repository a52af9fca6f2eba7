"""A month on a large cluster in seconds: the project's own policies, on machines that exist only as numbers.

::

    config + site + figures (how long a task, a step, a save takes; how often things break)
        │
        ├── preprocess   the real driver (`launch.StageRun`), the real Slurm backend, receipts, retries, heartbeats
        │                    on  a simulated Slurm · simulated workers · a store in memory
        └── train        the real checkpoints on a disk, the real ledger and progress cap, the real batch script, the
                         real pre-flight verdict     on  simulated steps, nodes and notices

Nothing here decides when to save, what to submit again, where to go on or when to give up: what does so in a real run
does it here. Only time, machines and their failures are made up, from a seed.
"""

from lmbatch.simulate.preprocess import PreprocessCase, PreprocessOutcome, imagined_plan, simulate_preprocess
from lmbatch.simulate.training import TrainCase, TrainOutcome, simulate_training

__all__ = [
    "PreprocessCase",
    "PreprocessOutcome",
    "TrainCase",
    "TrainOutcome",
    "imagined_plan",
    "simulate_preprocess",
    "simulate_training",
]
