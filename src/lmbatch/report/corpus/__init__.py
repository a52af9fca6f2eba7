"""What is known of a preprocessed corpus, from its plan, receipts and profiles; the shards are not read.

::

    plan.json, receipts/ ──▶ facts.corpus_report ──▶ CorpusReport ──▶ --json
    profiles/ ──▶ profiles.merge_profiles ─┘               └──▶ report.html (a page)
"""

from lmbatch.report.corpus.facts import CorpusReport, SplitTotals, TaskWork, corpus_report
from lmbatch.report.corpus.profiles import MergedProfile, SourceRow, merge_profiles, ranked_sources

__all__ = [
    "CorpusReport",
    "MergedProfile",
    "SourceRow",
    "SplitTotals",
    "TaskWork",
    "corpus_report",
    "merge_profiles",
    "ranked_sources",
]
