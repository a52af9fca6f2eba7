"""What a save in the background costs in host memory. No torch: a plan tells it before there is a model."""

from __future__ import annotations

BYTES_PER_PARAMETER = 12  # the weight and the two moments of AdamW, each in float32


def snapshot_bytes(parameters: int, *, sharing: int = 1) -> int:
    """Bytes of host memory that a process keeps for the copy which `save.asynchronous` writes from.

    ``parameters`` are those that are trained (a tied one counts once), ``sharing`` the processes that they are shared
    out over: 1 for the plain engine and ZeRO stage 0, where the main process alone keeps a copy, the number of
    processes for stages 1 to 3. There is one copy, used again by every save. The main process has one whole tensor on
    top of it while it gathers.
    """
    return -(-parameters // sharing) * BYTES_PER_PARAMETER
