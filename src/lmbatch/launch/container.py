"""From a site's container section to the words that stand before a Python module: one pure function.

::

    ContainerSite + ContainerWork ──container_prefix──▶ (…, python)      then  -m lmbatch.…

Every prefix ends with the image's Python. It goes where a command goes, after the options of srun: that of pyxis, which
is a plugin of srun, begins with more of them. The rules that all runtimes follow:

- **Paths** are the same inside and outside, so that configs, ledgers and receipts mean the same everywhere.
- **The environment** goes by name or by inheritance; no value is on a command line, which any user of a node can
  read.
- **Signals reach Python itself**: no shell stands before it inside, and it is never process 1, for which Linux drops a
  signal that has no handler yet (podman and docker share the node's process numbers; the others always do).
- **Its exit code is the command's.**
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lmbatch.config import ContainerSite
from lmbatch.errors import ContainerError

# What Slurm, the batch script and accelerate tell a process about its place.
_PLACE = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION",
    "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NODELIST", "SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_GPUS_ON_NODE", "SLURM_CPUS_PER_TASK",
    "SLURMD_NODENAME", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES",
    "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION",
)  # fmt: skip
_SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "SWANLAB_API_KEY",
)  # fmt: skip
# An image may set these for itself: the user's win.
_SETTINGS = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "HF_HOME",
    "HF_HUB_OFFLINE", "HF_ENDPOINT", "WANDB_MODE", "SWANLAB_MODE", "LMBATCH_DEBUG", "OMP_NUM_THREADS", "NCCL_DEBUG",
    "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_DISABLE", "GLOO_SOCKET_IFNAME", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "XDG_CACHE_HOME", "TORCH_EXTENSIONS_DIR",
)  # fmt: skip
# Of the host's Python and libraries, which are not the image's.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder (or file) of the host, and where it lies inside."""

    source: Path
    inside: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ContainerWork:
    """What is to run inside.

    ``folders`` are absolute, and lie under the same paths inside; so do those in ``written``, which the work writes to,
    and the folders of ``caches``, which are the values of the variables that they are named by. ``code`` is the folder
    that holds the host's package ``lmbatch``, used where the site says so. ``gpus`` is that of a node. ``user`` is
    ``uid:gid`` on the host, and ``login`` that user's name; ``rootless`` tells whether the runtime's engine runs as an
    ordinary user. ``memory`` is the job's on a node, in bytes; None: there is no limit. With a ``name``
    the caller sees to the container's end (`removing_command`) and holds its standard input; without one a keeper does.
    """

    cwd: Path
    folders: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()
    caches: tuple[tuple[str, Path], ...] = ()
    code: Path | None = None
    gpus: int = 0
    user: str = "0:0"
    login: str = ""
    rootless: bool = False
    memory: int | None = None
    name: str | None = None


def container_prefix(site: ContainerSite, work: ContainerWork) -> tuple[str, ...]:
    """What stands before ``-m MODULE``; empty where work runs outside of any container."""
    if site.runtime == "none":
        return ()
    build = {"pyxis": _pyxis, "apptainer": _apptainer, "charliecloud": _charliecloud}.get(site.runtime, _engine)
    return (*build(site, work), site.python)


def mounts_of(site: ContainerSite, work: ContainerWork) -> tuple[Mount, ...]:
    """Everything that is mounted, outer folders first; a folder that lies in another mounted one is there anyway.

    Raises ContainerError for a path that no runtime can be told.
    """
    code = (work.code,) if site.code and work.code else ()
    paths = (work.cwd, *work.folders, *work.written, *(path for _, path in work.caches), *code)
    for path in paths:
        if set(str(path)) & set(":,"):
            raise ContainerError(f"{path}: a path with a colon or a comma cannot be mounted", remedy="rename it")
    own = [Mount(path, path) for path in outermost(paths)]
    return (*own, *(_parsed(text) for text in site.mounts))


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie in another one of them."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def passed_names(site: ContainerSite) -> tuple[str, ...]:
    """Names of the variables that reach the inside, each once."""
    return tuple(dict.fromkeys((*_PLACE, *_SECRETS, *_SETTINGS, *site.environment)))


def cleaning_command(site: ContainerSite) -> tuple[str, ...]:
    """What removes the containers that a killed step of this job has left on a node; empty where none can be left.

    The processes of podman and docker are no children of the command that started them: Slurm's SIGKILL passes by.
    """
    if site.runtime not in ("podman", "docker"):
        return ()
    each = 'for name in $(containers_of "$SLURM_JOB_ID"); do remove "$name"; done'
    return ("bash", "-c", f"{_script('removing')}\nruntime=$1\n{each}", "lmbatch", site.runtime)


def removing_command(site: ContainerSite, work: ContainerWork) -> tuple[str, ...]:
    """What removes the container with the work's name, if it is there; empty where none can be left.

    It ends when the container is gone, or after a minute with a word on standard error.
    """
    if site.runtime not in ("podman", "docker") or not work.name:
        return ()
    return ("bash", "-c", f'{_script("removing")}\nruntime=$1\nremove "$2"', "lmbatch", site.runtime, work.name)


def job_memory(environ: Mapping[str, str]) -> int | None:
    """The memory that Slurm gives this job on a node, in bytes (``--mem`` of sbatch; 0 there means all: no limit)."""
    return int(environ.get("SLURM_MEM_PER_NODE") or 0) * 2**20 or None


def _parsed(text: str) -> Mount:
    source, inside, *flags = text.split(":")
    return Mount(Path(source), Path(inside), flags == ["ro"])


