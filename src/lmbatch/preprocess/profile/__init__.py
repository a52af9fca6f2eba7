"""What a task notes about its documents for the corpus report: lengths, sources, and a few samples.

::

    pipeline ── before · rejected · written ──▶ Profiler ──▶ TaskProfile ──▶ profiles/TASK-SHA12.json + receipt.profile
                                                  │                                        │
            histogram (lengths) · sources (files, values) · samples (smallest draws)       └──▶ report, verify

Everything is bounded (bins, names, samples) and a function of the task's records alone: the same bytes whoever does
the task. It is no part of the manifest, so its digest does not depend on it.
"""

from lmbatch.preprocess.profile.collect import Profiler
from lmbatch.preprocess.profile.histogram import Histogram, count_into, lower_end, quantile, upper_end
from lmbatch.preprocess.profile.samples import Reservoir
from lmbatch.preprocess.profile.schema import Counts, Sample, SampleKind, TaskProfile, parse_profile
from lmbatch.preprocess.profile.sources import folder_depth, name_at

__all__ = [
    "Counts",
    "Histogram",
    "Profiler",
    "Reservoir",
    "Sample",
    "SampleKind",
    "TaskProfile",
    "count_into",
    "folder_depth",
    "lower_end",
    "name_at",
    "parse_profile",
    "quantile",
    "upper_end",
]
