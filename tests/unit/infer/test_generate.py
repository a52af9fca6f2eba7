"""Generating text: exact settings, prompts of different lengths, and no trace in the run that asks."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from lmbatch.config import GenerateConfig
from lmbatch.errors import CheckpointError, ConfigError, TokenizerError, UsageError
from lmbatch.infer import TextGenerator, export_model, load_for_generation
from lmbatch.infer.sampling import WithoutPadding, generation_config
from lmbatch.infer.window import Window, fit

PROMPTS = ["第一条 ", "国家保护", "第一条 为了保护公民的权利，制定", "H", "", "Hello world, the"]


@pytest.fixture(scope="module")
def generator(model, tokenizer_folder):
    return TextGenerator(model, tokenizer_folder, context=48)


def greedy(**changes: object) -> GenerateConfig:
    return GenerateConfig(**({"max_new_tokens": 12, "temperature": 0} | changes))


def test_the_model_says_what_it_was_taught(generator):
    (text,) = generator.generate(["第一条 为了保护"], greedy())
    assert text.startswith("第一条 为了保护公民的权利")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 3},
        {"num_beams": 3, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_a_batch_gives_what_each_prompt_gives_alone(generator, changes):
    config = greedy(**changes)
    assert generator.complete(PROMPTS, config) == [generator.complete([prompt], config)[0] for prompt in PROMPTS]


def test_greedy_is_the_argmax_without_cache_and_padding(generator, model, tokenizer_folder):
    """Against the plainest possible loop, prompt by prompt."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    for prompt, text in zip(PROMPTS, generator.generate(PROMPTS, greedy()), strict=True):
        ids = tokenizer.encode(prompt).ids or [0]  # an empty prompt begins a document
        for _ in range(12):
            with torch.no_grad():
                best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if best == 0:
                break
            ids.append(best)
        assert text == tokenizer.decode(ids)


def test_no_repeat_ngram_and_repetition_penalty_change_the_text(generator):
    plain = generator.generate(["第一条 "], greedy(max_new_tokens=40))
    for changes in ({"no_repeat_ngram_size": 1}, {"repetition_penalty": 5.0}):
        assert generator.generate(["第一条 "], greedy(max_new_tokens=40, **changes)) != plain


def test_no_bigram_stands_twice(generator):
    config = GenerateConfig(max_new_tokens=40, temperature=0, no_repeat_ngram_size=2)
    windows = [generator._window(number, prompt, config) for number, prompt in enumerate(["第一条", "H"])]
    for window, new in zip(windows, generator._generate(windows, config), strict=True):
        ids = [*window.ids, *new[: new.index(0) if 0 in new else None]]
        pairs = list(itertools.pairwise(ids))
        assert len(pairs) > 10
        assert len(pairs) == len(set(pairs))


def test_beams_stop_early_only_if_told(generator, model):
    """Against transformers' own beam search with the same settings."""
    ids = torch.tensor([[0, *range(1, 6)]])
    for early in (False, True):
        ours = generation_config(greedy(num_beams=3, early_stopping=early), new=8, eod_id=0)
        settings = {"num_beams": 3, "early_stopping": early, "do_sample": False, "max_new_tokens": 8}
        theirs = model.generate(ids, eos_token_id=0, pad_token_id=0, **settings)
        assert ours.early_stopping is early
        assert torch.equal(model.generate(ids, generation_config=ours), theirs)
    assert generation_config(greedy(early_stopping=True), new=8, eod_id=0).early_stopping is not True


def test_the_seed_decides_and_nothing_else_does(generator):
    config = GenerateConfig(max_new_tokens=20, temperature=1.5, seed=7)
    torch.manual_seed(1)
    first = generator.generate(PROMPTS, config)
    torch.manual_seed(2)
    assert generator.generate(PROMPTS, config) == first
    assert generator.generate(PROMPTS, config.model_copy(update={"seed": 8})) != first


def test_top_k_and_top_p_of_the_narrowest_are_greedy(generator):
    expected = generator.generate(PROMPTS, greedy())
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert generator.generate(PROMPTS, GenerateConfig(max_new_tokens=12, temperature=5.0, **narrow)) == expected


def test_top_k_zero_means_all(generator):
    """transformers' own default is the best 50: at this temperature most of what is drawn lies outside."""
    config = GenerateConfig(max_new_tokens=20, temperature=1000.0, seed=3)
    assert generator.generate(["H"], config) != generator.generate(["H"], config.model_copy(update={"top_k": 50}))


@pytest.mark.parametrize(
    "settings", [greedy(), GenerateConfig(max_new_tokens=8, temperature=1.0, num_beams=2)], ids=str
)
def test_samples_do_not_disturb_the_run(generator, model, settings):
    torch.manual_seed(11)
    model.train()
    model.transformer.drop.eval()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator.generate(PROMPTS, settings)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    model.eval()


def test_dropout_is_off_while_generating(generator, model):
    expected = generator.generate(PROMPTS, greedy())
    model.train()
    assert generator.generate(PROMPTS, greedy()) == expected
    model.eval()


def test_an_empty_prompt_begins_a_document(generator):
    (completion,) = generator.complete([""], greedy())
    assert completion.text == completion.continuation
    assert completion.tokens == 12
    assert "endoftext" not in completion.text


def test_it_stops_where_the_document_ends(generator):
    (completion,) = generator.complete(["the law protects people.\n"], greedy(max_new_tokens=40))
    assert completion.ended
    assert completion.tokens < 40
    assert "endoftext" not in completion.text


def test_no_prompts_no_texts(generator):
    assert generator.generate([], greedy()) == []


