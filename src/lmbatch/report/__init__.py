"""What is known of runs and stores, gathered for people and for ``--json``. Reads stored files only; imports no torch.

::

    runs/NAME/{attempts,metrics}.jsonl, checkpoints/ ──▶ run_status · compare_runs ──▶ cli
    the same, samples.jsonl, config.yaml             ──▶ run ──▶ html              ──▶ cli
    plan.json, receipts/, heartbeats/, manifest.json ──▶ store_status              ──▶ cli
    the same and profiles/                           ──▶ corpus ──▶ html           ──▶ cli
"""

from lmbatch.report.compare import Comparison, compare_runs
from lmbatch.report.corpus import CorpusReport, corpus_report
from lmbatch.report.html import corpus_page, run_page, runs_page
from lmbatch.report.run import RunReport, run_report
from lmbatch.report.status import RunStatus, is_run, run_status
from lmbatch.report.store_status import FinishedTask, RunningTask, StageStatus, StoreStatus, StoreWatcher, store_status

__all__ = [
    "Comparison",
    "CorpusReport",
    "FinishedTask",
    "RunReport",
    "RunStatus",
    "RunningTask",
    "StageStatus",
    "StoreStatus",
    "StoreWatcher",
    "compare_runs",
    "corpus_page",
    "corpus_report",
    "is_run",
    "run_page",
    "run_report",
    "run_status",
    "runs_page",
    "store_status",
]
