"""The config of a site: where its work runs, and what is asked for. Nothing here changes one byte of a result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmbatch.config.base import Bytes, Section
from lmbatch.config.container import ContainerSite


class JobSite(Section):
    """What every job of a Slurm cluster may ask for."""

    partition: str | None = Field(None, description="Partition; by default the cluster's own.")
    account: str | None = Field(None, description="Account to charge.")
    qos: str | None = Field(None, description="Quality of service.")
    constraint: str | None = Field(None, description="Features that a node must have.")
    exclude: str | None = Field(None, description="Nodes to keep away from.")
    options: dict[str, str | bool] = Field(
        default_factory=dict, description="More options of sbatch, by their long names without dashes; true: a flag."
    )
    setup: tuple[str, ...] = Field((), description="Shell lines before the work, for example `module load python`.")


class SlurmSite(JobSite):
    """Array jobs of a Slurm cluster. An element of an array does one batch of tasks, one after the other."""

    python: str | None = Field(None, description="Python on the nodes; by default the driver's own, by its path.")
    max_parallel: int = Field(64, ge=1, description="Elements that run at a time, over all arrays of a run.")
    max_submitted: int | None = Field(
        None, ge=1, description="Elements in the queue at a time; by default what the cluster allows."
    )
    cpus: int = Field(1, ge=1, description="Cores for an element; one is what it uses.")
    memory: Bytes = Field(2 * 2**30, description="Memory for an element.")
    max_memory: Bytes | None = Field(
        None,
        description="Tasks whose element ran out of memory are submitted again with twice as much, up to this; "
        "default: four times `memory`. No more than `memory`: never.",
    )
    batch_bytes: Bytes = Field(
        2**30, description="Small tasks share an element up to this much input, if enough elements are left to run."
    )
    # submitit takes every signal for a timeout where the limit is below ten minutes.
    minutes: int = Field(30, ge=15, description="Time limit of an element, apart from its input.")
    minutes_per_gib: float = Field(60.0, ge=0, description="More time for each GiB of input.")
    poll_seconds: float = Field(10.0, gt=0, description="How often the queue is looked at (one squeue for all).")


class TrainSite(JobSite):
    """A training job on a Slurm cluster: one process for each GPU, or for each task on nodes without one."""

    python: str | None = Field(None, description="Python on the nodes; by default the one that submits.")
    nodes: int = Field(2, ge=1, description="Nodes of a job.")
    processes_per_node: int = Field(1, ge=1, description="Processes on a node: as many as it has GPUs.")
    gpus_per_node: int = Field(0, ge=0, description="GPUs asked for on each node; 0: train on CPUs.")
    cpus_per_process: int = Field(1, ge=1, description="Cores for a process, its loader's thread included.")
    memory: Bytes | None = Field(None, description="Memory of a node for the job; by default the cluster's rule.")
    device: str | None = Field(
        None, description="The GPU of the nodes, such as `A100 80` or `RTX 3090`, for `lmbatch plan train`."
    )
    preemptions_per_day: float = Field(
        0.0, ge=0, description="How often a job is interrupted, for `lmbatch plan train`."
    )
    write_speed: Bytes | None = Field(
        None, description="Bytes per second that the disk of the run folders takes, for `lmbatch plan train`."
    )
    upload_speed: Bytes | None = Field(None, description="Bytes per second to `save.store`, for `lmbatch plan train`.")
    minutes: int = Field(1440, ge=1, description="Time limit of one attempt; the job goes on in the next one.")
    notice_seconds: int = Field(
        120, ge=10, description="Notice before the time limit: a step and a save must fit in, and Slurm looks at time "
        "limits about every 30 s only."
    )  # fmt: skip


class SiteConfig(Section):
    """A site config: `lmbatch preprocess --site configs/sites/NAME.yaml`."""

    name: str = Field(description="Name of the site.")
    executor: Literal["local", "slurm"] = Field("local", description="Where tasks run, unless `--on` says otherwise.")
    workers: int | None = Field(None, ge=1, description="Processes at a time on one machine; default: its cores.")
    store: str | None = Field(
        None, description="Where corpora go by default: shards of the corpus NAME into STORE/NAME (file:// or s3://)."
    )
    scratch: str | None = Field(
        None, description="A fast disk of each node: shards on their way to the store, and the cache of training, lie "
        "there by default."
    )  # fmt: skip
    slurm: SlurmSite = SlurmSite()
    train: TrainSite = TrainSite()
    container: ContainerSite = ContainerSite()
