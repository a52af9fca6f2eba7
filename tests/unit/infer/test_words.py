"""Word vocabularies at inference: segmented as at preprocessing, joined by rule, and never an unknown word."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmbatch.config import GenerateConfig
from lmbatch.errors import TokenizerError
from lmbatch.infer import TextGenerator
from lmbatch.infer.batching import GenerationQueue, GenerationRequest, QueueLimits
from lmbatch.infer.folder import load_tokenizer
from lmbatch.tokens import Encoder
from lmbatch.tokens import load_tokenizer as load_text_tokenizer
from support.word_folder import PADDING, TEXT, write_word_model, write_words

UNKNOWN = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_word_model(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def forbidden(tmp_path_factory):
    return TextGenerator.from_folder(write_word_model(tmp_path_factory.mktemp("forbidden"), forbidden=True))


@pytest.mark.parametrize("text", [TEXT, "", "保护 Hello [UNK] world！[SEP]", "闻所未闻", " \n", "a　b"])
def test_the_ids_are_those_of_preprocessing(folder, text):
    written = Encoder(load_text_tokenizer(folder)).encode([text])[0][:-1].tolist()
    tokenizer = load_tokenizer(folder)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == written
    assert tokenizer([text, text])["input_ids"] == [written, written]
    assert tokenizer.encode(text) == written


def test_text_comes_back_as_it_was(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT.replace("第一条 为了", "第一条为了").replace(
        ". 公元", ".公元"
    )


def test_plain_transformers_loads_the_model_and_takes_segmented_words(folder):
    """What works without lmbatch: the weights, and the tokenizer for words with spaces between them."""
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "gpt2"
    plain, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    segmented = ours.segment(TEXT)
    assert plain(segmented)["input_ids"] == ours(TEXT)["input_ids"]
    assert plain.decode(plain(segmented)["input_ids"]) == segmented


@pytest.mark.parametrize(("prompt", "new", "expected"), [
    ("国家", "保护 人民", "保护人民"),
    ("Hello", "world", " world"),
    ("Hello ", "world", "world"),
    ("闻所未闻xyz", "world", " world"),
    ("国家", "world", "world"),
])  # fmt: skip
def test_a_continuation_fits_to_the_end_of_the_prompt(folder, prompt, new, expected):
    generator = TextGenerator.from_folder(folder)
    ids = [load_text_tokenizer(folder).backend.token_to_id(word) for word in new.split()]
    assert generator.continuation(prompt, generator.window(prompt, 10), ids) == expected


@pytest.fixture
def generated(monkeypatch):
    """All ids that were made into text."""
    ids, original = [], TextGenerator.continuation

    def continuation(self, prompt, window, new):
        ids.extend(new)
        return original(self, prompt, window, new)

    monkeypatch.setattr(TextGenerator, "continuation", continuation)
    return ids


@pytest.mark.parametrize("way", ["alone", "queued"])
@pytest.mark.parametrize("changes", [{"temperature": 0}, {}, {"num_beams": 3, "temperature": 0}], ids=str)
def test_an_unknown_word_or_a_padded_row_is_never_generated(forbidden, generated, changes, way):
    """The model wants nothing else, so what comes is what is left."""
    settings, prompts = GenerateConfig(max_new_tokens=12, **changes), ["国家保护", "Hello", "第一条", "人民"]
    entries = len(forbidden.tokenizer)
    assert forbidden.never == (UNKNOWN, *range(entries, entries + PADDING))
    with torch.no_grad():
        ids = torch.tensor([forbidden.window("国家保护", 12).ids])
        assert forbidden.model(ids).logits[0, -1].argmax().item() in forbidden.never
    if way == "alone":
        forbidden.complete(prompts, settings)
    else:
        asyncio.run(in_queue(forbidden, [GenerationRequest(prompt, settings) for prompt in prompts]))
    assert generated
    assert not set(generated) & set(forbidden.never)


async def in_queue(generator, requests):
    with GenerationQueue(generator, QueueLimits()) as queue:
        return await asyncio.wait_for(asyncio.gather(*map(queue.complete, requests)), 60)


def test_another_version_of_the_segmenter_is_refused(tmp_path):
    folder = write_words(tmp_path)
    values = json.loads((folder / "segmentation.json").read_text())
    (folder / "segmentation.json").write_text(json.dumps({**values, "version": "0.1"}))
    with pytest.raises(TokenizerError, match="segmented by jieba 0.1"):
        load_tokenizer(folder)
