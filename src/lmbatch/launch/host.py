"""What the batch script of a training job asks on the host: the container's command, and whether this node can run it.

::

    python -m lmbatch.launch.host --site S --config C [--set …]      run:ch-run␀ … run:python␀check:python␀ …
    srun … python -m lmbatch.launch.host --site S --config C [--set …] --check      one task on each node

The host needs lmbatch without any extra: nothing here, nor in the judge of the pre-flight check, imports torch.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lmbatch.config import SiteConfig, TrainConfig, load_config
from lmbatch.errors import EXIT_FAILED, ContainerError, LmbatchError
from lmbatch.launch.contained import training_work
from lmbatch.launch.container import ContainerWork, cleaning_command, container_prefix
from lmbatch.launch.image_check import check_container, check_program
from lmbatch.train.preflight import NodeReport, folder_of, write_report


def named_words(site: SiteConfig, work: ContainerWork, again: Sequence[str]) -> str:
    """Three commands, each word after its command's name: what starts the image's Python, cleans a node up, checks it.

    A word ends with a zero byte, the one that no argument of a program can hold. ``again`` is the command that asked.
    """
    commands = {
        "run": container_prefix(site.container, work),
        "clean": cleaning_command(site.container),
        # The tasks of pyxis begin inside: there is nothing to run on the host of each node before.
        "check": () if site.container.runtime == "pyxis" else (*again, "--check"),
    }
    return "".join(f"{name}:{word}\0" for name, words in commands.items() for word in words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the words, or check this node; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lmbatch.launch.host", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--site", required=True, metavar="FILE", help="site file (YAML)")
    parser.add_argument("--config", required=True, metavar="FILE", help="training config (YAML)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", dest="sets", help="as for training")
    parser.add_argument("--check", action="store_true", help="check this node, and report what is wrong to the judge")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    try:
        site = load_config(SiteConfig, options.site)
        config = load_config(TrainConfig, options.config, options.sets)
        work = training_work(config, Path(options.config), os.environ)
        if options.check:
            return _check_node(site, config, work)
        if site.container.runtime == "pyxis":  # which is this script's own srun, and no node's
            check_program(site.container)
        check_container(site.container, work, on_node=False)  # what only this node lacks, its own check tells
    except LmbatchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if site.container.runtime != "none":
        sys.stdout.write(named_words(site, work, [sys.executable, "-m", "lmbatch.launch.host", *given]))
    return 0


def _check_node(site: SiteConfig, config: TrainConfig, work: ContainerWork) -> int:
    """A node that can run the container says nothing here: its processes will."""
    try:
        check_container(site.container, work)
    except ContainerError as error:
        node = os.environ.get("SLURMD_NODENAME") or platform.node()
        rank = -1 - int(os.environ.get("SLURM_NODEID", "0"))  # no process of the run; one name for each node
        write_report(
            folder_of(config, os.environ), NodeReport(node, rank, time.time(), "", {}, (f"container: {error}",))
        )
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
