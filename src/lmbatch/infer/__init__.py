"""Inference: from a run's checkpoint to a Hugging Face folder, and from a model to text.

::

    runs/NAME/ ── export_model ──▶ folder: model.safetensors, config.json, tokenizer files, model card
      newest valid checkpoint            │
               └── load_for_generation ──▶ ▼ TextGenerator.from_folder
    live model, tokenizer ──▶ TextGenerator(model, tokenizer, context=…)
                                         │ generate(prompts, GenerateConfig)
                                         ▼
                              prompt + continuation, one text for each prompt

    a masked model, tokenizer ──▶ MaskFiller ── fill(prompts, top_k) ──▶ the likeliest tokens for each mask

    many callers ──▶ batching.GenerationQueue ──▶ one model, one batch ──▶ pieces, replies
    HTTP clients ──▶ http.serve ──┘

Called by ``cli`` (export, generate, fill-mask, serve) and by ``train`` (sample texts, which leave the run's random
state alone). What is exported needs no lmbatch: plain ``AutoModelForCausalLM.from_pretrained`` loads it, and a masked
model ``AutoModelForMaskedLM.from_pretrained``.
"""

from lmbatch.infer.export import export_model
from lmbatch.infer.fill_mask import Choice, Filled, MaskFiller
from lmbatch.infer.generate import Completion, TextGenerator
from lmbatch.infer.loading import load_for_generation
from lmbatch.infer.text import tidy_text

__all__ = [
    "Choice",
    "Completion",
    "Filled",
    "MaskFiller",
    "TextGenerator",
    "export_model",
    "load_for_generation",
    "tidy_text",
]
