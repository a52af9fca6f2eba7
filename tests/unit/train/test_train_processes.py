"""Launches that silently give something else than was asked for are noticed."""

from __future__ import annotations

import pytest

from lmbatch.errors import LaunchError
from lmbatch.train.processes import Launched, check_launch

ONE = Launched(processes=1, kind="NO")


@pytest.mark.parametrize(
    ("environ", "launched"),
    [
        ({}, ONE),
        ({"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "False"}, ONE),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ONE),
        ({"MASTER_ADDR": "node1"}, ONE),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, ONE),
        ({"WORLD_SIZE": "2"}, Launched(2, "MULTI_CPU")),
        ({"WORLD_SIZE": "8", "SLURM_STEP_NUM_TASKS": "8"}, Launched(8, "MULTI_GPU")),
    ],
)
def test_what_was_asked_for_passes(environ, launched):
    check_launch(launched, environ)


@pytest.mark.parametrize(
    ("environ", "launched", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, ONE, "WORLD_SIZE asks for 2 processes, but accelerate sees 1"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, ONE, "SLURM_STEP_NUM_TASKS asks for 4"),
        ({"MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}, ONE, "accelerate launch"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, ONE, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}, Launched(2, "FSDP"), "FSDP"),
        ({"WORLD_SIZE": "2"}, Launched(2, "NO"), "does not average gradients"),
    ],
)
def test_anything_else_is_refused(environ, launched, message):
    with pytest.raises(LaunchError, match=message):
        check_launch(launched, environ)


def test_deepspeed_passes_where_it_was_asked_for():
    environ = {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}
    check_launch(Launched(2, "DEEPSPEED"), environ, engine="deepspeed")


@pytest.mark.parametrize(
    ("environ", "launched", "message"),
    [
        ({"WORLD_SIZE": "2"}, Launched(2, "MULTI_CPU"), "accelerate made it MULTI_CPU"),
        ({}, ONE, "accelerate made it NO"),
        ({"WORLD_SIZE": "2"}, Launched(1, "DEEPSPEED"), "WORLD_SIZE asks for 2 processes"),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "1"}, Launched(2, "DEEPSPEED"), "FSDP, but engine.name"),
    ],
)
def test_deepspeed_that_is_none_is_refused(environ, launched, message):
    with pytest.raises(LaunchError, match=message):
        check_launch(launched, environ, engine="deepspeed")
