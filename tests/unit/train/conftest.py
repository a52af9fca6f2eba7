"""A tiny store and a straight run that other runs are compared with."""

from __future__ import annotations

import pytest
import torch

from lmbatch.train import train
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tiny-store"))


@pytest.fixture(scope="session")
def straight(store, tmp_path_factory):
    """20 steps without an interruption."""
    return train(tiny_config(store, tmp_path_factory.mktemp("straight")))