def test_more_prompts_than_fit_into_one_batch_keep_their_order(generator):
    prompts = [PROMPTS[number % 6] for number in range(75)]
    assert generator.generate(prompts, greedy()) == generator.generate(PROMPTS, greedy()) * 12 + generator.generate(
        PROMPTS[:3], greedy()
    )


def test_a_prompt_that_is_too_long_keeps_its_end_with_a_warning(generator, caplog):
    tail = "第一条 为了保护"
    long = "Hello world. " * 40 + tail
    (text,) = generator.generate([long], greedy(max_new_tokens=10))
    assert text.startswith(long)
    assert "prompt 1 is too long for the context of 48 tokens: only its last 38 tokens" in caplog.text


def test_too_many_new_tokens_are_clipped_with_a_warning(generator, caplog):
    config = GenerateConfig(max_new_tokens=1000, temperature=50.0)
    completions = generator.complete(["H", "第一条 为了保护公民的权利，制定本法。"], config)
    assert all(completion.ended or completion.tokens < 48 for completion in completions)
    assert "prompt 1: at most 47 tokens are generated instead of 1000" in caplog.text


def test_each_prompt_uses_the_room_that_it_has(generator):
    """Next to a long prompt too, and no row runs over the end of the position table."""
    prompts = ["第二条 ", "第一条 为了保护公民的权利，制定本法。第二条 国家保护人民。"]
    completions = generator.complete(prompts, greedy(max_new_tokens=1000))
    assert completions == [generator.complete([prompt], greedy(max_new_tokens=1000))[0] for prompt in prompts]
    assert completions[0].tokens > completions[1].tokens > 0


def test_penalties_see_each_beam_without_its_own_padding():
    """Two prompts with 2 and 0 tokens of padding, two beams each."""
    seen: list[list[int]] = []

    def spy(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.extend(ids.tolist())
        return scores

    ids = torch.tensor([[0, 0, 5, 6], [0, 0, 5, 7], [1, 2, 3, 4], [1, 2, 3, 8]])
    scores = torch.rand(4, 9)
    assert torch.equal(WithoutPadding(spy, [2, 0])(ids, scores), scores)
    assert seen == [[5, 6], [5, 7], [1, 2, 3, 4], [1, 2, 3, 8]]


@pytest.mark.parametrize(
    ("length", "new", "expected"),
    [(5, 10, (5, 0, 10)), (38, 10, (38, 0, 10)), (39, 10, (38, 1, 10)), (500, 10, (38, 462, 10)),
     (5, 100, (5, 0, 43)), (40, 100, (24, 16, 24)), (500, 100, (24, 476, 24)), (1, 47, (1, 0, 47))],
)  # fmt: skip
def test_prompt_and_continuation_fit_the_context(length, new, expected):
    window = fit(range(length), max_new_tokens=new, context=48)
    assert (len(window.ids), window.dropped, window.new) == expected
    assert len(window.ids) + window.new <= 48
    assert window.ids == tuple(range(length))[-len(window.ids) :]


def test_the_smallest_context():
    assert fit([1, 2, 3], max_new_tokens=9, context=2) == Window((3,), 2, 1)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_from_an_exported_folder_the_same_texts(run_dir, tmp_path, generator):
    out = export_model(run_dir, tmp_path / "export")
    for loaded in (TextGenerator.from_folder(out), load_for_generation(str(out))):
        assert loaded.generate(PROMPTS, greedy()) == generator.generate(PROMPTS, greedy())
    config = GenerateConfig(max_new_tokens=20, temperature=1.0, seed=5)
    assert loaded.generate(PROMPTS, config) == generator.generate(PROMPTS, config)


def test_a_folder_that_is_no_export_gives_the_way_out(run_dir, tmp_path):
    with pytest.raises(UsageError, match="is a run folder") as caught:
        TextGenerator.from_folder(run_dir)
    assert f"lmbatch export {run_dir}" in caught.value.remedy
    with pytest.raises(UsageError, match=r"config.json, model.safetensors or .* is missing") as caught:
        TextGenerator.from_folder(tmp_path)
    assert "lmbatch export" in caught.value.remedy
    with pytest.raises(UsageError, match="no such folder"):
        TextGenerator.from_folder(tmp_path / "nothing")


def test_weights_that_are_missing_are_not_made_up(run_dir, tmp_path):
    """transformers would fill the third layer with random numbers and only warn."""
    out = export_model(run_dir, tmp_path / "export")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(CheckpointError, match=r"missing keys: transformer\.h\.2"):
        TextGenerator.from_folder(out)


def test_torn_weights_are_named(run_dir, tmp_path):
    out = export_model(run_dir, tmp_path / "export")
    (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        TextGenerator.from_folder(out)
    assert "export it again" in caught.value.remedy


def test_a_tokenizer_of_another_model_is_refused(tokenizer_folder):
    small = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=8, n_layer=1, n_head=1, eos_token_id=0, bos_token_id=0))
    with pytest.raises(TokenizerError, match="entries, the model only 100"):
        TextGenerator(small, tokenizer_folder, context=48)


def test_a_tokenizer_that_transformers_misreads_is_refused(run_dir, tmp_path):
    """A gpt2 class over another tokenizer.json gives other ids without a word."""
    out = export_model(run_dir, tmp_path / "export")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "第一条": 1, "Hello": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(TokenizerError):
        TextGenerator.from_folder(out)


def test_a_context_of_one_is_refused(model, tokenizer_folder):
    with pytest.raises(ConfigError, match="context = 1"):
        TextGenerator(model, tokenizer_folder, context=1)
