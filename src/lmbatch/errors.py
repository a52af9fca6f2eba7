"""The exception tree, and the exit code that belongs to each branch.

Every message says what failed, where (file, byte, record, key), and what to do about it.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: stopped after saving, run me again


class LmbatchError(Exception):
    """Base of every error that lmbatch raises on purpose.

    ``remedy`` is the sentence that tells the user what to do; it is printed on a line of its own.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


class ConfigError(LmbatchError):
    """A config file, a ``--set`` or a combination of settings is wrong."""

    exit_code = EXIT_USAGE


class UsageError(LmbatchError):
    """A command was called in a way that cannot work."""

    exit_code = EXIT_USAGE


_EXTRAS = {
    "obstore": "s3",
    "rensa": "dedup",
    "torch": "train",
    "transformers": "train",
    "accelerate": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "swanlab": "tracking",
    "wandb": "tracking",
    "gradio": "chat",
    "deepspeed": "deepspeed",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}


def missing_package(error: ModuleNotFoundError) -> UsageError:
    """What a user is told whose installation lacks the package that an import asked for."""
    package = (error.name or "").partition(".")[0]
    extra = f"[{_EXTRAS[package]}]" if package in _EXTRAS else ""
    return UsageError(
        f"this needs the package {package}, which is not installed", remedy=f"pip install 'lmbatch{extra}'"
    )


# ── store ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class StoreError(LmbatchError):
    """A store did not do what was asked, after every retry."""


class ObjectNotFoundError(StoreError):
    """There is no object of that name."""


class StoreAccessError(StoreError):
    """The store refused the credentials, or there are none."""


class ClockError(StoreError):
    """The store refused a request because its time of day is too far from the store's own."""


class StoreFullError(StoreError):
    """No space is left where the bytes should go."""


class UnsafeStoreError(StoreError):
    """The store ignores conditional writes, so publish-once would silently overwrite."""


# ── corpus, tokens, shards ───────────────────────────────────────────────────────────────────────────────────────────
class CorpusError(LmbatchError):
    """An input file cannot be read as the format that its corpus names."""


class InputMissingError(CorpusError):
    """There is no input where the corpus says it should be."""

    exit_code = EXIT_USAGE


class InputChangedError(CorpusError):
    """An input file is no longer the one that was planned."""


class ErrorBudgetError(CorpusError):
    """More records had to be set aside than the budget allows."""


class TokenizerError(LmbatchError):
    """A tokenizer folder is unusable, or is not the one that wrote the shards."""


class VocabularyError(TokenizerError):
    """A token id does not fit the dtype of the shards or the vocabulary of the model."""


class ShardError(LmbatchError):
    """A shard's bytes are not what its index or receipt says."""


# ── preprocess ───────────────────────────────────────────────────────────────────────────────────────────────────────
class PlanError(LmbatchError):
    """A plan cannot be made, or the store holds another one."""


class TaskError(LmbatchError):
    """A preprocessing task failed for good."""


class SchedulerError(LmbatchError):
    """The cluster's scheduler refused what was asked, or cannot be reached."""


class ContainerError(LmbatchError):
    """Work cannot run in the container that the site file names."""

    exit_code = EXIT_USAGE


# ── checkpoint, training, inference ──────────────────────────────────────────────────────────────────────────────────
class CheckpointError(LmbatchError):
    """A checkpoint cannot be written, or the one that was named is not valid."""


class ResumeError(CheckpointError):
    """A run cannot go on from its checkpoints, for the reason given."""


class RunBusyError(LmbatchError):
    """Another process is training into the same run folder."""


class NoProgressError(LmbatchError):
    """A job was requeued again and again and saved no new step."""


class NonFiniteLossError(LmbatchError):
    """The loss or the gradient became NaN or infinite."""


class LossSpikeError(LmbatchError):
    """The loss or the gradient norm jumped far above that of the steps before."""


class LaunchError(LmbatchError):
    """The processes that were started are not the ones that were asked for."""


class GenerationError(LmbatchError):
    """A text could not be generated, although what was asked for was right."""


class QueueFullError(GenerationError):
    """Too many wait already, or the service is stopping (``closing``)."""

    def __init__(self, message: str, *, closing: bool = False) -> None:
        super().__init__(message, remedy=None if closing else "try again in a moment")
        self.closing = closing


class DeadlineError(GenerationError):
    """A text was not ready in the time that its request was given."""


class StopRequested(LmbatchError):  # noqa: N818  (a request, not an error)
    """Work was stopped on request, after saving."""

    exit_code = EXIT_REQUEUE
