"""The loader and its peers, each in a process of its own: `python loader_peers.py make|read NAME '{"data": …}'`.

`make` writes the corpus in the peer's format; `read` opens it, goes on where a run has read `share` of the epoch, and
takes shuffled batches as int64, as fast as they come. Each peer is written as its users write it, in one process
without workers, as the loader of lmbatch runs too.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import itertools
import json
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SEED = 1
BATCH = 64


class Job(NamedTuple):
    """``data`` has tokens.bin (uint16), tokens.idx and a folder for each peer; ``samples`` of ``length`` tokens.

    ``steps`` batches are read after the first one. ``store`` and ``cache`` (bytes) are for what reads from a store.
    """

    data: str
    samples: int
    length: int
    steps: int = 0
    share: float = 0.0
    store: str = ""
    cache: int = 0

    @property
    def skipped(self) -> int:
        """Samples that a run before has read: whole batches."""
        return int(self.share * self.samples) // BATCH * BATCH

    def rows(self) -> Iterator[np.ndarray[Any, Any]]:
        """The corpus in samples."""
        tokens = np.memmap(Path(self.data) / "tokens.bin", np.uint16, mode="r")
        return (np.array(tokens[at * self.length : (at + 1) * self.length]) for at in range(self.samples))


class Peer(NamedTuple):
    """``make`` writes into a folder; ``batches`` gives batches of BATCH samples; ``needs`` is imported beforehand."""

    make: Callable[[Job, Path], None]
    batches: Callable[[Job, Path], Iterator[Any]]
    needs: tuple[str, ...] = ()


def loader_of(dataset: Any, **options: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=BATCH, num_workers=0, **options)


# ── datasets: Arrow files, mapped; a permutation of row numbers ──────────────────────────────────────────────────────
def make_datasets(job: Job, folder: Path) -> None:
    import datasets

    kind = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("uint16"), length=job.length)})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"input_ids": np.stack(list(job.rows()))}, kind).save_to_disk(str(folder / "ids"))


def from_datasets(job: Job, folder: Path) -> Iterator[Any]:
    import datasets
    import torch
    from accelerate import skip_first_batches

    shuffled = datasets.load_from_disk(str(folder / "ids")).shuffle(seed=SEED, keep_in_memory=True).with_format("numpy")
    collate = lambda rows: torch.from_numpy(np.stack([row["input_ids"] for row in rows]).astype(np.int64))  # noqa: E731
    loader = loader_of(shuffled, collate_fn=collate)
    return iter(skip_first_batches(loader, job.skipped // BATCH) if job.skipped else loader)


# ── litdata: chunks of tokens ────────────────────────────────────────────────────────────────────────────────────────
def tokens_of_row(row: np.ndarray[Any, Any]) -> Iterator[Any]:
    import torch

    yield torch.from_numpy(row.astype(np.uint16))


def make_litdata(job: Job, folder: Path) -> None:
    import litdata

    runs = [np.concatenate(list(run)) for run in _runs(job.rows(), 4096)]
    litdata.optimize(
        fn=tokens_of_row, inputs=runs, output_dir=str(folder), chunk_size=4096 * job.length, num_workers=1,
        item_loader=litdata.TokensLoader(block_size=job.length), start_method="fork", verbose=False,
    )  # fmt: skip


def _runs(rows: Iterator[Any], count: int) -> Iterator[Iterator[Any]]:
    while first := list(itertools.islice(rows, count)):
        yield iter(first)


def from_litdata(job: Job, folder: Path) -> Iterator[Any]:
    import litdata

    dataset = litdata.StreamingDataset(
        str(folder), item_loader=litdata.TokensLoader(block_size=job.length), shuffle=True, seed=SEED, drop_last=True
    )
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)
    if job.skipped:
        iter(loader)
        state = loader.state_dict()
        state["num_samples_yielded"] = state["dataset"]["num_samples_yielded"] = job.skipped
        loader.load_state_dict(state)
    return (batch.long() for batch in loader)


# ── MosaicML streaming: shards of encoded samples ────────────────────────────────────────────────────────────────────
def streaming_package() -> Any:
    """Its folder of pictures asks for torchvision, whose wheel is built for a GPU: nothing here needs it."""
    for name, parts in (
        ("torchvision", {}),
        ("torchvision.datasets", {"VisionDataset": object}),
        ("torchvision.transforms", {}),
        ("torchvision.transforms.functional", {"to_tensor": None}),
    ):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(parts)
        sys.modules[name] = module
    import streaming

    return streaming


def make_streaming(job: Job, folder: Path) -> None:
    columns = {"tokens": f"ndarray:uint16:{job.length}"}
    with streaming_package().MDSWriter(out=str(folder), columns=columns) as writer:
        for row in job.rows():
            writer.write({"tokens": row})


def from_streaming(job: Job, folder: Path) -> Iterator[Any]:
    import torch

    streaming = streaming_package()
    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        local=str(folder), shuffle=True, shuffle_seed=SEED, batch_size=BATCH, replication=None
    )
    collate = lambda rows: torch.from_numpy(np.stack([row["tokens"] for row in rows]).astype(np.int64))  # noqa: E731
    loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=collate)
    if job.skipped:
        state = {"epoch": 0, "sample_in_epoch": job.skipped, "num_canonical_nodes": dataset.num_canonical_nodes or 64,
                 "shuffle_seed": SEED, "initial_physical_nodes": 1}  # fmt: skip
        loader.load_state_dict(state)
    return iter(loader)


# ── Megatron-LM: its own index over the very shards ──────────────────────────────────────────────────────────────────
def make_megatron(job: Job, folder: Path) -> None:
    for batch in from_megatron(job, folder):  # builds the indexes that it keeps
        assert batch.shape == (BATCH, job.length)
        break


def from_megatron(job: Job, folder: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    config = GPTDatasetConfig(
        random_seed=SEED, sequence_length=job.length, blend=([f"{job.data}/tokens"], None), split="1,0,0",
        path_to_cache=str(folder), reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
        create_attention_mask=False, tokenizer=types.SimpleNamespace(eod=0, pad=0, vocab_size=50_000,
                                                                         unique_identifiers={"name": "bench"}),
        mid_level_dataset_surplus=0.005,
    )  # fmt: skip
    count = (job.samples - 1) // BATCH * BATCH
    builder = BlendedMegatronDatasetBuilder(GPTDataset, [count, None, None], lambda: True, config)
    dataset = builder.build()[0]
    sampler = range(job.skipped, count)  # what its pretraining sampler does on one rank
    return (batch["tokens"] for batch in loader_of(dataset, sampler=sampler))


PEERS = {
    "datasets": Peer(make_datasets, from_datasets, ("datasets", "accelerate", "torch")),
    "litdata": Peer(make_litdata, from_litdata, ("litdata",)),
    "streaming": Peer(make_streaming, from_streaming, ("torch",)),
    "megatron": Peer(make_megatron, from_megatron, ("megatron.core.datasets.blended_megatron_dataset_builder",)),
}


def anonymous_bytes() -> int:
    """Memory of this process that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(batches: Callable[[], Iterator[Any]], steps: int) -> dict[str, float]:
    """Seconds to the first batch, and for ``steps`` more (wall clock, CPU); bytes of memory that they took."""
    before, begun = anonymous_bytes(), time.perf_counter()
    source = batches()
    tokens = next(source).shape
    first, cpu = time.perf_counter() - begun, time.process_time()
    begun = time.perf_counter()
    for _ in range(steps):
        next(source)
    return {
        "first": first, "seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu,
        "tokens": steps * int(np.prod(tokens)), "memory": anonymous_bytes() - before,
    }  # fmt: skip


def _ours() -> dict[str, Peer]:
    """Looked up only when asked for: the environment of two peers has no lmbatch."""
    from loader_ours import OURS

    return OURS


def main(what: str, name: str, job: Job) -> None:
    peer, folder = PEERS.get(name) or _ours()[name], Path(job.data) / name
    if what == "make":
        folder.mkdir(parents=True, exist_ok=True)
        peer.make(job, folder)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in peer.needs:
            importlib.import_module(module)
        if name == "streaming":
            streaming_package()
    print(json.dumps(measure(lambda: peer.batches(job, folder), job.steps)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Job(**json.loads(sys.argv[3])))
