"""The tasks of EleutherAI's `lm-eval` harness, run with a model of ours.

``lm_eval --model hf --model_args pretrained=FOLDER`` runs on an export whose tokenizer transformers can load whole.
This adapter serves those too whose text must be segmented first (word vocabularies): it hands the harness's own model
class the tokenizer that generates everywhere else here, and the context that the model was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmbatch.errors import UsageError
from lmbatch.infer.generate import TextGenerator


def run_tasks(
    generator: TextGenerator, tasks: Sequence[str], *, include: Path | None, limit: int | None, batch: int
) -> dict[str, Any]:
    """The results of the harness by task: metric → value. ``include`` is a folder of further task files (YAML).

    Raises UsageError if the harness is not installed or does not know a task.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(f"--lm-eval needs the harness: {error}", remedy="pip install lm-eval") from error
    path = str(include) if include else None
    manager = TaskManager(include_path=path, include_defaults=False)
    if set(tasks) - set(manager.all_tasks):  # only then, for reading the harness's own thousands takes seconds
        manager = TaskManager(include_path=path)
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise UsageError(
            f"lm-eval knows no task {', '.join(unknown)}",
            remedy="`lm_eval ls tasks` lists them; --include names a folder with your own",
        )
    model = HFLM(
        pretrained=generator.model, tokenizer=generator.tokenizer, max_length=generator.context, batch_size=batch,
        device=str(generator.model.device), prefix_token_id=generator.eod_id,
    )  # fmt: skip
    found = simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False, verbosity="ERROR"
    )
    assert found is not None
    return {name: dict(values) for name, values in found["results"].items()}
