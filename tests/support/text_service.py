"""A tiny Chinese model in a folder, and `lmbatch serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

CONTEXT = 256
EOD = "<|endoftext|>"
TEXT = (
    "第一条 为了保护公民的权利，制定本法。第二条 国家保护人民的自由和财产。话说天下大势，分久必合，合久必分。"
    "人工智能是研究智能的科学。北京市是中国的首都。Hello world, the law protects people. 🍜𠮷\n"
)


def write_export(folder: Path) -> Path:
    """A GPT-2 of two layers, taught for a moment, with a byte-level BPE: many characters take several tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[EOD], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOD, model_max_length=CONTEXT)
    torch.manual_seed(0)
    size = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": CONTEXT}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(wrapped), bos_token_id=0, eos_token_id=0, **size))
    ids = torch.tensor([wrapped.encode(TEXT * 2)[:CONTEXT]] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


class TextService:
    """`lmbatch serve FOLDER` on a free port; ``url`` is where it answers. Ends with the ``with`` block."""

    def __init__(self, model: Path, log: Path, *options: str, **environment: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "lmbatch", "serve", str(model), "--port", "0", "--device", "cpu", *options]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
            )

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Waits until it is ready."""
        end = time.monotonic() + 120
        while (found := re.search(r"ready: (http://\S+)", self.log)) is None:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        return found[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
