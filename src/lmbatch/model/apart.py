"""Does a model keep documents apart when positions begin again? It is asked, not believed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from lmbatch.errors import ConfigError

_LENGTHS = (5, 7)  # of the two documents that are tried
# Of the largest logit. Rounding stays below 1e-6; what one document lets another know is above 1e-3 in fresh models.
_TOLERANCE = 5e-5


def check_documents_apart(model: PreTrainedModel) -> None:
    """Raises ConfigError unless two documents in one sample give the logits that each gives alone.

    transformers builds the mask from ``position_ids`` for most architectures, and passes over them in silence for
    others: those with ALiBi, for one. So it does with ``flash_attention_2`` where a batch has more than one row: then
    its variable-length kernels are not told of documents. The model is left as it was, in its mode too.
    """
    difference = documents_mix(model)
    if difference > _TOLERANCE:
        kind = model.config.model_type
        how = "takes no position_ids" if difference == float("inf") else f"logits differ by {difference:.1e}"
        raise ConfigError(
            f"data.document_attention: the model type `{kind}` does not keep documents apart ({how})",
            remedy="leave data.document_attention out, or take a type with positions of its own, such as gpt2 or llama",
        )


def documents_mix(model: PreTrainedModel) -> float:
    """The greatest difference of a logit, as a share of the largest, that comes of sharing a sample with another.

    Two rows are tried at once, since one alone may be treated otherwise.
    """
    device = model.device
    rows = [torch.arange(1, length + 1, device=device) % model.config.vocab_size for length in _LENGTHS]
    places = [torch.arange(length, device=device) for length in _LENGTHS]
    plain: Any = model
    training = model.training
    plain.eval()
    try:
        with torch.no_grad():
            alone = [plain(input_ids=row[None], use_cache=False).logits[0] for row in rows]
            together = plain(
                input_ids=torch.cat(rows).repeat(2, 1), position_ids=torch.cat(places).repeat(2, 1), use_cache=False
            ).logits
    except TypeError:  # an argument that its forward pass does not know
        return float("inf")
    finally:
        model.train(training)
    expected = torch.cat(alone)
    return float((together - expected).abs().max() / expected.abs().max())
