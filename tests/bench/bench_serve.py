"""How fast the text service answers a crowd, against `generate` of transformers for one request after the other.

    python tests/bench/bench_serve.py [--layers 12] [--width 768] [--requests 32] [--tokens 48] [--clients 1 4 16]

A GPT-2 with random weights and 21,128 characters (the size of recipe S0 by default), in fp32. Every way gets the same
prompts (8 to 40 characters) and gives the same number of tokens for each, greedily. Only the ratios mean something:
they are taken on one machine in one run, of CPU-seconds as well as of the clock, since the machine may have neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lmbatch.config import GenerateConfig
from lmbatch.infer import load_for_generation
from lmbatch.infer.batching import GenerationQueue, GenerationRequest, QueueLimits

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.text_service import TextService

EOD = "<|endoftext|>"
CONTEXT = 512
VOCABULARY = 21_128
FIRST = 0x3400  # of the ideographs


def write_model(folder: Path, layers: int, width: int) -> Path:
    """One token for each character."""
    ids = {EOD: 0} | {chr(FIRST + number): number for number in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=EOD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOD, model_max_length=CONTEXT).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"n_layer": layers, "n_embd": width, "n_head": max(1, width // 64), "n_positions": CONTEXT}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **size))
    with torch.no_grad():
        model.transformer.wte.weight[0] = -1.0  # a document's end is never the likeliest: all texts have full length
    model.save_pretrained(folder)
    return folder


def prompts(count: int) -> list[str]:
    return ["".join(chr(FIRST + 1 + (number * 997 + place * 31) % 20_000) for place in range(8 + number % 33))
            for number in range(count)]  # fmt: skip


@dataclass
class Cost:
    """Seconds by the clock and of a processor, until :meth:`stop`."""

    process: psutil.Process
    wall: float = 0.0
    cpu: float = 0.0

    def start(self) -> Cost:
        self.wall, self.cpu = time.perf_counter(), self._cpu()
        return self

    def stop(self) -> Cost:
        self.wall, self.cpu = time.perf_counter() - self.wall, self._cpu() - self.cpu
        return self

    def _cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


class Row:
    """One line of the table: seconds in all, and of each request."""

    def __init__(self, name: str, tokens: int, cost: Cost, waits: Sequence[float], firsts: Sequence[float]) -> None:
        self.name, self.waits, self.firsts = name, sorted(waits), firsts
        self.speed, self.frugality = tokens / cost.wall, tokens / cost.cpu

    def line(self, base: Row) -> str:
        cuts = statistics.quantiles(self.waits, n=20) if len(self.waits) > 1 else self.waits * 20
        first = f"{statistics.median(self.firsts) * 1000:,.0f}" if self.firsts else ""
        return (
            f"| {self.name} | {self.speed:,.1f} | {self.speed / base.speed:.2f} | {self.frugality:,.1f} | "
            f"{self.frugality / base.frugality:.2f} | {cuts[9] * 1000:,.0f} | {cuts[18] * 1000:,.0f} | {first} |"
        )


async def crowd(
    name: str, clients: int, texts: Sequence[str], tokens: int, ask: Callable[[str], Awaitable[float]], pid: int | None
) -> Row:
    """``ask`` gives the seconds until the first piece; each client asks again as soon as it has its answer."""
    waiting, waits, firsts = iter(texts), [], []

    async def client() -> None:
        for text in waiting:
            began = time.perf_counter()
            firsts.append(await ask(text))
            waits.append(time.perf_counter() - began)

    cost = Cost(psutil.Process(pid)).start()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Row(name, tokens * len(texts), cost.stop(), waits, firsts)


def one_by_one(folder: Path, texts: Sequence[str], tokens: int) -> Row:
    generator = load_for_generation(folder, device="cpu")
    kind: Any = GenerationConfig
    settings = kind(max_new_tokens=tokens, do_sample=False, eos_token_id=0, pad_token_id=0, bos_token_id=0)
    waits = []
    _warm_up(generator.model, settings)
    cost = Cost(psutil.Process()).start()
    for text in texts:
        began = time.perf_counter()
        generator.model.generate(torch.tensor([generator.window(text, tokens).ids]), generation_config=settings)
        waits.append(time.perf_counter() - began)
    return Row("transformers `generate`, one by one", tokens * len(texts), cost.stop(), waits, [])


def continuous(folder: Path, texts: Sequence[str], tokens: int) -> Row:
    """transformers' own continuous batching, all requests at once."""
    generator = load_for_generation(folder, device="cpu")
    kind: Any = GenerationConfig
    settings = kind(max_new_tokens=tokens, do_sample=False, eos_token_id=0, pad_token_id=0, bos_token_id=0)
    ids = [list(generator.window(text, tokens).ids) for text in texts]
    _warm_up(generator.model, settings)
    cost = Cost(psutil.Process()).start()
    generator.model.generate_batch(inputs=ids, generation_config=settings, progress_bar=False)
    cost.stop()
    return Row("transformers `generate_batch`, all at once", tokens * len(texts), cost, [cost.wall], [])


def _warm_up(model: Any, settings: Any) -> None:
    """The service does the same before it says that it is ready."""
    model.generate(torch.tensor([[1]]), generation_config=settings)


async def in_queue(folder: Path, clients: int, texts: Sequence[str], tokens: int) -> Row:
    settings = GenerateConfig(max_new_tokens=tokens, temperature=0)
    with GenerationQueue(load_for_generation(folder, device="cpu"), QueueLimits(rows=32)) as queue:
        await queue.complete(GenerationRequest(texts[0], settings))

        async def ask(text: str) -> float:
            began, first = time.perf_counter(), 0.0
            async for _ in queue.stream(GenerationRequest(text, settings)):
                first = first or time.perf_counter() - began
            return first

        return await crowd(f"GenerationQueue, {clients} callers", clients, texts, tokens, ask, None)


async def over_http(url: str, pid: int, clients: int, texts: Sequence[str], tokens: int) -> Row:
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def ask(text: str) -> float:
            body = {"prompt": text, "max_tokens": tokens, "temperature": 0, "stream": True}
            began, first = time.perf_counter(), 0.0
            async with client.stream("POST", "/v1/completions", content=json.dumps(body), headers=JSON) as answer:
                async for _ in answer.aiter_bytes():
                    first = first or time.perf_counter() - began
            return first

        return await crowd(f"HTTP, streamed, {clients} clients", clients, texts, tokens, ask, pid)


JSON = {"content-type": "application/json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("--layers", 12), ("--width", 768), ("--requests", 32), ("--tokens", 48)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--continuous", action="store_true", help="also transformers' continuous batching")
    options = parser.parse_args()
    texts, tokens = prompts(options.requests), options.tokens
    with tempfile.TemporaryDirectory() as place:
        folder = write_model(Path(place) / "model", options.layers, options.width)
        rows = [one_by_one(folder, texts, tokens)]
        if options.continuous:
            rows.append(continuous(folder, texts, tokens))
        rows += [asyncio.run(in_queue(folder, clients, texts, tokens)) for clients in options.clients]
        with TextService(folder, Path(place) / "log") as service:
            rows += [
                asyncio.run(over_http(service.url, service.process.pid, clients, texts, tokens))
                for clients in options.clients
            ]
    print("| way | tokens/s | ratio | per CPU-second | ratio | median ms | 95 % ms | first token, median ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.line(rows[0]))


if __name__ == "__main__":
    main()
