"""`lmbatch doctor`: is this machine fit for the work?"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click

from lmbatch import __version__
from lmbatch.cli.common import human_bytes, json_option, print_json, print_table
from lmbatch.cli.imports import INSTALLED, PURPOSES, check_imports
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import EXIT_FAILED, LmbatchError
from lmbatch.store import check_publish_once, open_store

_BASE = ("click", "fsspec", "numpy", "orjson", "pyarrow", "pydantic", "pyyaml", "rich", "submitit", "tokenizers")
_TRAIN = ("torch", "transformers", "accelerate", "safetensors", "tensorboard")
_DEEPSPEED = ("deepspeed",)
_S3 = ("obstore",)
_FAST = ("nanotoken", "fastokens")
_ZH = ("jieba", "opencc", "py3langid")

EPILOG = """\b
Examples:
  lmbatch doctor
  lmbatch doctor --store s3://bucket/prefix --json
  lmbatch doctor --train configs/train/gpt2_zh.yaml      what the first step of a training job looks at
  srun -N4 lmbatch doctor --train configs/train/gpt2_zh.yaml      the same on four nodes, which must meet
  lmbatch doctor --imports train      is everything there that training needs, and can it be imported?

Exit code 0 if nothing that was checked is wrong.
"""

Row = tuple[str, bool, str]


@click.command(epilog=EPILOG)
@click.option("--store", help="Also try to write, publish once, read and delete here.")
@click.option("--train", "config_path", help="Also check what training this config needs (YAML file).")
@click.option(
    "--imports",
    "purpose",
    type=click.Choice([INSTALLED, *PURPOSES]),
    help="Only import all that this purpose needs (`installed`: all that is installed), and say the versions.",
)
@json_option
def command(store: str | None, config_path: str | None, purpose: str | None, as_json: bool) -> None:
    """Check packages, cores, memory and disk of this machine, and a store or a training config if one is named."""
    rows = list(check_imports(purpose)) if purpose else [*_packages(), *_machine()]
    rows += [*(_store(store) if store else ()), *(_train(config_path) if config_path else ())]
    if as_json:
        print_json([{"what": what, "right": right, "found": found} for what, right, found in rows])
    else:
        print_table(("", "what", "found"), [("ok" if right else "WRONG", what, found) for what, right, found in rows])
    if not all(right for _, right, _ in rows):
        sys.exit(EXIT_FAILED)


def _packages() -> Iterator[Row]:
    yield "lmbatch", True, __version__
    yield "python", sys.version_info >= (3, 11), sys.version.split()[0]
    extras = ((_BASE, ""), (_S3, "s3"), (_FAST, "fast"), (_ZH, "zh"), (_TRAIN, "train"), (_DEEPSPEED, "deepspeed"))
    for names, extra in extras:
        for name in names:
            version = _version(name)
            missing = (
                f"not installed: pip install 'lmbatch[{extra}]'" if extra else "not installed: pip install lmbatch"
            )
            yield name, version is not None or bool(extra), version or missing


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Row]:
    yield "cores", True, str(len(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "memory", True, human_bytes(memory)
    for path in (Path.cwd(), Path("/dev/shm")):  # noqa: S108
        if path.is_dir():
            free = shutil.disk_usage(path).free
            yield f"free on {path}", free > 2**28, human_bytes(free)
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    yield "GPUs", True, f"{len(devices)} NVIDIA" if devices else "none: training runs on the CPU"


def _store(uri: str) -> Iterator[Row]:
    key = f"doctor-{uuid.uuid4().hex}"
    try:
        store = open_store(uri)
        check_publish_once(store)
        store.put(key, b"lmbatch")
        right = store.read(key) == b"lmbatch"
        store.delete(key)
        yield f"store {store.uri}", right, "publish-once, write, read, delete work"
    except LmbatchError as error:
        yield f"store {uri}", False, str(error)


def _train(config_path: str) -> Iterator[Row]:
    """The pre-flight check of a training job, on this node; under srun its processes must find each other as well."""
    from lmbatch.train.preflight import look
    from lmbatch.train.slurm import rank_environment

    os.environ.update(rank_environment(os.environ))
    report = look(load_config(TrainConfig, config_path), os.environ)
    yield f"training on {report.node}", True, f"process {report.rank}, {report.device}"
    for problem in report.problems:
        name, _, complaint = problem.partition(": ")
        yield name, False, complaint
    if not report.problems:
        yield "pre-flight check", True, "memory, /dev/shm, disk, store, device, arithmetic, meeting the others"
