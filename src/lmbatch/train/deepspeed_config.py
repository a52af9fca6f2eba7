"""DeepSpeed's config: a pure function of ours."""

from __future__ import annotations

from typing import Any

from lmbatch.config import EngineConfig, TrainConfig
from lmbatch.loader.batches import check_batch

_NEVER = 10**12
# Stage 3 in DeepSpeed's own ratios to its buckets: weights that stay whole everywhere are at most a 500th of one, and
# of those that were put together for a pass, 20 are kept.
_SMALL, _KEPT = 500, 20


def deepspeed_config(config: TrainConfig, *, world: int, precision: str, on_gpu: bool) -> dict[str, Any]:
    """What ``deepspeed.initialize`` is given (https://www.deepspeed.ai/docs/config-json/) for ``world`` processes.

    Clipping is left out: the engine clips, by one norm for all stages. bf16 is autocast over weights in fp32, as the
    plain engine has it, and gradients travel in fp32; DeepSpeed's own ``bf16`` would round the weights and be another
    run. Raises ConfigError if the batch cannot be shared out evenly.
    """
    batch = config.batch
    check_batch(batch.size, batch.micro, world)
    result: dict[str, Any] = {
        "train_batch_size": batch.size,
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.size // (batch.micro * world),
        "gradient_clipping": 0.0,
        "steps_per_print": _NEVER,
        # Our AdamW, offloaded or not: the same numbers, and nothing has to be compiled.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _zero(config.engine, on_gpu=on_gpu),
    }
    if precision == "bf16":
        result["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return result


def _zero(engine: EngineConfig, *, on_gpu: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"stage": engine.zero_stage}
    if engine.zero_stage == 0:
        return result
    result["overlap_comm"] = engine.overlap_comm and on_gpu
    result["reduce_bucket_size"] = engine.bucket_elements
    if engine.zero_stage == 3:
        result["stage3_prefetch_bucket_size"] = engine.bucket_elements
        result["stage3_param_persistence_threshold"] = engine.bucket_elements // _SMALL
        result["stage3_max_live_parameters"] = _KEPT * engine.bucket_elements
        result["stage3_max_reuse_distance"] = _KEPT * engine.bucket_elements
    else:
        result["allgather_bucket_size"] = 2 * engine.bucket_elements
    if engine.offload_optimizer == "cpu":
        result["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    return result
