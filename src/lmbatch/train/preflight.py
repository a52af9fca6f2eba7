"""Is every node of a job fit to train? The first step of the batch script asks, before any GPU hour is lost.

::

    srun python -m lmbatch.train.preflight --config F           every process looks at its node  ──▶ RUN/preflight/…
    python -m lmbatch.train.preflight --config F --judge        the batch shell reads them all   ──▶ names of bad nodes

A node that says nothing is bad as well: its Python, its file system or its network does not work. So is one whose
versions differ from the majority's, or whose clock is a minute off the median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from statistics import median

from lmbatch import __version__
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import EXIT_FAILED, ConfigError, LaunchError, LmbatchError
from lmbatch.store import MANIFEST_KEY, open_store
from lmbatch.train.folder import RunFolder
from lmbatch.train.records import replace_file
from lmbatch.train.slurm import node_names, rank_environment

_PACKAGES = ("torch", "transformers", "accelerate", "numpy")
_MIB = 2**20
_LEAST_SHM, _LEAST_DISK, _LEAST_MEMORY = 64 * _MIB, 1024 * _MIB, 1024 * _MIB
_MEETING_SECONDS = 60.0
_CLOCK_SECONDS = 60.0
_MATRIX = 256


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one process found: ``problems`` in words, empty on a good node. ``clock`` is seconds since the epoch."""

    node: str
    rank: int
    clock: float
    device: str
    versions: dict[str, str]
    problems: tuple[str, ...]


def look(config: TrainConfig, environ: Mapping[str, str]) -> NodeReport:
    """Look at this node. Nothing raises: what goes wrong is a problem in the report."""
    problems: list[str] = []

    def check(name: str, ask: Callable[[], str | None]) -> None:
        try:
            complaint = ask()
        except Exception as error:
            complaint = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if complaint:
            problems.append(f"{name}: {complaint}")

    check("memory", _memory)
    check("/dev/shm", lambda: _room(Path("/dev/shm"), _LEAST_SHM))  # noqa: S108
    check("run folder", lambda: _room(RunFolder.of(config.run).path, _LEAST_DISK))
    check("store of the data", lambda: _readable(config.data.store))
    if config.save.store is not None:
        place = config.save.store
        check("store of the checkpoints", lambda: _writable(place))
    check("device", lambda: _device(environ))
    check("arithmetic", lambda: _matmul(environ))
    check("meeting the other processes", lambda: _all_reduce(environ))
    return NodeReport(
        node=environ.get("SLURMD_NODENAME") or platform.node(),
        rank=int(environ.get("RANK", "0")),
        clock=time.time(),
        device=_device_name(),
        versions={
            "python": platform.python_version(),
            "lmbatch": __version__,  # of the code that runs, which need not be the installed one
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        problems=tuple(problems),
    )


def judge(reports: Sequence[NodeReport], nodes: Iterable[str]) -> dict[str, list[str]]:
    """What is wrong, by node; empty if nothing is. Pure."""
    wrong: dict[str, list[str]] = {node: ["it said nothing"] for node in nodes}
    for node in {report.node for report in reports}:
        wrong[node] = []
    usual = Counter(_versions(report) for report in reports if report.versions).most_common(1)
    now = median(report.clock for report in reports) if reports else 0.0
    for report in reports:
        found = list(report.problems)
        if report.versions and _versions(report) != usual[0][0]:
            found.append(f"versions differ from the majority's: {_differing(report.versions, json.loads(usual[0][0]))}")
        if abs(report.clock - now) > _CLOCK_SECONDS:
            found.append(f"its clock is {report.clock - now:+.0f} s off")
        wrong[report.node] += [problem for problem in found if problem not in wrong[report.node]]
    # Whoever waited in vain for a broken process is not to blame for it.
    others = any(any(not _is_meeting(problem) for problem in found) for found in wrong.values())
    kept = {node: [p for p in found if not (others and _is_meeting(p))] for node, found in wrong.items()}
    return {node: found for node, found in sorted(kept.items()) if found}


def to_avoid(wrong: Mapping[str, Sequence[str]], nodes: Collection[str]) -> list[str]:
    """The bad nodes that another job should keep away from: none where all of several are bad. Pure.

    What is wrong on every node is hardly the nodes' own fault, but asked for by the config or the site file: a job on
    others would find the same. Only that nobody met the others may be due to a single one.
    """
    everywhere = len(nodes) > 1 and set(nodes) <= set(wrong)
    met = not any(_is_meeting(problem) for found in wrong.values() for problem in found)
    return [] if everywhere and met else sorted(wrong)


def version_gap(reports: Sequence[NodeReport], own: str) -> str | None:
    """What is to be said if the processes run another lmbatch than this one, which judges them: so may an image."""
    other = sorted({found for report in reports if (found := report.versions.get("lmbatch", own)) != own})
    return f"the processes run lmbatch {', '.join(other)}, and the host lmbatch {own}" if other else None


def _versions(report: NodeReport) -> str:
    return json.dumps(report.versions, sort_keys=True)


def _is_meeting(problem: str) -> bool:
    return problem.startswith("meeting the other processes")


def _differing(own: Mapping[str, str], usual: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {own[name]} instead of {usual.get(name)}" for name in own if own[name] != usual.get(name))


def _memory() -> str | None:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return None if free >= _LEAST_MEMORY else f"{free // _MIB} MiB are free, {_LEAST_MEMORY // _MIB} are needed"


def _room(folder: Path, least: int) -> str | None:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".preflight-{uuid.uuid4().hex[:12]}"
    probe.write_bytes(b"lmbatch")
    probe.unlink()
    free = shutil.disk_usage(folder).free
    return None if free >= least else f"{free // _MIB} MiB are free in {folder}, {least // _MIB} are needed"


def _readable(uri: str) -> str | None:
    return None if open_store(uri).read(MANIFEST_KEY) else f"{uri}/{MANIFEST_KEY} is empty"


def _writable(uri: str) -> str | None:
    store, key = open_store(uri), f"preflight-{uuid.uuid4().hex}"
    store.put(key, b"lmbatch")
    back = store.read(key)
    store.delete(key)
    return None if back == b"lmbatch" else f"{store.uri}: what was read is not what was written"


def _device(environ: Mapping[str, str]) -> str | None:
    import torch

    if not _on_gpu(environ):
        wanted = environ.get("SLURM_GPUS_ON_NODE") and not _cpu_chosen(environ)
        return "GPUs were asked for, and torch sees none" if wanted else None
    free, _ = torch.cuda.mem_get_info(_own_device(environ))
    return None if free >= _LEAST_MEMORY else f"{free // _MIB} MiB are free on the GPU: something else runs there"


def _cpu_chosen(environ: Mapping[str, str]) -> bool:
    return environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def _on_gpu(environ: Mapping[str, str]) -> bool:
    """Will training use a GPU here?"""
    import torch

    return torch.cuda.is_available() and not _cpu_chosen(environ)


def _own_device(environ: Mapping[str, str]) -> int:
    import torch

    return int(environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())


def _device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"


def _matmul(environ: Mapping[str, str]) -> str | None:
    """Small whole numbers multiply exactly in float32, on any device that works."""
    import torch

    device = "cuda" if _on_gpu(environ) else "cpu"
    row = torch.arange(_MATRIX, dtype=torch.float32, device=device) % 7
    product = row.repeat(_MATRIX, 1) @ row.repeat(_MATRIX, 1).T
    return None if bool((product == (row * row).sum()).all()) else "a product of whole numbers came out wrong"


def _all_reduce(environ: Mapping[str, str]) -> str | None:
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        return None
    import torch
    import torch.distributed

    # The way that training will take: over NCCL and its network cards where there are GPUs.
    on_gpu = _on_gpu(environ)
    if on_gpu:
        torch.cuda.set_device(_own_device(environ))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=_MEETING_SECONDS))
    world = torch.distributed.get_world_size()
    total = torch.tensor([float(environ["RANK"])], device="cuda" if on_gpu else "cpu")
    torch.distributed.all_reduce(total)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return None if total.item() == world * (world - 1) / 2 else f"the sum of all ranks came out as {total.item()}"


