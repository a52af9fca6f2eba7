"""Who a run is to the services, and what they have of it: kept in the run folder, so that a resume goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmbatch.train.records import replace_file

_ID, _SENT = "id", "sent.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """``id`` is the run's with every service; ``sent`` the last step of each group that any attempt has logged."""

    id: str
    sent: Mapping[str, int] = field(default_factory=dict)

    def sent_to(self, place: Path) -> Mapping[str, int]:
        """The same for one service; nothing if it was not used before, which the lack of its folder tells."""
        return self.sent if place.exists() else {}


def identify(folder: Path, logged: Mapping[str, int]) -> Identity:
    """Read or make the id, and raise the marks of what was sent by what an earlier attempt has ``logged``.

    The marks only rise: an attempt that dies before it has caught up with an earlier one must not lower them. Raises
    OSError, or ValueError for a damaged file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, marks = folder / _ID, folder / _SENT
    if not name.exists():
        replace_file(name, f"{uuid.uuid4().hex[:12]}\n".encode())
    before: dict[str, int] = json.loads(marks.read_bytes()) if marks.exists() else {}
    sent = {group: max(before.get(group, -1), logged.get(group, -1)) for group in sorted({*before, *logged})}
    if sent != before:
        replace_file(marks, json.dumps(sent).encode() + b"\n")
    return Identity(name.read_text(encoding="utf-8").strip(), sent)
