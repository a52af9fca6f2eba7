"""The command line of the storm."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.checkpoint_storm.disk import SmallDisk, own_mounts
from support.checkpoint_storm.run import Surroundings
from support.checkpoint_storm.storm import Result, Storm, drawn, fixed
from support.checkpoint_storm.table import summary, table
from support.fault_proxy import FaultProxy
from support.scripts import ROOT, load_script
from support.tiny_corpus import write_corpus

_EXAMPLES = """\
examples:
  make test-storm                                  150 faults, seed drawn and printed
  make test-storm SEED=7 RUNS=500
  python -m support.checkpoint_storm --seed 7 --only 41    run 41 of that storm again; what it leaves is kept
  python -m support.checkpoint_storm --short --fault "disk full" --fault flip

exit codes:  0 every resume was right, or refused with its reason   1 at least one was not
"""
MEMORY_KIB = 1 << 20


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m support.checkpoint_storm",
        description="Cause faults in tiny training runs, and compare what they come to with an undisturbed run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="decides everything but moments in time (default: drawn, and printed)")
    parser.add_argument("--runs", type=int, default=150, help="how many runs, each with a fault (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="each fault once, none that a clock decides; seed 0")
    parser.add_argument("--fault", action="append", default=[], metavar="WORD", help="with --short: only such faults")
    parser.add_argument("--only", type=int, metavar="N", help="only run N of the storm with this seed")
    parser.add_argument("--json", action="store_true", help="print a summary for programs instead of the table")
    parser.add_argument(
        "--verbose", action="store_true", help="tell of each run, and not only of those that went wrong"
    )
    return parser.parse_args()


@contextmanager
def _surroundings(folder: Path, *, mounts: bool) -> Iterator[Surroundings]:
    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(folder / "s3")
    server.start()
    os.environ.update(server.settings.environment)
    try:
        with FaultProxy(server.settings.endpoint, patience=3.0) as proxy:
            yield Surroundings.around(write_corpus(folder / "corpus"), server.settings.uri, proxy, mounts=mounts)
    finally:
        server.kill()
        server.stop(wipe=True)


def _tell(result: Result, runs: int, *, verbose: bool) -> None:
    if sys.stderr.isatty() or not result.good or verbose:
        line = f"{result.number + 1}/{runs} {result.fault}: {result.outcome} ({result.seconds:.1f} s)"
        sys.stderr.write(line + (f"\n{result.detail}\n" if result.detail else "\n"))


def main() -> int:
    """Rage, and tell what came of it."""
    options, mounts = _options(), own_mounts()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the S3 server must not be left behind
    seed = 0 if options.short else secrets.randbelow(10**6) if options.seed is None else options.seed
    chosen = fixed(options.fault) if options.short else drawn(seed, options.runs)
    if options.only is not None:
        chosen = [(number, fault) for number, fault in chosen if number == options.only]
    sys.stderr.write(f"seed {seed}, {len(chosen)} runs\n")
    started, results = time.monotonic(), []
    with _scratch(mounts=mounts) as folder:
        with _surroundings(folder, mounts=mounts) as around:
            for result in Storm(around, folder, seed).rage(chosen):
                _tell(result, len(chosen), verbose=options.verbose)
                results.append(result)
            found = summary(results, seed, time.monotonic() - started, around.cpu_seconds())
        _keep(folder, [str(result.number) for result in results if not result.good])
    answers.write((json.dumps(found, ensure_ascii=False, indent=1) if options.json else table(results)) + "\n")
    answers.close()
    wrong, took = len(found["wrong"]), f"{found['seconds']} s ({found['cpu_seconds']} s of a core)"
    sys.stderr.write(f"{len(results)} runs, {found['attempts']} attempts, {took}, {wrong} wrong\n")
    return 1 if wrong else 0


@contextmanager
def _scratch(*, mounts: bool) -> Iterator[Path]:
    """In memory if that is to be had: a process that is killed loses nothing by that, and fsync costs nothing."""
    folder = Path(tempfile.mkdtemp(prefix="lmbatch-storm-"))
    disk = SmallDisk(folder, MEMORY_KIB) if mounts else None
    try:
        yield folder
    finally:
        if disk is not None:
            disk.close()
        shutil.rmtree(folder, ignore_errors=True)


def _keep(folder: Path, names: Sequence[str]) -> None:
    if not names:
        return
    kept = Path(tempfile.mkdtemp(prefix="lmbatch-storm-wrong-"))
    for name in names:
        shutil.copytree(folder / name, kept / name, symlinks=True)
    sys.stderr.write(f"what they left: {kept}\n")


if __name__ == "__main__":
    sys.exit(main())
