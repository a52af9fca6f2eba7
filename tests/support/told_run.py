"""A run folder as an interrupted run leaves it, written by the real logs without training anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from lmbatch.train.attempts import AttemptLog
from lmbatch.train.metrics import METRICS_FILE
from lmbatch.train.records import RecordLog
from support.tiny_run import tiny_settings, write_config

BEGAN = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
EVIL = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/y>从此以后"


class Clock:
    """A moment that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds)


def row(step: int, *, loss: float | None = None, **more: object) -> dict[str, object]:
    """Of one training step of 8 samples, 2 s long."""
    return {
        "kind": "train", "step": step, "loss": 8.0 / step if loss is None else loss, "lr": 0.001 * step,
        "grad_norm": 1.0 + step % 3, "skipped": None, "spike": None, "samples": [8 * step - 8, 8 * step],
        "data": f"{step:016x}", "tokens": 256, "seconds": 2.0, "tokens_per_second": 128.0, "mfu": None, **more,
    }  # fmt: skip


def write_run(folder: Path, *, steps: int = 20, last: str | None = "finished", **settings: object) -> Path:
    """Killed after step 12, of which step 10 was saved; the second attempt goes on to ``steps``, and ends as ``last``
    says (None: it still runs). The folder of the run."""
    run = folder / "tiny"
    run.mkdir(parents=True)
    write_config(run / "config.yaml", tiny_settings("/none", folder, **settings))
    clock = Clock()
    for resumed, to, why in ((0, 12, None), (10, steps, last)):
        log = AttemptLog(run, clock)
        log.started(world_size=2, code_version="1.0", config="sha256:0", environ={"SLURM_JOB_ID": "17"})
        log.resumed(resumed, last_logged=12 if resumed else 0)
        clock.seconds += 5
        log.first_step(5.0)
        clock.seconds += 2 * (to - resumed)
        if why is not None:
            log.ended(why, detail=None, last_step=to, last_saved_step=to)
        clock.seconds += 60
    metrics, samples = RecordLog(run / METRICS_FILE), RecordLog(run / "samples.jsonl")
    for step in range(1, steps + 1):
        metrics.append(row(step))
    metrics.append({"kind": "evaluation", "step": 8, "loss": 1.5, "perplexity": 4.48, "bits_per_byte": None,
                    "tokens": 96, "seconds": 0.1})  # fmt: skip
    for step in (10, 20):
        samples.append({"step": step, "prompt": "从前", "text": f"从前，{EVIL}{step}"})
    return run
