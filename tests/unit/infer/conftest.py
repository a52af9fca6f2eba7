"""A tiny tokenizer, a tiny model that says something, and a run folder with checkpoints of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmbatch.checkpoint import CheckpointFacts, Checkpoints, save_training_state
from lmbatch.config import TrainConfig, dump_yaml, fingerprint
from lmbatch.model import build_model
from lmbatch.store import FileEntry, Ledger, LocalStore, Manifest, TokenizerEntry, to_json

EOD = "<|endoftext|>"
CONTEXT = 48
TEXT = "第一条 为了保护公民的权利，制定本法。第二条 国家保护人民。Hello world, the law protects people.\n"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[EOD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD, "name_or_path": str(folder)}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "run": {"name": "demo", "dir": "/secret/place/runs"},
            "data": {"store": "file:///secret/place/shards", "sequence_length": CONTEXT},
            "model": {"type": "gpt2", "config": {"n_embd": 32, "n_layer": 2, "n_head": 2}},
            "optimizer": {"lr": 3e-3},
            "batch": {"size": 4, "micro": 4},
            "steps": 60,
        }
    )


@pytest.fixture(scope="session")
def manifest(tokenizer_folder: Path) -> Manifest:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    files = tuple(
        FileEntry(
            key=f"tokenizer/{path.name}",
            size=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(tokenizer_folder.iterdir())
    )
    size = tokenizer.get_vocab_size()
    entry = TokenizerEntry(
        fingerprint="sha256:tokenizer", size=size, largest_id=size - 1, eod_token=EOD, eod_id=0, files=files
    )
    return Manifest(
        corpus="laws", config="sha256:corpus", dtype="uint16", tokenizer=entry, shards=(), ledger=Ledger()
    ).sealed()


@pytest.fixture(scope="session")
def model(config: TrainConfig, manifest: Manifest, tokenizer_folder: Path) -> torch.nn.Module:
    """Trained for a moment, so that its likeliest tokens are clear-cut and differ from place to place."""
    built = new_model(config, manifest)
    ids = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")).encode(TEXT + EOD).ids * 4
    optimizer = torch.optim.AdamW(built.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        starts = torch.randint(len(ids) - CONTEXT, (4,)).tolist()
        batch = torch.tensor([ids[start : start + CONTEXT] for start in starts])
        built(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return built.eval()


def new_model(config: TrainConfig, manifest: Manifest) -> torch.nn.Module:
    return build_model(
        config.model, vocab_size=manifest.tokenizer.size, sequence_length=CONTEXT, eod_id=0, seed=config.seed
    )


@pytest.fixture
def run_dir(
    tmp_path: Path, config: TrainConfig, manifest: Manifest, model: torch.nn.Module, tokenizer_folder: Path
) -> Path:
    """Step 20 holds the fresh model, step 60 the trained one."""
    folder = tmp_path / "runs" / "demo"
    (folder / "tokenizer").mkdir(parents=True)
    for path in tokenizer_folder.iterdir():
        (folder / "tokenizer" / path.name).write_bytes(path.read_bytes())
    (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    (folder / "manifest.json").write_bytes(to_json(manifest))
    rows = [
        {"kind": "train", "step": 20, "loss": 4.5},
        {"kind": "evaluation", "step": 40, "loss": 2.25},
        {"kind": "train", "step": 60, "loss": 0.125},
        {"kind": "train", "step": 61, "loss": 99.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "tr', encoding="utf-8")
    checkpoints = Checkpoints(LocalStore(folder))
    for step, built in ((20, new_model(config, manifest)), (60, model)):
        optimizer = torch.optim.AdamW(built.parameters())
        checkpoints.save(
            facts(config, manifest, step),
            lambda place, built=built, optimizer=optimizer: save_training_state(
                place, model=built, optimizer=optimizer, extra={}
            ),
        )
    return folder


def facts(config: TrainConfig, manifest: Manifest, step: int) -> CheckpointFacts:
    return CheckpointFacts(
        step=step, samples_consumed=step * 4, tokens_consumed=step * 4 * CONTEXT, world_size=1,
        config=fingerprint(config), manifest_digest=manifest.digest, code_version="0.1.0", precision="fp32",
    )  # fmt: skip
