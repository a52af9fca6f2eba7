"""Facts, payloads and damage for the tests of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmbatch.checkpoint import CheckpointFacts


def make_facts(step: int, **changes: object) -> CheckpointFacts:
    values: dict[str, object] = {
        "step": step,
        "samples_consumed": step * 8,
        "tokens_consumed": step * 8 * 16,
        "world_size": 1,
        "config": "sha256:config",
        "manifest_digest": "sha256:manifest",
        "code_version": "0.1.0",
        "precision": "fp32",
    }
    return CheckpointFacts.model_validate(values | changes)


def fill(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights of %d " % step * 100)
        (folder / "parts").mkdir()
        (folder / "parts" / "extra.json").write_text(f'{{"step": {step}}}', encoding="utf-8")

    return write


def flip_byte(path: Path, at: int = 10) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
