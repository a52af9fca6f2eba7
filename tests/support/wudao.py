"""A small corpus in WuDao's shape, with a tokenizer and a config: what preprocessing tests start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmbatch.config import PreprocessConfig

EOD = "<|endoftext|>"
SENTENCES = (
    "为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，提高创新能力，制定本法。",
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。",
    "国务院专利行政部门负责管理全国的专利工作；统一受理和审查专利申请，依法授予专利权。",
    "He said “hello”, 然后转身走了。\n第二段：GPT-2 与 BERT 😀",
)


def text_of(number: int) -> str:
    """The text of document ``number``: no two are alike."""
    return f"第{number}条 " + "".join(SENTENCES[(number + i) % len(SENTENCES)] for i in range(1 + number % 5))


def record_of(number: int) -> dict[str, Any]:
    """One WuDao record."""
    return {"id": number, "uniqueKey": f"{number:032x}", "titleUkey": f"{number * 7:032x}", "dataType": "法律",
            "title": f"标题{number}", "content": text_of(number)}  # fmt: skip


def write_files(folder: Path, *, files: int = 3, documents: int = 40) -> list[str]:
    """Write the corpus (every second file pretty-printed); the texts in order."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for file in range(files):
        numbers = range(file * documents, (file + 1) * documents)
        records = [record_of(number) for number in numbers]
        texts += [text_of(number) for number in numbers]
        layout: dict[str, Any] = {"indent": 4} if file % 2 else {"separators": (",", ":")}
        path = folder / f"part-20212786{file:02d}.json"
        path.write_text(json.dumps(records, ensure_ascii=False, **layout), encoding="utf-8")
    return texts


def write_tokenizer(folder: Path, *, vocab_size: int = 500) -> Path:
    """A small byte-level BPE folder."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOD], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOD}), encoding="utf-8")
    return folder


def config_for(base: Path, **changes: Any) -> PreprocessConfig:
    """The config of the corpus under ``base``; ``changes`` replaces whole sections or keys at the top."""
    settings: dict[str, Any] = {
        "corpus": {"name": "small", "format": "json_array", "raw": str(base / "raw"), "include": ["*.json"],
                   "text_fields": ["content"], "id_field": "uniqueKey"},
        "tokenizer": {"path": str(base / "tok")},
        "split": {"validation_fraction": 0.1},
        "tasks": {"bytes": 6000},
        "store": str(base / "store"),
        "spool": str(base / "spool"),
        "jobs": str(base / "jobs"),
    }  # fmt: skip
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return PreprocessConfig.model_validate(settings)
