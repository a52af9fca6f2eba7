"""The program that builds images on this machine, found and started."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine_commands import ENGINES, PACKAGES, Engine, ImageError
from podman_conf import podman_environment, this_machine

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Shop:
    """The engine in use, its environment, and the folder of this project's images."""

    engine: Engine
    state: Path
    environment: Mapping[str, str]

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: IO[bytes] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> str:
        """What it printed, where that was asked for. Raises ImageError if it is not there or does not succeed."""
        require(command[0])
        environment = dict(self.environment)
        done = subprocess.run(
            command, env=environment, text=True, check=False, stdin=stdin, stdout=stdout, stderr=stderr
        )
        if done.returncode:
            problem = f"{shlex.join(command[:2])} ended with exit code {done.returncode}"
            raise ImageError("\n".join(filter(None, (problem, done.stderr))))
        return done.stdout or ""

    def ask(self, *arguments: str) -> str:
        """What the engine answers, without white space around it."""
        return self.run([self.engine, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE).strip()

    def has(self, tag: str) -> bool:
        """Whether there is such an image on this machine."""
        command = [self.engine, "inspect", "--type", "image", tag]
        return subprocess.run(command, env=dict(self.environment), capture_output=True, check=False).returncode == 0


def open_shop(wanted: str | None, environ: Mapping[str, str]) -> Shop:
    """The engine that is asked for, or the first that works. Raises ImageError if there is none."""
    state = Path(environ.get("LMBATCH_CONTAINERS") or ROOT / "data" / "containers").resolve()
    environment = {**environ, **podman_environment(state, this_machine(), environ)}
    for engine in ENGINES:
        if wanted in (None, "", engine) and (shutil.which(engine) and _answers(engine, environment)):
            return Shop(engine, state, environment)
    ways = "; ".join(f"{name}: {PACKAGES[name]}" for name in ([wanted] if wanted else ENGINES))
    raise ImageError(f"no program that builds images is installed here, with its service running. {ways}")


def _answers(engine: Engine, environment: Mapping[str, str]) -> bool:
    """The command docker is of no use where its service does not run."""
    command = [engine, "version"] if engine == "docker" else [engine, "--version"]
    return subprocess.run(command, env=dict(environment), capture_output=True, check=False).returncode == 0


def require(program: str) -> None:
    """Raises ImageError with how to get the program if it is not there."""
    if shutil.which(program) is None:
        raise ImageError(f"{program} is not installed here. {PACKAGES.get(program, '')}".strip())


@contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lmbatch-image-") as folder:
        yield Path(folder)


def say(text: str) -> None:
    """To the terminal, at once."""
    print(f"image: {text}", flush=True)
