"""Where a job's tasks are to run: what the options and the site file come down to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmbatch.config import ContainerSite, PreprocessConfig, SiteConfig, SlurmSite
from lmbatch.launch.backend import Backend
from lmbatch.launch.contained_batch import work_of
from lmbatch.launch.image_check import check_container
from lmbatch.launch.local import LocalBackend
from lmbatch.launch.slurm import SlurmBackend


@dataclass(frozen=True)
class Place:
    """``workers`` processes at a time: on this machine, or as elements of array jobs as ``slurm`` says.

    Each does its tasks in a ``container``, if that names a runtime.
    """

    executor: Literal["local", "slurm"]
    workers: int
    slurm: SlurmSite
    container: ContainerSite | None = None

    def backend(self, folder: Path) -> Backend:
        """The backend, with a folder for its logs and job files."""
        if self.executor == "slurm":
            return SlurmBackend(folder, self.slurm, container=self.container)
        return LocalBackend(folder, self.workers, self.container)

    def check(self, store: str, raw: str, jobs: Path, spool: Path) -> None:
        """Asked before anything is queued: raises ContainerError if the tasks cannot run in the container."""
        if self.container is not None:
            here = self.executor == "local"
            work = work_of(store, raw, jobs, spool if here else None)
            check_container(self.container, work, on_node=here)


def at_site(config: PreprocessConfig, site: SiteConfig) -> PreprocessConfig:
    """A corpus config with the site's places where it names none of its own."""
    found = {}
    if site.store is not None and not config.store:
        found["store"] = f"{site.store.rstrip('/')}/{config.corpus.name}"
    if site.scratch is not None and config.spool is None:
        found["spool"] = site.scratch
    return config.model_copy(update=found)


def place_of(site: SiteConfig, on: str | None = None, workers: int | None = None) -> Place:
    """The place of a site; ``on`` and ``workers`` go before what it says. By default the cores of this machine."""
    if (on or site.executor) == "slurm":
        slurm = site.slurm.model_copy(update={"max_parallel": workers}) if workers else site.slurm
        return Place("slurm", slurm.max_parallel, slurm, site.container)
    return Place("local", workers or site.workers or len(os.sched_getaffinity(0)), site.slurm, site.container)
