"""The demo: the whole of lmbatch on one machine, with real Chinese text, a real S3 server and real kills.

Corpus → tokenizer → shards in object storage → verified → trained without interruption, and again with a SIGTERM and
a kill -9 on the way → both curves compared bit for bit → exported → text. Run it again: what is done stays done.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.story import (
    BIN,
    Story,
    endings,
    lmbatch,
    lmbatch_json,
    load_with_transformers,
    print_story,
    set_environment,
    shards_sentence,
    status_sentence,
)
from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import last_step, read_metrics

ROOT = Path(__file__).resolve().parent.parent
S3_STATE = "data/demo-s3"
STORE = "s3://lmbatch/demo"
STRAIGHT, INTERRUPTED = "demo-straight", "demo-interrupted"
PROMPTS = ("第一条 为了", "话说曹操")
STOP_AT, KILL_AT = 230, 450  # steps; checkpoints are made every 100


def main() -> int:
    """Tell the story; 0 only if everything that is shown was seen."""
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the S3 server is stopped in any case
    set_environment()
    story = Story()
    with story.stage("corpus in WuDao's shape") as say:
        say(lmbatch("corpus", "fetch", "demo"))
    with story.stage("tokenizer: byte-level BPE") as say:
        say(lmbatch("tokenizer", "train", "--config", "configs/tokenizers/demo_bpe.yaml"))
    with s3_server():
        with story.stage("shards into object storage") as say:
            facts = lmbatch_json("preprocess", "--config", "configs/corpora/demo.yaml", "--store", STORE)
            say(shards_sentence(facts))
        with story.stage("verify every byte") as say:
            say(lmbatch("verify", STORE))
        with story.stage("training, straight") as say:
            if endings(STRAIGHT) != ["finished"]:  # a reference that was itself interrupted would prove nothing
                forget(STRAIGHT)
                train_to_the_end(STRAIGHT)
            say(status_sentence(STRAIGHT))
        with story.stage("training, SIGTERM, kill -9") as say:
            if endings(INTERRUPTED) != ["stopped", "died without notice", "finished"]:
                forget(INTERRUPTED)
                train_with_interruptions(INTERRUPTED)
            say(status_sentence(INTERRUPTED))
    print(lmbatch("status", f"runs/{INTERRUPTED}"))
    with story.stage("compare, bit for bit") as say:
        compared = lmbatch("compare", f"runs/{STRAIGHT}", f"runs/{INTERRUPTED}")
        print(compared)
        say("; ".join(compared.splitlines()[1:3]))
    with story.stage("export") as say:
        say(lmbatch("export", f"runs/{INTERRUPTED}", "--out", "data/export/demo"))
        say(load_with_transformers("data/export/demo"))
    with story.stage("text") as say:
        options = [part for prompt in PROMPTS for part in ("-p", prompt)]
        text = lmbatch("generate", "data/export/demo", *options, "--max-new-tokens", "80", "--top-k", "20")
        say(f"{len(PROMPTS)} prompts continued")
    print(f"\n{text}\n")
    print_story(story)
    return 0


@contextmanager
def s3_server() -> Iterator[None]:
    """The project's own S3 server, for as long as the demo needs it; its environment becomes ours."""
    script = [sys.executable, "cluster/s3_server.py"]
    subprocess.run([*script, "start", "--state", S3_STATE], check=True)
    try:
        exports = subprocess.run([*script, "env", "--state", S3_STATE], check=True, stdout=subprocess.PIPE, text=True)
        for line in exports.stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value.strip("'\"")
        yield
    finally:
        subprocess.run([*script, "stop", "--state", S3_STATE], check=False)


def launch_training(run: str) -> subprocess.Popen[bytes]:
    """The very command that a user types."""
    command = [str(BIN / "accelerate"), "launch", "--config_file", "configs/accelerate/cpu.yaml", "-m", "lmbatch.train"]
    command += ["--config", "configs/train/demo.yaml", "--set", f"run.name={run}", "--set", f"data.store={STORE}"]
    return subprocess.Popen(command)


def train_to_the_end(run: str) -> None:
    """One launch, nothing happens to it."""
    code = launch_training(run).wait()
    if code != 0:
        raise SystemExit(f"demo: training {run} ended with {code}")


def train_with_interruptions(run: str) -> None:
    """SIGTERM to the launcher, later kill -9 to the training process, and each time the same command again."""
    launcher = launch_training(run)
    wait_for(lambda: step_of(run) >= STOP_AT, launcher)
    print(f"demo: SIGTERM to the launcher (pid {launcher.pid}) at step {step_of(run)}", flush=True)
    launcher.send_signal(signal.SIGTERM)
    launcher.wait()
    wait_for(lambda: endings(run) == ["stopped"])
    launcher = launch_training(run)
    wait_for(lambda: step_of(run) >= KILL_AT, launcher)
    victim = read_attempts(Path("runs") / run)[-1].pid
    print(f"demo: kill -9 to the training process (pid {victim}) at step {step_of(run)};", flush=True)
    print("demo: the traceback that follows is accelerate's launcher saying that its child was killed", flush=True)
    os.kill(victim, signal.SIGKILL)
    launcher.wait()
    train_to_the_end(run)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Poll until the condition holds; give up when the process has ended or after ten minutes."""
    deadline = time.monotonic() + 600
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise SystemExit("demo: the training ended, or stood still, before it could be interrupted")
        time.sleep(0.1)


def step_of(run: str) -> int:
    """The last step that the run has logged."""
    return last_step(read_metrics(Path("runs") / run))


def forget(run: str) -> None:
    """Remove a run of the demo, so that it is told from its beginning."""
    shutil.rmtree(Path("runs") / run, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
