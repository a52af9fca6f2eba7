"""On the Python path of a training job: holds each attempt at a chosen place until notice has reached the process,
or until the file ``go-ATTEMPT`` lies in the folder of marks.

LMBATCH_TEST_HOLD names the places of the attempts, ``start,data,step-7,evaluation,save`` for example; an attempt beyond
the list is left alone. A process that is held leaves its mark, a file with its number, in the folder
LMBATCH_TEST_MARKS.
"""

import importlib.abc
import importlib.util
import os
import sys
import time
from pathlib import Path

PLACES = os.environ.get("LMBATCH_TEST_HOLD", "").split(",")
ATTEMPT = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
PLACE = dict(enumerate(PLACES)).get(ATTEMPT, "")


def hold() -> None:
    rank = os.environ.get("SLURM_PROCID", "0")
    marks = Path(os.environ["LMBATCH_TEST_MARKS"])
    mark = marks / f"{ATTEMPT}-{PLACE}-rank{rank}"
    mark.with_name(f".{mark.name}").write_text(str(os.getpid()))
    mark.with_name(f".{mark.name}").rename(mark)
    stop = sys.modules["__main__"]._STOP
    while stop.reason is None and not (marks / f"go-{ATTEMPT}").exists():
        time.sleep(0.02)


def stand_still() -> bool:
    if os.environ["SLURM_PROCID"] == "1":
        time.sleep(1000)
    return False


def before(owner, name, when=lambda *arguments: True):
    original = getattr(owner, name)

    def held(*arguments, **options):
        if when(*arguments):
            hold()
        return original(*arguments, **options)

    setattr(owner, name, held)


def patch_loop(module) -> None:
    if PLACE.startswith("step-"):
        number = int(PLACE.removeprefix("step-"))
        before(module.Engine, "begin", lambda engine, step: step.first_sample == number * 8)
    elif PLACE.startswith("hang-"):
        number = int(PLACE.removeprefix("hang-"))
        before(module.Engine, "begin", lambda engine, step: step.first_sample == number * 8 and stand_still())
    elif PLACE == "evaluation":
        before(module, "evaluate")
    elif PLACE == "save":
        before(module.Loop, "_save", lambda loop: loop.position.step and loop.position.step % 5 == 0)


def patch_worker(module) -> None:
    if PLACE == "data":
        before(module, "open_train_data")


class Watcher(importlib.abc.MetaPathFinder):
    """Patches a module when it has been imported; "start" is the moment before torch is."""

    patches = {"lmbatch.train.loop": patch_loop, "lmbatch.train.worker": patch_worker}  # noqa: RUF012

    def find_spec(self, name, path, target=None):
        if name == "torch" and PLACE == "start" and hasattr(sys.modules["__main__"], "_STOP"):
            sys.meta_path.remove(self)
            hold()
            return None
        if name not in self.patches:
            return None
        patch = self.patches.pop(name)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if PLACE and "SLURM_PROCID" in os.environ:
    sys.meta_path.insert(0, Watcher())
