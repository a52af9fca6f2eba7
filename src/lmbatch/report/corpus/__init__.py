"""What is known of a preprocessed corpus, from its plan, receipts and profiles; the shards are not read.

::

    plan.json, receipts/ ──▶ facts.corpus_report ──▶ CorpusReport ──▶ --json
    profiles/ ──▶ profiles.merge_profiles ─┤
    receipts/compare-… ──▶ duplicates     ─┘               └──▶ report.html (a page)
"""

from lmbatch.report.corpus.duplicates import DuplicateClusters, duplicate_clusters, merge_clusters
from lmbatch.report.corpus.facts import CorpusReport, SplitTotals, TaskWork, corpus_report
from lmbatch.report.corpus.profiles import MergedProfile, SourceRow, merge_profiles, ranked_sources

__all__ = [
    "CorpusReport",
    "DuplicateClusters",
    "MergedProfile",
    "SourceRow",
    "SplitTotals",
    "TaskWork",
    "corpus_report",
    "duplicate_clusters",
    "merge_clusters",
    "merge_profiles",
    "ranked_sources",
]
