"""Training under an accelerate config without accelerate's launcher in between.

`accelerate launch` starts the training as a child, passes no signal on and turns exit code 75 into 1. Here the calling
process sets the same environment and *becomes* the training process, so that signals and exit codes are exact.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lmbatch.config.load import parse_yaml
from lmbatch.errors import ConfigError, LaunchError
from lmbatch.train.parent import NO_LAUNCHER

# Of these, `enable_cpu_affinity` has no effect in accelerate 1.15, which takes it from the command line alone.
_KNOWN = {
    "compute_environment", "debug", "distributed_type", "downcast_bf16", "dynamo_config", "enable_cpu_affinity",
    "gpu_ids", "machine_rank", "main_training_function", "mixed_precision", "num_machines", "num_processes",
    "rdzv_backend", "same_network", "tpu_env", "tpu_use_cluster", "tpu_use_sudo", "use_cpu",
}  # fmt: skip
_PRECISIONS = ("no", "fp16", "bf16")


def launch_environment(config_file: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that `accelerate launch --config_file config_file` would set for its one process.

    ``environ`` is the environment that they are added to (default: this process's). The names and rules are those of
    ``prepare_simple_launcher_cmd_env`` in accelerate/utils/launch.py (1.15).
    Raises ConfigError for a file that accelerate would refuse, LaunchError for one that wants several processes.
    """
    config = _read(config_file)
    cpu = bool(config.get("use_cpu", False))
    result = {
        "ACCELERATE_USE_CPU": str(cpu),
        "ACCELERATE_MIXED_PRECISION": _precision(config, config_file),
        "OMP_NUM_THREADS": _threads(cpu, os.environ if environ is None else environ),
        **_dynamo(config),
    }
    if config.get("debug"):
        result["ACCELERATE_DEBUG_MODE"] = "true"
    if config.get("gpu_ids", "all") not in ("all", None):
        result["CUDA_VISIBLE_DEVICES"] = str(config["gpu_ids"])
    if cpu:
        result |= {"KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
    return result


def exec_training(config_file: Path, arguments: Sequence[str]) -> NoReturn:
    """Become ``python -m lmbatch.train ARGUMENTS`` under an accelerate config. Does not return.

    Raises what ``launch_environment`` raises.
    """
    environ = {**os.environ, **launch_environment(config_file), NO_LAUNCHER: "1"}
    os.execve(sys.executable, [sys.executable, "-m", "lmbatch.train", *arguments], environ)  # noqa: S606


def _read(path: Path) -> dict[str, Any]:
    try:
        config = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the accelerate config cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: holds no accelerate config", remedy="see configs/accelerate/")
    if unknown := sorted(set(config) - _KNOWN):
        raise ConfigError(
            f"{path}: not a setting for one process: {', '.join(unknown)}", remedy="remove it, or use accelerate launch"
        )
    _refuse_several(config, path)
    return config


def _refuse_several(config: Mapping[str, Any], path: Path) -> None:
    kind = str(config.get("distributed_type"))
    processes, machines = int(config.get("num_processes", 1)), int(config.get("num_machines", 1))
    if kind != "NO" or processes != 1 or machines != 1:
        raise LaunchError(
            f"{path}: asks for {kind} with {processes} processes on {machines} machines; this starts one process",
            remedy=f"use: accelerate launch --config_file {path} -m lmbatch.train …",
        )


def _precision(config: Mapping[str, Any], path: Path) -> str:
    value = config.get("mixed_precision")
    # YAML 1.1 reads an unquoted no as false.
    name = "no" if value in (None, False) else str(value).lower()
    if name not in _PRECISIONS:
        raise ConfigError(f"{path}: mixed_precision {value!r}", remedy=f"use one of {', '.join(_PRECISIONS)}")
    return name


def _threads(cpu: bool, environ: Mapping[str, str]) -> str:
    given = environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return given
    if not cpu:
        return "1"
    import psutil  # type: ignore[import-untyped]  # comes with accelerate; a login node needs neither

    return str(max(1, psutil.cpu_count(logical=False) or 1))


def _dynamo(config: Mapping[str, Any]) -> dict[str, str]:
    given = {str(key).removeprefix("dynamo_"): value for key, value in (config.get("dynamo_config") or {}).items()}
    result = {
        "ACCELERATE_DYNAMO_BACKEND": str(given.get("backend", "no")).upper(),
        "ACCELERATE_DYNAMO_MODE": str(given.get("mode", "default")),
    }
    for name in ("use_fullgraph", "use_dynamic", "use_regional_compilation"):
        result[f"ACCELERATE_DYNAMO_{name.upper()}"] = str(given.get(name, False))
    return result
