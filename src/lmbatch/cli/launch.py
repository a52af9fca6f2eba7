"""`lmbatch launch`: submit a job to a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lmbatch.cli.common import config_option, json_option, print_json, set_option
from lmbatch.config import SiteConfig, TrainConfig, load_config
from lmbatch.errors import UsageError
from lmbatch.launch.contained import training_work
from lmbatch.launch.image_check import check_container
from lmbatch.launch.training import TrainingJob, plan_job, submit_job

EPILOG = """\b
Examples:
  lmbatch launch train --config configs/train/gpt2_zh.yaml --on configs/sites/example.yaml --dry-run
  lmbatch launch train --config configs/train/gpt2_zh.yaml --on configs/sites/example.yaml
  lmbatch launch train --config configs/train/demo.yaml --on configs/sites/test-cluster.yaml --nodes 2 --set steps=100

The script is the one of slurm/train_gpt2_zh.sbatch with the site's options in its head. The job requeues itself after a
preemption or its time limit, and its processes run in the container that the site file names, if it names one.
`lmbatch status`, `lmbatch logs` and `lmbatch stop` take its run folder.
"""


@click.group()
def command() -> None:
    """Submit a job to a cluster."""


@command.command(epilog=EPILOG)
@config_option
@click.option("--on", "site_path", required=True, type=click.Path(dir_okay=False), help="Site file (YAML).")
@click.option("--nodes", type=click.IntRange(min=1), help="Nodes of the job; default: what the site says.")
@click.option("--dry-run", is_flag=True, help="Show the batch script, and submit nothing.")
@set_option
@json_option
def train(
    config_path: str, site_path: str, nodes: int | None, dry_run: bool, sets: tuple[str, ...], as_json: bool
) -> None:
    """Train a config on a cluster."""
    site = load_config(SiteConfig, site_path)
    if site.executor != "slurm":
        raise UsageError(
            f"{site_path}: the executor of this site is {site.executor}", remedy="on one machine use `lmbatch train`"
        )
    asked = site.train.model_copy(update={"nodes": nodes}) if nodes else site.train
    config = load_config(TrainConfig, config_path, sets)
    if site.scratch is not None and config.data.cache.dir is None:
        sets = (*sets, f"data.cache.dir={site.scratch}/lmbatch-shards")
    contained = site.container.runtime != "none"
    job = plan_job(Path(config_path), config, asked, sets, Path(site_path) if contained else None)
    if not dry_run:
        if contained:
            whole = load_config(TrainConfig, config_path, sets)
            check_container(site.container, training_work(whole, Path(config_path), os.environ), on_node=False)
        job = submit_job(job)
    print_json(_as_dict(job)) if as_json else click.echo(job.script.rstrip() if dry_run else _in_words(job))


def _as_dict(job: TrainingJob) -> dict[str, object]:
    return {
        "job": job.id,
        "run": str(job.run),
        "log": str(job.log) if job.log else None,
        "arguments": list(job.arguments),
        "script": job.script,
    }


def _in_words(job: TrainingJob) -> str:
    return f"job {job.id} trains into {job.run}\nlog: {job.log}\nstop it for good, after saving: lmbatch stop {job.run}"
