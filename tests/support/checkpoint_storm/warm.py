"""Imported once by the server that the attempts are forked from: all that they would import one by one."""

# ruff: noqa: F401
import accelerate.utils.deepspeed
import deepspeed
import transformers.models.gpt2.modeling_gpt2

import lmbatch.infer
import lmbatch.train.__main__
import lmbatch.train.worker
import support.checkpoint_storm.child
