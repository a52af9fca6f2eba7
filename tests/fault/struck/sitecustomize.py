"""On the Python path of a storm: each worker and each driver draws a lot that says when it is to be killed.

A lot is a pure function of the seed (LMBATCH_TEST_SEED) and of the number that the process draws in the storm's folder
(LMBATCH_TEST_STORM). A boundary is struck by the process itself, before or after a write; a moment is asked for, and
the test strikes it from outside, wherever the process is then. Once the folder holds the file `calm`, nobody is struck.
"""

import os
import random
import signal
import sys
from pathlib import Path

FOLDER = Path(os.environ["LMBATCH_TEST_STORM"])
WRITES = ("put", "put_file", "publish")


def role() -> str:
    if "SUBMITIT_LOCAL_LOCALID" in os.environ:
        return "worker"
    return "driver" if sys.orig_argv[-1:] != ["--help"] and "lmbatch" in sys.orig_argv else ""


def draw(kind: str) -> int:
    """A number that no other process of this kind has."""
    for number in range(10_000):
        try:
            (FOLDER / f"{kind}-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise RuntimeError("no number is left")


def die(what: str) -> None:
    if not (FOLDER / "calm").exists():
        (FOLDER / f"fell-{os.getpid()}").write_text(what)
        os.kill(os.getpid(), signal.SIGKILL)


def ask_to_be_killed(seconds: float) -> None:
    """The first line of the file is what the test reads: it must be whole when it gets its name."""
    asked = FOLDER / f"asking-{os.getpid()}"
    asked.write_text(str(seconds))
    asked.rename(FOLDER / f"doomed-{os.getpid()}")


def strike_at_write(last: int, phase: str) -> None:
    from lmbatch.store.local import LocalStore

    seen = 0

    def watched(name: str):
        original = getattr(LocalStore, name)

        def write(store: LocalStore, key: str, data: object) -> object:
            nonlocal seen
            number, seen = seen, seen + 1
            if (number, phase) == (last, "before"):
                die(f"before {name} {key}")
            result = original(store, key, data)
            if (number, phase) == (last, "after"):
                die(f"after {name} {key}")
            return result

        return write

    for name in WRITES:
        setattr(LocalStore, name, watched(name))


def strike_after_write(first: int, seconds: float) -> None:
    from lmbatch.store.local import LocalStore

    original = LocalStore.put_file
    seen = 0

    def put_file(store: LocalStore, key: str, path: Path) -> None:
        nonlocal seen
        if seen == first:
            ask_to_be_killed(seconds)
        seen += 1
        original(store, key, path)

    LocalStore.put_file = put_file


def strike(kind: str) -> None:
    lot = random.Random(f"{os.environ['LMBATCH_TEST_SEED']}-{kind}-{draw(kind)}")
    chance = lot.random()
    if kind == "driver":
        if chance < 0.25:
            strike_at_write(lot.randrange(9), lot.choice(("before", "after")))
        else:
            ask_to_be_killed(lot.uniform(0.5, 5.0))
    elif chance < 0.6:
        strike_at_write(lot.randrange(16), lot.choice(("before", "after")))
    elif chance < 0.9:
        strike_after_write(lot.randrange(8), lot.uniform(0.0, 0.05))
    else:
        ask_to_be_killed(lot.uniform(0.0, 0.8))


if (kind := role()) and not (FOLDER / "calm").exists():
    strike(kind)
