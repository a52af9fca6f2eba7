"""The batch script of a training job, as a pure function of the site; `slurm/train_gpt2_zh.sbatch` is one of them.

How a job ends, and what becomes of it::

    done                                      exit 0
    notice (preemption, time limit)  ─USR2─▶  every process saves, exit 75  ─▶ scontrol requeue
    a stop file, a SIGTERM to a process       saved, exit 75                ─▶ scontrol requeue
    a node dies                               Slurm requeues it by itself (--requeue)
    an error, or attempts without progress    exit 1 or 2: it stays ended
    a node fails the pre-flight check         a new job is submitted that keeps away from it, exit 1
    scancel                                   saved, cancelled: it stays ended

Only the batch shell asks for a requeue. It stays outside of the container, which needs no commands of Slurm. Whether
attempts make progress is for training itself to judge, from its ledger (train/session.py): it ends with an error then.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lmbatch.config import TrainSite

_MIB = 2**20

_BODY = """\
# The processes meet on this node, on a port of this attempt below the ephemeral range that nobody listens on.
MASTER_ADDR=$(hostname)
MASTER_PORT=$((12000 + (SLURM_JOB_ID * 16 + ${SLURM_RESTART_COUNT:-0} % 16) % 20000))
while (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done
export MASTER_ADDR MASTER_PORT
if [ -z "${SLURM_GPUS_ON_NODE:-}" ]; then export ACCELERATE_USE_CPU=true; fi

# Notice of the end (preemption, time limit) comes here: pass it on to every process, and wait until all have saved.
notice='' step=''
trap 'notice=", after notice"; [ -z "$step" ] || kill -USR2 "$step"' USR2

# What starts Python on a node: alone, or in the container of the site file. This script stays outside.
run=() check=() clean=()
if [ -n "$site" ]; then
  # Words that end with a zero byte and name their array: the shell parses none of them.
  mapfile -d '' -t words < <("$python" -m lmbatch.launch.host --site "$site" --config "$config" "$@")
  wait "$!" || [ -n "$notice" ] || exit 2
  for word in "${words[@]}"; do
    case $word in
      run:*) run+=("${word#run:}") ;;
      check:*) check+=("${word#check:}") ;;
      clean:*) clean+=("${word#clean:}") ;;
    esac
  done
fi
[ ${#run[@]} -gt 0 ] || run=("$python")

# Look at every node first. A bad one is named, and a new job keeps away from it (from no more than four of them).
if [ "${LMBATCH_PREFLIGHT:-yes}" = yes ] && [ -z "$notice" ]; then
  [ ${#check[@]} -eq 0 ] || srun --ntasks-per-node=1 "${check[@]}"
  srun "${run[@]}" -m lmbatch.train.preflight --config "$config" "$@"
  if [ -z "$notice" ] && ! bad=$("$python" -m lmbatch.train.preflight --config "$config" "$@" --judge); then
    export LMBATCH_EXCLUDED=${LMBATCH_EXCLUDED:+$LMBATCH_EXCLUDED,}$bad
    if [ -n "$bad" ] && [ "$(tr -cd , <<<"$LMBATCH_EXCLUDED" | wc -c)" -lt 4 ]; then
      sbatch --partition="$SLURM_JOB_PARTITION" --nodes="$SLURM_JOB_NUM_NODES" --exclude="$LMBATCH_EXCLUDED" "$0" "$@"
    fi
    exit 1
  fi
fi

code=75
if [ -z "$notice" ]; then
  srun --label --kill-on-bad-exit=1 "${run[@]}" -m lmbatch.train --config "$config" "$@" &
  step=$!
  [ -z "$notice" ] || kill -USR2 "$step"  # it came before the step had a number
  wait "$step"; code=$?
  while [ "$code" -gt 128 ] && kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
fi

# What a killed process leaves of a container: podman and docker keep it outside of the job.
if [ ${#clean[@]} -gt 0 ] && [ "$code" -ne 0 ] && [ "$code" -ne 75 ]; then srun --ntasks-per-node=1 "${clean[@]}"; fi

# A process that had only begun to start when the notice came has died of it instead of saving.
echo "job $SLURM_JOB_ID, attempt ${SLURM_RESTART_COUNT:-0}: exit code $code$notice"
if [ "$code" -eq 75 ] || { [ -n "$notice" ] && [ "$code" -ne 0 ]; }; then
  # A controller that is being restarted: each call waits for it for about 20 seconds.
  for _ in {1..30}; do scontrol requeue "$SLURM_JOB_ID" && break; sleep 1; done
fi
exit "$code"
"""


def training_script(
    site: TrainSite, *, name: str, config: str, python: str = "python", site_file: str | None = None
) -> str:
    """The script that trains the config file ``config`` at ``site``; its arguments go to training.

    ``site_file`` is asked for the container; without one the script looks into ``LMBATCH_SITE``.
    ``sbatch SCRIPT [--set KEY=VALUE …]``. Everything that differs between attempts comes from ``SLURM_*``.
    """
    head = [
        "#!/bin/bash",
        f"# Train {config} on several nodes. Goes on by itself after a preemption, its time limit or a dead node.",
        "#",
        "#   sbatch [OPTIONS OF SBATCH] THIS_FILE [--set KEY=VALUE …]",
        "#   LMBATCH_SITE=configs/sites/SITE.yaml sbatch …       in the container of that site",
        "#",
        *(f"#SBATCH --{option}" for option in _options(site, name)),
        "",
        *site.setup,  # before `set -u`, which the shell functions of many sites do not bear
        "set -u",
        f"python={shlex.quote(python)}",
        f"config={shlex.quote(config)}",
        "site=${LMBATCH_SITE:-}  # a site file, for its container"
        if site_file is None
        else f"site={shlex.quote(site_file)}",
        "",
    ]
    return "\n".join(head) + "\n" + _BODY


def _options(site: TrainSite, name: str) -> Sequence[str]:
    """Options of sbatch(1) by their long names."""
    named = ("partition", "account", "qos", "constraint", "exclude")
    chosen = {key: getattr(site, key) for key in named if getattr(site, key) is not None}
    options: dict[str, str | bool] = {
        "job-name": name,
        **chosen,
        "nodes": str(site.nodes),
        "ntasks-per-node": str(site.processes_per_node),
        **({"gpus-per-node": str(site.gpus_per_node)} if site.gpus_per_node else {}),
        "cpus-per-task": str(site.cpus_per_process),
        **({"mem": f"{site.memory // _MIB}M"} if site.memory else {}),
        "time": str(site.minutes),
        "requeue": True,
        "open-mode": "append",
        "signal": f"B:USR2@{site.notice_seconds}",
        "output": "%x-%j.log",
        **site.options,
    }
    return [key if value is True else f"{key}={value}" for key, value in options.items() if value is not False]
