"""The config of a training run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lmbatch.config.base import Bytes, Section, added, operational
from lmbatch.config.compute import ComputeConfig
from lmbatch.config.engine import EngineConfig
from lmbatch.config.guards import GuardsConfig
from lmbatch.config.objective import ObjectiveConfig
from lmbatch.config.tracking import TrackingConfig


class RunConfig(Section):
    """The run: its name and its folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the run.")
    dir: str = Field("runs", description="Local folder that holds the runs.")
    hang_seconds: float = Field(
        1800, ge=0, description="A process without a step, a batch of evaluation or a save for so long is taken to "
        "hang: its stack is written and the attempt ends; 0: never."
    )  # fmt: skip
    max_idle_attempts: int = Field(
        5, ge=1, description="A requeued job ends with an error after this many attempts that saved no new step."
    )
    accept_changes: bool = Field(
        False, description="Resume although settings that decide the numbers differ from the checkpoint's."
    )


class CacheConfig(Section):
    """Local copies of shards that lie in object storage."""

    dir: str | None = Field(None, description="Folder; default: $XDG_CACHE_HOME/lmbatch or ~/.cache/lmbatch.")
    max_bytes: Bytes = Field(200 * 2**30, description="The least recently used shards are removed beyond this.")


class DataConfig(Section):
    """What is trained on, and in which order."""

    store: str = operational(description="The store that holds manifest.json.")
    digest: str | None = Field(None, description="Refuse any other manifest than this one (sha256:…).")
    sequence_length: int = Field(gt=0, description="Tokens that the model sees at once.")
    shuffle: Literal["global", "windowed"] = Field(
        "global", description="global: one permutation of all samples (all shards local or cached); windowed: shards "
        "in shuffled order, samples shuffled within a window of them (bounded disk)."
    )  # fmt: skip
    window_shards: int = Field(8, gt=0, description="Shards in a window (windowed only).")
    document_attention: bool | None = added(
        None, description="true: the documents of a packed sample do not see each other, and the positions of each "
        "begin at 0; else a token sees all that stands before it in its sample."
    )  # fmt: skip
    prefetch: int = operational(4, ge=1, description="Batches read ahead in the background.")
    cache: CacheConfig = operational(CacheConfig(), description="Local copies of remote shards.")

    @field_validator("document_attention")
    @classmethod
    def _together_is_the_default(cls, value: bool | None) -> bool | None:
        # One spelling for one meaning, so that a config which says `false` resumes one which says nothing.
        return value or None


class ModelConfig(Section):
    """Architecture by name; everything in `config` goes to the transformers config class of that name."""

    type: str = Field(description="transformers model type: gpt2, llama, qwen2, bloom, …")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Its own settings. Vocabulary, context and special ids are filled in."
    )
    base: str | None = operational(
        None, description="Local Hugging Face folder whose weights the run begins with. Its config.json gives the "
        "settings, of which `config` may change the dropout; its tokenizer must be the one of the shards. A resume "
        "does not need it."
    )  # fmt: skip
    base_digest: str | None = added(
        None, description="Refuse any other weights and config.json in `base` than these (sha256:…); the run's first "
        "attempt notes them here."
    )  # fmt: skip
    pad_vocab_to_multiple: int | None = added(
        None, ge=1, description="Rows of the embedding and of the output are rounded up to a multiple of this, for "
        "speed (64 or 128 on a GPU). No number of the run changes, and no export shows them."
    )  # fmt: skip
    base_pickle: bool = operational(
        False, description="May the weights in `base` be pytorch_model.bin, a pickle? torch reads only tensors from it."
    )

    @field_validator("pad_vocab_to_multiple")
    @classmethod
    def _one_pads_nothing(cls, value: int | None) -> int | None:
        return None if value == 1 else value


