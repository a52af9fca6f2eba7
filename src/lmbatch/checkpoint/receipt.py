"""What is written down about a checkpoint: facts for the resume, and the receipt that commits it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from lmbatch.checkpoint.layout import payload_folder
from lmbatch.config.base import Section, added, operational
from lmbatch.config.fingerprint import canonical_json, identity
from lmbatch.store.manifest import FileEntry

FORMAT_VERSION = 1

ProblemKind = Literal["torn", "damaged", "unreadable", "newer"]


class CheckpointFacts(Section):
    """All that a resume has to know before it touches a tensor."""

    step: int = Field(ge=0)  # optimizer steps done
    samples_consumed: int = Field(ge=0)
    tokens_consumed: int = Field(ge=0)
    world_size: int = Field(ge=1)
    engine: str = "plain"
    config: str  # fingerprint of the training config
    config_identity: dict[str, Any] = Field(default_factory=dict)
    manifest_digest: str
    loader: dict[str, Any] = Field(default_factory=dict)
    guards: dict[str, Any] | None = added(None)  # what they remember of the last steps; of a run with `guards`
    code_version: str
    precision: str


class CheckpointReceipt(Section):
    """Proof that a checkpoint is whole: every file of its payload, by key, size and sha256."""

    format_version: int = FORMAT_VERSION
    attempt: str = Field(pattern=r"^attempt-[0-9a-f]+$")
    saved_at: float = Field(ge=0)  # seconds since the epoch
    facts: CheckpointFacts
    files: tuple[FileEntry, ...] = Field(min_length=1)
    digest: str = operational("")

    @property
    def payload_bytes(self) -> int:
        """Size of the payload."""
        return sum(file.size for file in self.files)

    def computed_digest(self) -> str:
        """``sha256:<hex>`` of the receipt's own content, so that a flipped bit in the facts is seen too."""
        return "sha256:" + hashlib.sha256(canonical_json(identity(self))).hexdigest()

    def sealed(self) -> CheckpointReceipt:
        """The same receipt with its digest filled in."""
        return self.model_copy(update={"digest": self.computed_digest()})

    def to_json(self) -> bytes:
        """The stored form: readable UTF-8 JSON with a line end."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is no valid checkpoint."""

    kind: ProblemKind
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A checkpoint that was passed over, and why. ``place`` is the URI of the store that it lies in."""

    step: int
    kind: ProblemKind
    reason: str
    place: str

    def __str__(self) -> str:
        return f"step {self.step} in {self.place}: {self.reason}"


def parse_receipt(data: bytes, step: int) -> CheckpointReceipt | Problem:
    """The receipt of ``step``, or what is wrong with these bytes. A newer format is told from damage."""
    try:
        version = json.loads(data)["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            reason = f"written in checkpoint format {version}; this lmbatch reads format {FORMAT_VERSION}"
            return Problem("newer", reason)
        receipt = CheckpointReceipt.model_validate_json(data)
    except (ValueError, KeyError, TypeError) as error:
        return Problem("unreadable", f"receipt.json is no receipt: {_first_line(error)}")
    return _check_consistent(receipt, step) or receipt


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in detail['loc']) or '(top)'}: {detail['msg']}"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _check_consistent(receipt: CheckpointReceipt, step: int) -> Problem | None:
    if receipt.digest != receipt.computed_digest():
        return Problem("damaged", "receipt.json was changed: its digest does not fit its content")
    if receipt.facts.step != step:
        return Problem("damaged", f"receipt.json belongs to step {receipt.facts.step}")
    home = payload_folder(step, receipt.attempt) + "/"
    for file in receipt.files:
        # A key decides where a download is written to, so it may not lead out of the payload's folder.
        if not file.key.startswith(home) or ".." in file.key.split("/"):
            return Problem("damaged", f"receipt.json names {file.key}, which lies outside {home}")
    return None
