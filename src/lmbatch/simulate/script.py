"""What the batch shell does after an attempt: the real script is asked, with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lmbatch.config import TrainSite
from lmbatch.errors import SchedulerError
from lmbatch.launch.sbatch import training_script

_SECONDS = 60.0
# srun trains, or looks at the nodes; a notice comes to the shell while it trains. python judges what was looked at.
_STAND_INS = {
    "srun": """trap : USR2
case "$*" in *preflight*) exit 0 ;; esac
[ -z "$SIMULATED_NOTICE" ] || { kill -USR2 "$PPID"; sleep 0.2; }
exit "$SIMULATED_CODE"
""",
    "python": 'printf %s "$SIMULATED_BAD"; [ -z "$SIMULATED_BAD" ]\n',
    "scontrol": 'echo "$@" >> asked\n',
    "sbatch": 'echo "sbatch $LMBATCH_EXCLUDED" >> asked\n',
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``requeued``: the same job again; ``resubmitted``: a new job, which keeps away from the nodes named bad."""

    requeued: bool
    resubmitted: bool
    exit_code: int


class BatchScript:
    """The script of a site. Each question is put to it once; the answer to the same one is the same."""

    def __init__(self, site: TrainSite) -> None:
        # What a site sets up is for its own nodes, and is not what is asked about.
        self._text = training_script(site.model_copy(update={"setup": ()}), name="simulated", config="simulated.yaml")
        self._known: dict[tuple[int, bool, str, str], Verdict] = {}

    def after(self, exit_code: int, *, notice: bool = False, bad: str = "", excluded: str = "") -> Verdict:
        """Training ended with ``exit_code``, or the pre-flight check named the nodes ``bad``, after ``excluded``.

        Raises SchedulerError if the script cannot be run here.
        """
        question = (exit_code, notice, bad, excluded)
        if question not in self._known:
            self._known[question] = self._ask(*question)
        return self._known[question]

    def _ask(self, exit_code: int, notice: bool, bad: str, excluded: str) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="lmbatch-simulation-") as name:
            folder = Path(name)
            for program, body in _STAND_INS.items():
                path = folder / program
                path.write_text(f"#!/bin/bash\n{body}", encoding="utf-8")
                path.chmod(0o700)
            environ = {
                "PATH": f"{folder}{os.pathsep}{os.defpath}", "SLURM_JOB_ID": "1", "SLURM_JOB_PARTITION": "simulated",
                "SLURM_JOB_NUM_NODES": "1", "SIMULATED_CODE": str(exit_code),
                "SIMULATED_NOTICE": "yes" if notice else "", "SIMULATED_BAD": bad,
                **({"LMBATCH_EXCLUDED": excluded} if excluded else {}),
            }  # fmt: skip
            try:
                done = subprocess.run(
                    ["bash", "-s"], input=self._text, env=environ, cwd=folder, capture_output=True, text=True,
                    check=False, timeout=_SECONDS,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SchedulerError(
                    f"the batch script cannot be run: {error}", remedy="a simulation of training needs bash"
                ) from None
            asked = (folder / "asked").read_text(encoding="utf-8") if (folder / "asked").exists() else ""
        return Verdict("requeue 1" in asked, "sbatch" in asked, done.returncode)
