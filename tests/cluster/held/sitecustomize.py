"""On the Python path of a task: holds it after its payload is stored and before its receipt, until a gate opens.

The variable LMBATCH_TEST_GATE names the gate, a file; a task that waits leaves its mark beside it.
"""

import os
import socket
import time
from pathlib import Path

from lmbatch.store.local import LocalStore

gate = Path(os.environ["LMBATCH_TEST_GATE"])
publish = LocalStore.publish


def held(store: LocalStore, key: str, data: bytes) -> bool:
    (gate.parent / f"waiting-{socket.gethostname()}-{os.getpid()}").touch()
    while not gate.exists():
        time.sleep(0.05)
    return publish(store, key, data)


LocalStore.publish = held
