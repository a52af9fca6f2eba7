"""Curves and sample texts for services that draw them.

::

    Recorder ──rows──▶ Curves ──▶ Courier (a thread) ──▶ Tracker: tensorboard · swanlab · wandb
                         │              │
                         │              └─ a tracker that fails is given up with one warning
                         └─ tracking/id (the run's name with the services), tracking/sent.json (what they have)

metrics.jsonl and samples.jsonl are the run's own record; trackers get copies of it. Nothing here may stop or slow
training: opening a service, its network and its disk are the courier's affair, and the end of an attempt waits
``tracking.close_seconds`` for all of them together. Called by ``train.recorder``, on the main process.
"""

from lmbatch.train.tracking.curves import Curves

__all__ = ["Curves"]
