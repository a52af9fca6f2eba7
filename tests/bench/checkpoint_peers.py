"""transformers' Trainer in bench_checkpoint.py: its saves, and its first step after a resume."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from typing import Any

from datasets import load_from_disk
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class FirstStep(TrainerCallback):
    """Ends a training after its first step, and says how long that took."""

    def __init__(self) -> None:
        self.began, self.seconds = time.perf_counter(), 0.0

    def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> Any:
        self.seconds = time.perf_counter() - self.began
        control.should_training_stop = True
        return control


def stalls(options: argparse.Namespace) -> list[float]:
    """Seconds of each save but the last."""
    found, original = [], Trainer._save_checkpoint

    def save(trainer: Any, *arguments: Any) -> None:
        os.sync()
        begun = time.perf_counter()
        original(trainer, *arguments)
        found.append(time.perf_counter() - begun)

    Trainer._save_checkpoint = save
    rows = _rows(options).select(range(64))
    _trainer(options, rows, per_device_train_batch_size=1, save_steps=1, save_total_limit=2).train()
    return found[:-1]


def resumes(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds from the call of ``train`` to the end of the first step, at each position: a step, by its number.

    Over rows on the disk, of which the numbers are skipped, and over a stream of them, of which all are read. What
    would have been saved there is the checkpoint of step 1 with another position.
    """
    rows = _rows(options)
    ways = {"`Trainer`, rows on disk": rows, "`Trainer`, a stream of rows": rows.to_iterable_dataset()}
    return {
        name: [_first_step(options, data, step) for step in (0, *options.positions)][1:] for name, data in ways.items()
    }


def _first_step(options: argparse.Namespace, data: Any, step: int) -> float:
    watch, start = FirstStep(), options.folder / f"checkpoint-{step}"
    if step:
        shutil.copytree(options.folder / "checkpoint-1", start, dirs_exist_ok=True)
        state = json.loads((start / "trainer_state.json").read_text())
        (start / "trainer_state.json").write_text(json.dumps(state | {"global_step": step}))
    trainer = _trainer(options, data, per_device_train_batch_size=8, save_steps=1)
    trainer.add_callback(watch)
    watch.began = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(start) if step else None)
    return watch.seconds


def _rows(options: argparse.Namespace) -> Any:
    rows = load_from_disk(options.data)
    return rows.add_column("labels", rows.data.column("input_ids"))


def _trainer(options: argparse.Namespace, data: Any, **arguments: Any) -> Trainer:
    """The same model as ours, saved as often."""
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **options.sizes))
    settings = TrainingArguments(
        output_dir=str(options.folder), optim="adamw_torch", max_steps=options.steps, use_cpu=True, report_to=[],
        disable_tqdm=True, logging_strategy="no", **arguments,
    )  # fmt: skip
    return Trainer(model=model, args=settings, train_dataset=data)
