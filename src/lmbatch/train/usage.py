"""What a process has used at most, for the ledger. Imports no torch: it asks it where it is loaded already."""

from __future__ import annotations

import resource
import sys
from typing import Any

_KIB = 1024


def peak_host_bytes() -> int:
    """The most memory that this process had resident so far (getrusage(2); Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def peak_device_bytes() -> int | None:
    """The most bytes that tensors took on this process's GPU so far; None without one."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
