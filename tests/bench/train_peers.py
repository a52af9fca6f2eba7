"""One contestant of bench_train.py, in a process of its own: `python train_peers.py NAME '{"job": …}'`.

Each takes the same batches from a file that lmbatch's loader made (lmbatch itself reads the shards), the same freshly
initialised model and the same AdamW with the same groups, and prints one line of JSON: seconds of wall clock and of CPU
for each step, seconds until the first one was done, and the losses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

BEGUN = time.time()
PORT = "29517"


class Job(NamedTuple):
    """``settings`` is a training config as plain values; ``batches`` is a file of int64 (steps, rows, length + 1);
    ``started`` is when the process was asked for, by the clock of the machine."""

    settings: dict[str, Any]
    batches: str
    vocabulary: int
    started: float


class Clock:
    """Notes the end of each step."""

    def __init__(self, job: Job) -> None:
        self._started, self._ends = job.started, [(time.time(), time.process_time())]

    def step(self) -> None:
        self._ends.append((time.time(), time.process_time()))

    def report(self, losses: list[float]) -> None:
        wall = [now[0] - before[0] for before, now in zip(self._ends, self._ends[1:], strict=False)]
        cpu = [now[1] - before[1] for before, now in zip(self._ends, self._ends[1:], strict=False)]
        print(json.dumps({"wall": wall, "cpu": cpu, "start": self._ends[1][0] - self._started, "losses": losses}))


def parts(job: Job) -> tuple[Any, Any, Any]:
    """Config, model and optimizer as lmbatch makes them."""
    from lmbatch.config import TrainConfig
    from lmbatch.config.load import build
    from lmbatch.model import build_model
    from lmbatch.train.optimizer import build_optimizer

    config = build(TrainConfig, job.settings, "bench")
    length = config.data.sequence_length
    model = build_model(config.model, vocab_size=job.vocabulary, sequence_length=length, eod_id=0, seed=config.seed)
    return config, model, build_optimizer(model, config.optimizer)


def bare(job: Job) -> None:
    """What one would write by hand: forward, loss, backward, clip, step; the loss is read in each step."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    config, model, optimizer = parts(job)
    clock, losses = Clock(job), []
    model.train()
    for rows in np.load(job.batches, mmap_mode="r"):
        optimizer.zero_grad()
        loss_of_step = 0.0
        for micro in torch.from_numpy(np.array(rows)).split(config.batch.micro):
            logits = model(input_ids=micro[:, :-1], use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), micro[:, 1:].flatten(), reduction="sum")
            loss = loss / (config.batch.size * config.data.sequence_length)
            loss.backward()
            loss_of_step += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        losses.append(loss_of_step)
        clock.step()
    clock.report(losses)


def lmbatch(job: Job) -> None:
    """A whole run, with its rows; a checkpoint comes after the last step that is measured."""
    from lmbatch.config import TrainConfig
    from lmbatch.config.load import build
    from lmbatch.train import train
    from lmbatch.train.metrics import read_metrics, training_rows
    from lmbatch.train.recorder import Recorder

    clock, original = Clock(job), Recorder.train

    def recorded(self: Recorder, row: dict[str, Any]) -> None:
        original(self, row)
        clock.step()

    Recorder.train = recorded  # type: ignore[method-assign]
    done = train(build(TrainConfig, job.settings, "bench"))
    clock.report([row["loss"] for row in training_rows(read_metrics(done.run_dir))])


def trainer(job: Job, deepspeed: dict[str, Any] | None = None) -> None:
    """transformers' Trainer with its own defaults but for what makes it the same run."""
    import numpy as np
    import torch
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments

    config, model, optimizer = parts(job)
    model.loss_type = "ForCausalLM"  # or its loss is a little too small
    rows = np.load(job.batches, mmap_mode="r").reshape(-1, config.data.sequence_length + 1)
    clock = Clock(job)

    class Rows(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = torch.from_numpy(np.array(rows[index]))
            return {"input_ids": row[:-1], "labels": row[:-1], "shift_labels": row[1:]}

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(rows)

    arguments = TrainingArguments(
        output_dir=f"{job.settings['run']['dir']}/trainer", max_steps=config.steps,
        per_device_train_batch_size=config.batch.micro,
        gradient_accumulation_steps=config.batch.size // config.batch.micro,
        max_grad_norm=config.optimizer.clip_norm, lr_scheduler_type="constant", learning_rate=config.optimizer.lr,
        logging_steps=1, logging_strategy="steps", save_strategy="no", report_to=[], use_cpu=deepspeed is None,
        disable_tqdm=True, remove_unused_columns=False, deepspeed=deepspeed, bf16=False,
    )  # fmt: skip
    made = InOrder(model=model, args=arguments, train_dataset=Rows(), callbacks=[Ends()], optimizers=(optimizer, None))
    made.train()
    clock.report([row["loss"] for row in made.state.log_history if "loss" in row])


def trainer_zero2(job: Job) -> None:
    """Trainer with DeepSpeed's ZeRO 2 around the same AdamW."""
    from lmbatch.train.deepspeed_launch import _load_without_compiling, prepare_environment

    os.environ["MASTER_PORT"] = PORT
    prepare_environment(os.environ, world=1, on_gpu=False)
    _load_without_compiling()
    import deepspeed

    deepspeed.init_distributed("gloo")
    size, micro = job.settings["batch"]["size"], job.settings["batch"]["micro"]
    trainer(job, {
        "train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": size // micro,
        "gradient_clipping": job.settings["optimizer"]["clip_norm"], "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "steps_per_print": 10**9,
    })  # fmt: skip


WAYS = {"bare": bare, "lmbatch": lmbatch, "trainer": trainer, "trainer_zero2": trainer_zero2}


def main() -> None:
    """Runs the contestant; what libraries print goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(out, "w")
    import torch

    torch.set_num_threads(1)
    job = Job(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    WAYS[sys.argv[1]](job)
    sys.stdout.flush()
    os._exit(0)  # taking torch apart is no part of it


if __name__ == "__main__":
    main()
