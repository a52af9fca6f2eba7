"""Which kernels a model's attention takes. It is asked afterwards, for transformers may keep another with a warning."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from lmbatch.errors import ConfigError

_FLASH = "flash_attention_2"


def choose_attention(
    model: PreTrainedModel, name: str, *, on_gpu: bool, precision: str, documents_apart: bool = False
) -> None:
    """Make ``model`` compute its attention with ``name`` of ``compute.attention``; ``auto`` leaves it as it is.

    Raises ConfigError where the model type, the device, the precision or ``data.document_attention`` does not go with
    it.
    """
    if name == "auto":
        return
    if name == _FLASH:
        _check_flash(on_gpu=on_gpu, precision=precision, documents_apart=documents_apart)
    switch: Any = model.set_attn_implementation
    try:
        switch(name)
    except (ImportError, ValueError) as error:
        raise _refused(model, name, ": " + " ".join(str(error).split())[:300]) from error
    if model.config._attn_implementation != name:
        raise _refused(model, name, "")


def _refused(model: PreTrainedModel, name: str, detail: str) -> ConfigError:
    return ConfigError(
        f"compute.attention: the model type `{model.config.model_type}` has no {name}{detail}",
        remedy="set compute.attention to auto",
    )


def _check_flash(*, on_gpu: bool, precision: str, documents_apart: bool) -> None:
    missing = [
        what
        for what, there in (("a GPU", on_gpu), ("the package flash-attn", is_flash_attn_2_available()))
        if not there
    ]
    if missing:
        raise ConfigError(
            f"compute.attention: {_FLASH} needs {' and '.join(missing)}, which this machine has not",
            remedy="set compute.attention to sdpa",
        )
    if precision == "fp32":
        raise ConfigError(
            f"compute.attention: {_FLASH} does not compute in fp32", remedy="set precision to bf16, or sdpa instead"
        )
    if documents_apart:
        # transformers reads positions that begin again in rows of one sample alone, and else mixes without a word.
        raise ConfigError(
            f"compute.attention: {_FLASH} does not keep documents apart (data.document_attention)",
            remedy="set compute.attention to sdpa, or leave data.document_attention out",
        )
