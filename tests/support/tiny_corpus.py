"""A small preprocessed corpus, written straight with ShardWriter: random documents with a pattern to learn."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from lmbatch.config import ChunkingConfig
from lmbatch.shards import ShardWriter
from lmbatch.store import FileEntry, Ledger, Manifest, Receipt, open_store, to_json
from lmbatch.store.manifest import PieceReceipt, ShardEntry, TokenizerEntry
from lmbatch.tokens import load_tokenizer

EOD = "<|endoftext|>"
LETTERS = (
    "一二三四五六七八九十百千万天地人日月水火木金土山川石田禾竹米糸羊羽老耳肉自至舌舟色虫血行衣西見角言谷豆貝赤走足身車"
)
VOCABULARY = [EOD, *LETTERS]
TASK = "task-000000"


def write_tokenizer(folder: Path) -> Path:
    """A Hugging Face folder: one token per character of LETTERS, and EOD as id 0."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=EOD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([EOD])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = f'{{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "{EOD}", "pad_token": "{EOD}"}}\n'
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    return folder


def document(rng: random.Random) -> list[int]:
    """Ids that mostly follow a rule a tiny model can learn, with EOD at the end."""
    ids = [rng.randrange(1, len(VOCABULARY))]
    for _ in range(rng.randrange(5, 60)):
        follows = (ids[-1] * 5 + 2) % (len(VOCABULARY) - 1) + 1
        ids.append(follows if rng.random() < 0.8 else rng.randrange(1, len(VOCABULARY)))
    return [*ids, 0]


def write_corpus(
    root: Path, *, documents: int = 400, validation: int = 40, shards: int = 3, seed: int = 0, length: int | None = None
) -> str:
    """Write a sealed store under ``root`` and give its URI. With ``length`` documents are cut into such examples."""
    root.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(write_tokenizer(root / "tokenizer"))
    rng = random.Random(seed)
    parts = [("train", documents // shards)] * shards + [("validation", validation)] * (validation > 0)
    entries, position = [], 0
    for part, (split, count) in enumerate(parts):
        entries.append(_write_shard(root, split, part, [document(rng) for _ in range(count)], position, length))
        position += count
    ledger = Ledger(records=position, documents={split: sum(c for s, c in parts if s == split) for split, _ in parts})
    _write_receipt(root, entries, ledger)
    manifest = Manifest(
        corpus="tiny", config="sha256:tiny", dtype="uint16", shards=tuple(entries), ledger=ledger,
        chunking=None if length is None else ChunkingConfig(mode="lines", length=length),
        tokenizer=TokenizerEntry(
            fingerprint=tokenizer.fingerprint, size=tokenizer.size, largest_id=tokenizer.largest_id,
            eod_token=EOD, eod_id=0, files=tokenizer_files(root),
        ),
    ).sealed()  # fmt: skip
    open_store(str(root)).put("manifest.json", to_json(manifest))
    return str(root)


def cut(ids: list[int], length: int) -> list[list[int]]:
    """A document as a few lines, each at most ``length`` tokens with its EOD."""
    lines = [ids[at : at + length + 3] for at in range(0, len(ids) - 1, length + 3)]
    return [[*[token for token in line if token][: length - 1], 0] for line in lines]


def _write_shard(
    root: Path, split: str, part: int, documents: list[list[int]], position: int, length: int | None
) -> ShardEntry:
    folder = root / "shards" / split
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{TASK}-{part:02d}-{part:012x}"
    writer = ShardWriter(folder, stem, "uint16", examples=length is not None)
    for number, ids in enumerate(documents, start=position):
        examples = [ids] if length is None else cut(ids, length)
        writer.append(
            [token for example in examples for token in example], piece=0, position=number, id=f"doc-{number}",
            text_bytes=3 * (len(ids) - 1), lengths=None if length is None else [len(example) for example in examples],
        )  # fmt: skip
    return writer.close().entry(split, f"shards/{split}/{stem}")


def _write_receipt(root: Path, entries: list[ShardEntry], ledger: Ledger) -> None:
    piece = PieceReceipt(
        path="tiny.json", start=0, end=ledger.records, first_position=0, end_position=ledger.records,
        records=ledger.records,
    )  # fmt: skip
    receipt = Receipt(
        task=TASK, plan="sha256:plan", attempt="a", engine="none", pieces=(piece,), shards=tuple(entries),
        ledger=ledger, seconds=0, cpu_seconds=0, peak_memory_bytes=0, input_bytes=0,
    )  # fmt: skip
    open_store(str(root)).put(f"receipts/{TASK}.json", to_json(receipt))


def tokenizer_files(root: Path) -> tuple[FileEntry, ...]:
    """What a manifest says of the tokenizer under ``root``."""
    import hashlib

    files = sorted((root / "tokenizer").iterdir())
    return tuple(
        FileEntry(key=f"tokenizer/{f.name}", size=f.stat().st_size, sha256=hashlib.sha256(f.read_bytes()).hexdigest())
        for f in files
    )