# ── the two commands ─────────────────────────────────────────────────────────────────────────────────────────────────
def folder_of(config: TrainConfig, environ: Mapping[str, str]) -> Path:
    """Where the reports of this attempt lie."""
    attempt = f"{environ.get('SLURM_JOB_ID', 'here')}-{environ.get('SLURM_RESTART_COUNT', '0')}"
    return RunFolder.of(config.run).path / "preflight" / attempt


def write_report(folder: Path, report: NodeReport) -> None:
    """Keep a report, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"rank-{report.rank}.json", json.dumps(asdict(report), indent=1).encode() + b"\n")


def read_reports(folder: Path) -> list[NodeReport]:
    """The reports that are there, by rank."""
    values = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("rank-*.json")]
    found = [NodeReport(**{**value, "problems": tuple(value["problems"])}) for value in values]
    return sorted(found, key=lambda report: report.rank)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, or judge; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lmbatch.train.preflight", description="Is every node fit to train?"
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="training config (YAML)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", dest="sets", help="as for training")
    parser.add_argument("--judge", action="store_true", help="print the names of nodes to avoid, separated by commas")
    options = parser.parse_args(arguments)
    try:
        config = load_config(TrainConfig, options.config, options.sets)
        return _judge(config) if options.judge else _look(config)
    except LmbatchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _look(config: TrainConfig) -> int:
    os.environ.update(rank_environment(os.environ))
    report = look(config, os.environ)
    write_report(folder_of(config, os.environ), report)
    return EXIT_FAILED if report.problems else 0


def _judge(config: TrainConfig) -> int:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        raise ConfigError("--judge is for the batch script of a Slurm job", remedy="run it without --judge")
    reports = read_reports(folder_of(config, os.environ))
    if (gap := version_gap(reports, __version__)) is not None:  # which no other node would mend
        raise LaunchError(gap, remedy="build the image again (`make image`), or install the same version on the host")
    names = node_names(nodes)
    wrong = judge(reports, names)
    for node, problems in wrong.items():
        sys.stderr.write(f"bad node {node}: {'; '.join(problems)}\n")
    avoided = to_avoid(wrong, names)
    if wrong and not avoided:
        sys.stderr.write("every node of the job is bad: no other job is submitted; mend the cause, then sbatch again\n")
    sys.stdout.write(",".join(avoided))
    return EXIT_FAILED if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
