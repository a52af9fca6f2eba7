"""What a run's folder tells, gathered for its page: curves small enough to draw, attempts on one clock, samples.

::

    RUN/{metrics,attempts,samples}.jsonl, config.yaml, model.json, manifest.json, checkpoints/ ──run_report──▶ RunReport
"""

from lmbatch.report.run.curve import Bucket, Curve, curve_of
from lmbatch.report.run.gather import RunReport, SaveFigures, run_report
from lmbatch.report.run.timeline import Span, timeline

__all__ = ["Bucket", "Curve", "RunReport", "SaveFigures", "Span", "curve_of", "run_report", "timeline"]
