"""The model card of an export: what the model was made of, so that it can be told from every other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel

from lmbatch import __version__
from lmbatch.checkpoint import CheckpointFacts
from lmbatch.config import TrainConfig
from lmbatch.model import parameter_counts
from lmbatch.store import Manifest

_LOAD = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH/TO/THIS/FOLDER")
tokenizer = AutoTokenizer.from_pretrained("PATH/TO/THIS/FOLDER")
ids = tokenizer("…", return_tensors="pt")["input_ids"]
print(tokenizer.decode(model.generate(ids, max_new_tokens=50)[0]))
```

or `lmbatch generate PATH/TO/THIS/FOLDER --prompt "…"`.
"""

_LOAD_MASKED = """\
```python
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

model = AutoModelForMaskedLM.from_pretrained("PATH/TO/THIS/FOLDER")
tokenizer = AutoTokenizer.from_pretrained("PATH/TO/THIS/FOLDER")
print(pipeline("fill-mask", model=model, tokenizer=tokenizer)(f"… {tokenizer.mask_token} …"))
```

or `lmbatch fill-mask PATH/TO/THIS/FOLDER -p "… MASK …"` with the tokenizer's mask token for MASK.
"""


def model_card(
    config: TrainConfig, manifest: Manifest, facts: CheckpointFacts, model: PreTrainedModel, metrics: Path
) -> str:
    """Markdown with YAML front matter. Nothing in it names a place on this machine."""
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if config.objective is None else "fill-mask",
        "tags": ["lmbatch", config.model.type],
        "model_name": config.run.name,
    }
    kind, load = ("causal", _LOAD) if config.objective is None else ("masked", _LOAD_MASKED)
    rows = "\n".join(f"| {name} | {value} |" for name, value in _table(config, manifest, facts, model, metrics))
    return (
        f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n\n# {config.run.name}\n\n"
        f"A {kind} language model ({config.model.type}), {_origin(config)} on the corpus `{manifest.corpus}` with "
        f"lmbatch.\n\n| | |\n|---|---|\n{rows}\n\n## Loading\n\n{load}"
    )


def _origin(config: TrainConfig) -> str:
    base = config.model.base
    if base is None:
        return "trained from scratch"
    return f"continued from the weights of {Path(base).name} (`{config.model.base_digest}`)"


def _table(
    config: TrainConfig, manifest: Manifest, facts: CheckpointFacts, model: PreTrainedModel, metrics: Path
) -> list[tuple[str, str]]:
    counts = parameter_counts(model)
    return [
        ("Parameters", f"{counts.total:,} ({counts.non_embedding:,} without embeddings)"),
        ("Context", f"{config.data.sequence_length:,} tokens"),
        ("Corpus", f"{manifest.corpus}: {manifest.tokens('train'):,} training tokens"),
        ("Manifest digest", f"`{manifest.digest}`"),
        ("Tokenizer", f"{manifest.tokenizer.size:,} entries, fingerprint `{manifest.tokenizer.fingerprint}`"),
        ("Document end", f"`{manifest.tokenizer.eod_token}` (id {manifest.tokenizer.eod_id})"),
        *_objective(config),
        ("Steps", f"{facts.step:,}"),
        ("Tokens seen", f"{facts.tokens_consumed:,}"),
        ("Training loss", _loss(metrics, "train", facts.step)),
        ("Validation loss", _loss(metrics, "evaluation", facts.step)),
        ("Precision", facts.precision),
        ("Training config", f"`{facts.config}`"),
        ("lmbatch", f"trained with {facts.code_version}, exported with {__version__}"),
    ]


def _objective(config: TrainConfig) -> list[tuple[str, str]]:
    masked = config.objective
    if masked is None:
        return []
    rest = 1 - masked.hidden_share - masked.random_share
    shares = f"{masked.hidden_share:.0%} hidden, {masked.random_share:.0%} random, {rest:.0%} as they are"
    return [("Predicted tokens", f"{masked.mask_share:.0%} ({shares})")]


def _loss(metrics: Path, kind: str, step: int) -> str:
    """The last loss of a kind that was written at or before ``step``, in nats per token."""
    rows = [row for row in _rows(metrics) if row.get("kind", "train") == kind and _is_loss(row, step)]
    if not rows:
        return "not measured"
    last = max(rows, key=lambda row: int(row["step"]))
    return f"{last['loss']:.4f} nats per token at step {last['step']:,}"


def _is_loss(row: dict[str, Any], step: int) -> bool:
    return isinstance(row.get("step"), int) and row["step"] <= step and isinstance(row.get("loss"), (int, float))


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """Whole rows only: a killed run may have torn its last line, and a card is no reason to fail."""
    if not metrics.exists():
        return []
    rows = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