class OptimizerConfig(Section):
    """AdamW; biases, norms and embeddings of rank one are not decayed."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Decay rates of the moments.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay of matrices.")
    clip_norm: float | None = Field(1.0, gt=0, description="Global gradient norm is clipped to this; null: never.")


class ScheduleConfig(Section):
    """The learning rate as a function of the step."""

    name: Literal["cosine", "linear", "wsd", "constant"] = Field("cosine", description="Shape after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up from zero.")
    decay_steps: int | None = Field(None, gt=0, description="Steps of decay; wsd: of its last phase (default 10 %).")
    min_lr_ratio: float = Field(0.0, ge=0, le=1, description="Floor, as a share of the peak.")


class BatchConfig(Section):
    """The global batch does not depend on the number of processes; micro-batches are what fits in memory."""

    size: int = Field(gt=0, description="Samples per optimizer step, over all processes.")
    micro: int = operational(gt=0, description="Samples per forward pass on one process.")


class EvaluateConfig(Section):
    """Loss on the validation split during training."""

    every: int = Field(0, ge=0, description="Steps between two evaluations; 0: only at the end.")
    batches: int = Field(20, ge=0, description="Batches of `batch.micro` samples at most; 0: no evaluation at all.")


class GenerateConfig(Section):
    """How text is generated."""

    max_new_tokens: int = Field(100, gt=0, description="Tokens generated at most.")
    temperature: float = Field(1.0, ge=0, description="0 takes the likeliest token.")
    top_k: int = Field(0, ge=0, description="Only the k likeliest tokens; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Only the smallest set of tokens with this much probability.")
    num_beams: int = Field(1, ge=1, description="Beams; 1: none.")
    early_stopping: bool = Field(False, description="Beam search ends when as many texts as beams have ended.")
    no_repeat_ngram_size: int = Field(0, ge=0, description="No n-gram of this size twice; 0: allowed.")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1 makes seen tokens less likely.")
    seed: int = Field(0, ge=0, description="Seed of the sampling.")


class SamplesConfig(Section):
    """Texts generated during training."""

    every: int = Field(0, ge=0, description="Steps between two rounds; 0: only at the end.")
    prompts: tuple[str, ...] = Field((), description="Prompts; none: no samples.")
    generate: GenerateConfig = GenerateConfig(max_new_tokens=60, temperature=0.8, top_k=50)


class SaveConfig(Section):
    """Checkpoints."""

    every: int = Field(500, gt=0, description="Steps between two checkpoints.")
    every_epoch: bool = Field(False, description="Also one whenever a pass over the training split is complete.")
    keep: int = Field(2, ge=2, description="Newest valid checkpoints kept; never fewer than two.")
    keep_every: int = Field(0, ge=0, description="Also kept: each one whose step is a multiple of this; 0: none.")
    keep_best: int = Field(0, ge=0, description="Also kept: so many with the lowest validation loss; 0: none.")
    store: str | None = Field(None, description="Object store that committed checkpoints are copied to as well.")
    asynchronous: bool = Field(
        True, description="Training waits only until its state is copied into host memory (12 bytes for each parameter "
        "that a process holds); what follows goes on behind it. Otherwise it waits until the checkpoint is committed."
    )  # fmt: skip
    when_busy: Literal["wait", "skip"] = Field(
        "wait", description="A save is due and the one before is not committed yet: wait for it, or leave this one out "
        "(never the one at a stop or at the end)."
    )  # fmt: skip


class TrainConfig(Section):
    """A training config: `accelerate launch … -m lmbatch.train --config configs/train/NAME.yaml`."""

    run: RunConfig = operational(description="Name and folder.")
    data: DataConfig
    tokenizer: str | None = operational(None, description="Tokenizer folder that the manifest must have been made "
                                        "with; default: the copy that lies beside the manifest.")  # fmt: skip
    objective: ObjectiveConfig | None = added(None, description="What is predicted; default: the next token.")
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig
    steps: int | None = Field(None, gt=0, description="Optimizer steps in all; this or `epochs`.")
    epochs: float | None = Field(None, gt=0, description="Passes over the training split; this or `steps`.")
    precision: Literal["launcher", "fp32", "bf16", "fp16"] = Field(
        "launcher", description="launcher: what the accelerate config says."
    )
    seed: int = Field(0, description="Seed of initialisation, sample order and dropout.")
    evaluate: EvaluateConfig = operational(EvaluateConfig(), description="Validation during training.")
    samples: SamplesConfig = operational(SamplesConfig(), description="Texts generated during training.")
    save: SaveConfig = operational(SaveConfig(), description="Checkpoints.")
    engine: EngineConfig = operational(EngineConfig(), description="How the work is spread over the processes.")
    compute: ComputeConfig = operational(ComputeConfig(), description="Kernels and memory of a step.")
    guards: GuardsConfig | None = added(None, description="Steps that are not finite, or jump.")
    log_every: int = operational(10, gt=0, description="Steps between two lines of progress.")
    tensorboard: bool = operational(True, description="Write TensorBoard events into the run folder.")
    tracking: TrackingConfig = operational(TrackingConfig(), description="SwanLab, Weights & Biases.")
    peak_flops: float | None = operational(None, gt=0, description="Peak FLOP/s of one device, for MFU; "
                                           "default: known GPUs by name, none on a CPU.")  # fmt: skip

    @property
    def loaded(self) -> DataConfig:
        """``data`` as the loader is opened with it: a masked sample leaves room for the token that goes before it."""
        if self.objective is None:
            return self.data
        return self.data.model_copy(update={"sequence_length": self.data.sequence_length - 1})

    @field_validator("objective")
    @classmethod
    def _causal_is_the_default(cls, objective: ObjectiveConfig | None) -> ObjectiveConfig | None:
        """One spelling for one meaning, so that a config which says `causal` resumes one which says nothing."""
        return None if objective is None or objective.name == "causal" else objective

    @model_validator(mode="after")
    def _masked_makes_sense(self) -> TrainConfig:
        if self.objective is not None and self.model.base is not None:
            raise ValueError("a masked model begins with random weights: leave `model.base` out")
        if self.objective is not None and self.data.document_attention:
            raise ValueError("data.document_attention is for the causal objective: leave one of the two out")
        if self.objective is not None and self.data.sequence_length < 3:
            raise ValueError(
                "a masked sample has a first token, a text and its end: data.sequence_length is 3 at least"
            )
        return self

    @model_validator(mode="after")
    def _can_compile(self) -> TrainConfig:
        if self.compute.compile and self.engine.name != "plain":
            raise ValueError("compute.compile is for the plain engine: DeepSpeed's hooks would break the graph anew")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        return self