def _given(site: ContainerSite, work: ContainerWork) -> dict[str, str]:
    """Variables with a value of our own; none is secret."""
    code = {"PYTHONPATH": str(work.code)} if site.code and work.code else {}
    return {"PYTHONNOUSERSITE": "1", **code, **{name: str(path) for name, path in work.caches}}


def _foreign(site: ContainerSite, work: ContainerWork) -> list[str]:
    return [name for name in _FOREIGN if name not in site.environment and name not in _given(site, work)]


def _pyxis(site: ContainerSite, work: ContainerWork) -> list[str]:
    """Options of srun that NVIDIA's plugin adds (pyxis 0.15 or later for --container-env).

    All exported variables pass, but those that the image sets too must be named. enroot's hook adds the GPUs. Without
    ``--container-writable`` there may be no place for temporary files; what is written is gone with the job.
    """
    mounts = ",".join(
        f"{mount.source}:{mount.inside}{':ro' if mount.read_only else ''}" for mount in mounts_of(site, work)
    )
    return [
        f"--container-image={site.image}",
        f"--container-mounts={mounts}",
        f"--container-workdir={work.cwd}",
        f"--container-env={','.join(dict.fromkeys((*_SETTINGS, *site.environment)))}",
        "--no-container-mount-home",
        "--no-container-entrypoint",
        "--container-writable",
        *site.options,
        "env",
        *(f"--unset={name}" for name in _foreign(site, work)),
        *(f"{name}={value}" for name, value in _given(site, work).items()),
    ]


def _apptainer(site: ContainerSite, work: ContainerWork) -> list[str]:
    """``apptainer exec``: the environment is inherited, the network and the process numbers are the node's.

    No ``--containall`` and no ``--pid``, which put a small init before Python and hide Slurm's variables.
    """
    binds = [
        part for mount in mounts_of(site, work)
        for part in ("--bind", f"{mount.source}:{mount.inside}{':ro' if mount.read_only else ''}")
    ]  # fmt: skip
    return [
        "apptainer", "exec", "--no-home", "--writable-tmpfs", *(["--nv"] if work.gpus else []), *binds,
        "--pwd", str(work.cwd), *site.options, str(site.image),
        "env", *(f"--unset={name}" for name in _foreign(site, work) if name != "LD_LIBRARY_PATH"),
        *(f"{name}={value}" for name, value in _given(site, work).items()),
    ]  # fmt: skip


def _charliecloud(site: ContainerSite, work: ContainerWork) -> list[str]:
    """``ch-run`` becomes the process itself. ``--set-env`` reads the image's own variables from its /ch/environment.

    The node's /tmp is there anyway, and nothing can be mounted in it; with TMPDIR set another folder would take its
    place. There is no read-only bind: the flag is refused before (image_check). ``ch-fromhost`` has put the libraries
    of the GPUs into the image. Without USER, which a job need not have, it refuses to start.
    """
    binds = [
        f"--bind={mount.source}:{mount.inside}" for mount in mounts_of(site, work)
        if not mount.inside.is_relative_to("/tmp")  # noqa: S108
    ]  # fmt: skip
    return [
        "env", "--unset=TMPDIR", *([f"USER={work.login}"] if work.login else []),
        "ch-run", *(f"--unset-env={name}" for name in _foreign(site, work)), "--set-env",
        *(f"--set-env={name}={value}" for name, value in _given(site, work).items()),
        *binds, f"--cd={work.cwd}", *site.options, str(site.image), "--",
    ]  # fmt: skip


def _engine(site: ContainerSite, work: ContainerWork) -> list[str]:
    """podman and docker: a keeper on the host waits for the container and sees to it that none is left behind.

    ``--mount`` refuses a source that is not there; ``--volume`` of docker would make an empty one. Both put the
    container into a control group of its own, outside of the job's, so that the job's limit must be told to them.
    (podman without a group, ``--cgroups=disabled``, would want process numbers of its own, and Python as process 1.)
    An ordinary user's podman may have no right to set one, and then refuses to start: it gets none.
    """
    shm = f"--shm-size={site.shm}" if site.shm else "--ipc=host"
    gpus = {"podman": "--device=nvidia.com/gpu=all", "docker": "--gpus=all"}[site.runtime] if work.gpus else None
    podman = site.runtime == "podman"
    named = [site.runtime, "run", "--interactive", f"--name={work.name}", "--rm"]
    start = named if work.name else ["bash", "-c", keeper(), "lmbatch", site.runtime]
    user = "--userns=keep-id" if podman and work.rootless else f"--user={work.user}"
    memory = None if podman and work.rootless else work.memory
    return [
        *start, "--network=host", "--pid=host", shm, *([f"--memory={memory}"] if memory else []), user,
        "--entrypoint=", "--log-driver=none", "--security-opt=label=disable",
        *(["--ulimit=host"] if podman else []), *([gpus] if gpus else []),
        *(f"--mount=type=bind,source={mount.source},destination={mount.inside}{',readonly' if mount.read_only else ''}"
          for mount in mounts_of(site, work)),
        f"--workdir={work.cwd}",
        *(f"--env={name}" for name in passed_names(site) if name not in _given(site, work)),
        *(f"--env={name}={value}" for name, value in _given(site, work).items()),
        *site.options, str(site.image),
    ]  # fmt: skip


def keeper() -> str:
    """The bash script that runs podman or docker for one task of a job."""
    return f"{_script('removing')}\n{_script('keeper')}"


def _script(name: str) -> str:
    return resources.files("lmbatch.launch").joinpath(f"{name}.sh").read_text(encoding="utf-8")
