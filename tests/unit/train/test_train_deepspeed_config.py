"""DeepSpeed's config as a pure function of ours, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from lmbatch.config import EngineConfig, TrainConfig, fingerprint
from lmbatch.config.load import build
from lmbatch.errors import ConfigError, LaunchError
from lmbatch.train.deepspeed_config import deepspeed_config
from lmbatch.train.deepspeed_launch import deepspeed_accelerator, prepare_environment
from lmbatch.train.zero_engine import check_built

COMMON = {
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 4,
    "gradient_clipping": 0.0,
    "steps_per_print": 10**12,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


def config(**engine) -> TrainConfig:
    values = {
        "run": {"name": "r"}, "data": {"store": "s", "sequence_length": 8}, "model": {"type": "gpt2"},
        "optimizer": {"lr": 0.1, "clip_norm": 1.0}, "batch": {"size": 32, "micro": 2}, "steps": 1,
        "engine": {"name": "deepspeed", **engine},
    }  # fmt: skip
    return build(TrainConfig, values, "test")


@pytest.mark.parametrize(
    ("engine", "on_gpu", "zero"),
    [
        ({"zero_stage": 0}, True, {"stage": 0}),
        (
            {"zero_stage": 1, "bucket_elements": 1000},
            True,
            {"stage": 1, "overlap_comm": True, "reduce_bucket_size": 1000, "allgather_bucket_size": 2000},
        ),
        (
            {"offload_optimizer": "cpu"},
            False,
            {
                "stage": 2, "overlap_comm": False, "reduce_bucket_size": 50_000_000,
                "allgather_bucket_size": 100_000_000, "offload_optimizer": {"device": "cpu", "pin_memory": False},
            },
        ),
        (
            {"zero_stage": 3, "overlap_comm": False, "offload_optimizer": "cpu"},
            True,
            {
                "stage": 3, "overlap_comm": False, "reduce_bucket_size": 50_000_000,
                "stage3_prefetch_bucket_size": 50_000_000,
                "stage3_param_persistence_threshold": 100_000, "stage3_max_live_parameters": 1_000_000_000,
                "stage3_max_reuse_distance": 1_000_000_000,
                "offload_optimizer": {"device": "cpu", "pin_memory": True},
            },
        ),
    ],
)  # fmt: skip
def test_the_config_that_deepspeed_is_given(engine, on_gpu, zero):
    found = deepspeed_config(config(**engine), world=4, precision="fp32", on_gpu=on_gpu)
    assert found == {**COMMON, "zero_optimization": zero}


def test_bf16_is_autocast_over_weights_in_fp32():
    found = deepspeed_config(config(zero_stage=0), world=4, precision="bf16", on_gpu=True)
    autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert found == {**COMMON, "zero_optimization": {"stage": 0}, "torch_autocast": autocast}


def test_the_global_batch_is_the_same_for_every_number_of_processes():
    for world in (1, 2, 16):
        found = deepspeed_config(config(), world=world, precision="fp32", on_gpu=False)
        assert (found["train_batch_size"], found["gradient_accumulation_steps"]) == (32, 16 // world)
    with pytest.raises(ConfigError, match=r"batch.micro 2 × 3 processes"):
        deepspeed_config(config(), world=3, precision="fp32", on_gpu=False)


def test_the_engine_is_no_part_of_the_identity_of_a_run():
    assert fingerprint(config(zero_stage=3, offload_optimizer="cpu")) == fingerprint(config(zero_stage=0))
    assert fingerprint(config(zero_stage=3)) == fingerprint(config().model_copy(update={"engine": EngineConfig()}))


@pytest.mark.parametrize("engine", [{"zero_stage": 0}, {"name": "plain"}])
def test_offload_needs_something_to_put_elsewhere(engine):
    with pytest.raises(ConfigError, match="offload_optimizer needs"):
        config(offload_optimizer="cpu", **engine)


def test_fp16_is_refused_before_anything_is_started():
    with pytest.raises(LaunchError, match="loss scaler"):
        deepspeed_accelerator(config(), precision="fp16", world=1)


def test_a_single_process_becomes_a_group_of_one():
    environ: dict[str, str] = {"ACCELERATE_USE_CPU": "true"}
    prepare_environment(environ, world=1, on_gpu=False)
    assert {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} == environ.keys()


def test_the_variables_of_several_processes_are_asked_for_by_name():
    with pytest.raises(LaunchError, match="2 processes, but LOCAL_RANK, MASTER_PORT not set"):
        prepare_environment({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, world=2, on_gpu=False)


def test_the_cpu_of_a_machine_with_a_gpu_is_refused():
    with pytest.raises(LaunchError, match="ACCELERATE_USE_CPU"):
        prepare_environment({"ACCELERATE_USE_CPU": "true"}, world=1, on_gpu=True)


class Built:
    """What DeepSpeed's engine and its partition tell about themselves."""

    def __init__(self, stage=2, offload=False, world=2, elements=50):
        self._stage, self._offload, self.dp_world_size, self._elements = stage, offload, world, elements

    def zero_optimization_stage(self):
        return self._stage

    def zero_cpu_offload(self):
        return self._offload

    def elements(self):
        return self._elements


def test_what_deepspeed_built_is_compared_with_what_was_asked():
    check_built(EngineConfig(name="deepspeed"), Built(), Built(), world=2, total=100)


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (Built(stage=0), "built stage 0"),
        (Built(offload=True), "built stage 2 with offload"),
        (Built(world=1), "2 processes, but DeepSpeed shares out over 1"),
        (Built(elements=100), "nothing is shared out"),
    ],
)
def test_anything_else_is_refused(built, message):
    with pytest.raises(LaunchError, match=message):
        check_built(EngineConfig(name="deepspeed"), built, built, world=2, total=100)
