"""A checkpoint whenever a pass over the data is complete."""

from __future__ import annotations

import pytest

from lmbatch.loader import open_train_data
from lmbatch.train import train
from lmbatch.train.due import completes_epoch
from support.tiny_run import saved_steps, tiny_config


@pytest.mark.parametrize(("size", "epoch"), [(8, 100), (8, 8), (8, 5), (1, 3), (64, 10_000)])
def test_every_epoch_is_completed_by_one_step(size, epoch):
    """The step that takes the last sample of an epoch, and no other one."""
    steps = range(1, 3 * epoch // size + 4)
    found = [step for step in steps if completes_epoch(step, size, epoch)]
    last_samples = range(epoch, steps[-1] * size + 1, epoch)
    assert found == sorted({-(-sample // size) for sample in last_samples})


def test_a_run_keeps_a_checkpoint_of_every_epoch(store, tmp_path):
    save = {"every": 1000, "every_epoch": True, "keep": 5}
    config = tiny_config(store, tmp_path, steps=None, epochs=2.5, save=save, evaluate={"batches": 0})
    config = config.model_copy(update={"steps": None, "epochs": 2.5})
    with open_train_data(config.data, seed=1) as data:
        epoch = data.order.samples_per_epoch
    result = train(config)
    expected = [-(-epoch // 8), -(-2 * epoch // 8), int(2.5 * epoch) // 8]
    assert saved_steps(result.run_dir) == expected
