"""What work needs inside a container: the folders that its config names, under their own paths."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

import lmbatch
from lmbatch.config import TrainConfig
from lmbatch.launch.container import ContainerWork, job_memory
from lmbatch.store.location import parse_location


def training_work(config: TrainConfig, path: Path, environ: Mapping[str, str]) -> ContainerWork:
    """What training a config needs inside: every local folder that the config names, and the host's caches."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    read = (path.parent, *_local(config.data.store), *((Path(config.tokenizer),) if config.tokenizer else ()))
    written = (Path(config.run.dir), *_local(config.save.store), *_folder(config.data.cache.dir))
    caches = (("XDG_CACHE_HOME", cache), ("HF_HOME", Path(environ.get("HF_HOME") or cache / "huggingface")))
    return work_here(read, written, environ, caches=caches, gpus=int(environ.get("SLURM_GPUS_ON_NODE") or 0))


def work_here(
    read: Sequence[Path],
    written: Sequence[Path],
    environ: Mapping[str, str],
    *,
    caches: Sequence[tuple[str, Path]] = (),
    gpus: int = 0,
) -> ContainerWork:
    """Work in the present folder as the present user. A path that is a link is there with what it leads to."""
    return ContainerWork(
        cwd=Path.cwd(),
        folders=_with_targets(read),
        written=_with_targets(written),
        caches=tuple((name, path.absolute()) for name, path in caches),
        code=Path(lmbatch.__file__).resolve().parents[1],
        gpus=gpus,
        user=f"{os.getuid()}:{os.getgid()}",
        login=environ.get("USER") or _login(os.getuid()),
        memory=job_memory(environ),
        rootless=os.getuid() != 0,
    )


def _login(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a node need not know all users by name
        return str(user)


def _with_targets(paths: Sequence[Path]) -> tuple[Path, ...]:
    whole = [path.expanduser().absolute() for path in paths]
    return tuple(dict.fromkeys(form for path in whole for form in (path, path.resolve())))


def _local(uri: str | None) -> tuple[Path, ...]:
    location = parse_location(uri) if uri else None
    return (Path(location.rest),) if location and location.scheme == "file" else ()


def _folder(name: str | None) -> tuple[Path, ...]:
    return (Path(name),) if name else ()
