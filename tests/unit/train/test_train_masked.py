"""Runs of masked language models: exact resumes, plain transformers' numbers, and what comes out of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from click.testing import CliRunner
from pydantic import ValidationError
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    RobertaForMaskedLM,
    pipeline,
)

from lmbatch.cli import cli
from lmbatch.config import fingerprint
from lmbatch.errors import ConfigError, TokenizerError, UsageError
from lmbatch.infer import MaskFiller, TextGenerator, export_model, load_for_generation
from lmbatch.loader import Batch, MaskedBatch, Purpose, Step, open_train_data
from lmbatch.loader.batches import IGNORED
from lmbatch.model import build_model
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.objective import open_objective
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.recorder import Recorder
from lmbatch.train.records import read_records
from lmbatch.train.stop import StopFlag
from support.drive import preprocess_here
from support.masked_corpus import LENGTH, STILL, WIDTH, lines, masked_config, preprocess_config, write_corpus
from support.tiny_run import assert_equal_runs, call_after_step, tiny_config

PROMPT = "the old <mask> speaks of the silver <mask> 12."


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("masked")


@pytest.fixture(scope="module")
def masked_store(root):
    return write_corpus(root)


@pytest.fixture(scope="module")
def masked_run(masked_store, tmp_path_factory):
    return train(masked_config(masked_store, tmp_path_factory.mktemp("straight"), samples={"prompts": [PROMPT]}))


@pytest.fixture(scope="module")
def exported(masked_run, tmp_path_factory):
    return export_model(masked_run.run_dir, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def tokenizer(root):
    return AutoTokenizer.from_pretrained(root / "tokenizer")


def test_a_padded_vocabulary_changes_no_number_and_is_cut_from_the_export(masked_run, masked_store, tmp_path):
    changes = {"samples": {"prompts": [PROMPT]}, "model": {"pad_vocab_to_multiple": 96}}
    padded = train(masked_config(masked_store, tmp_path, **changes))
    losses = [[row["loss"] for row in training_rows(read_metrics(run.run_dir))] for run in (padded, masked_run)]
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-4)
    size = AutoTokenizer.from_pretrained(masked_run.run_dir / "tokenizer").vocab_size
    assert size % 96
    out = export_model(padded.run_dir, tmp_path / "export")
    weights = AutoModelForMaskedLM.from_pretrained(out).state_dict()
    rows = {weights[name].shape[0] for name in ("lm_head.bias", "roberta.embeddings.word_embeddings.weight")}
    assert rows == {size}
    assert len(MaskFiller.from_folder(out).fill([PROMPT])[0].masks) == 2


def test_it_learns_and_says_so(masked_run):
    rows = training_rows(read_metrics(masked_run.run_dir))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    first, *others = evaluation_rows(read_metrics(masked_run.run_dir))
    assert {row["tokens"] for row in others} == {first["tokens"]}  # the same masks every time
    assert all(row["bits_per_byte"] is None for row in (first, *others))
    (sample,) = read_records(masked_run.run_dir / "samples.jsonl")
    assert sample["prompt"] == PROMPT
    assert sample["text"].startswith("the old[")
    assert sample["text"].count("|") == 4


@pytest.mark.parametrize("step", [4, 10])
def test_a_stopped_and_resumed_run_is_the_straight_one_bit_for_bit(
    masked_store, masked_run, tmp_path, monkeypatch, step
):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    config = masked_config(masked_store, tmp_path, samples={"prompts": [PROMPT]})
    stop = StopFlag()
    call_after_step(step, lambda: stop.request("SIGTERM"))
    assert train(config, stop=stop).exit_code == 75
    assert_equal_runs(train(config).run_dir, masked_run.run_dir)


def test_another_micro_batch_has_the_same_masks_and_losses(masked_store, tmp_path):
    rows = {}
    for micro in (8, 1):
        changes = {"model": STILL, "steps": 4, "batch": {"micro": micro}}
        run = train(masked_config(masked_store, tmp_path / str(micro), **changes))
        rows[micro] = read_metrics(run.run_dir)
    for one, other in zip(training_rows(rows[8]), training_rows(rows[1]), strict=True):
        assert (one["data"], one["tokens"]) == (other["data"], other["tokens"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_packed_text_is_masked_too_and_each_of_its_tokens_is_seen_once(root, masked_store, tmp_path):
    packed = preprocess_config(root, chunking={"mode": "packed"}, store=str(tmp_path / "packed"))
    preprocess_here(packed)
    config = masked_config(packed.store, tmp_path, steps=4)
    rows = training_rows(read_metrics(train(config).run_dir))
    assert {row["tokens"] for row in rows} == {8 * WIDTH}
    objective = open_objective(config)
    with open_train_data(objective.data, seed=1) as data:
        batches = data.evaluation(micro=64, batches=99, prepare=objective.preparing(Purpose.TRAINING))
        found = [np.where(batch.hidden == IGNORED, batch.shown, batch.hidden) for batch in batches]
        texts = np.concatenate([data.reader.tokens(shard) for shard in range(len(data.entries))])
    seen = np.concatenate(found)[:, 1:].ravel()
    assert np.array_equal(seen, texts[: len(seen)])
    assert len(texts) - len(seen) <= WIDTH


def test_an_epoch_later_the_same_line_is_masked_anew(masked_store, tmp_path):
    config = masked_config(masked_store, tmp_path)
    objective = open_objective(config)
    with open_train_data(objective.data, seed=1) as data:
        size = data.order.samples_per_epoch
        text = data.read(0)[None]
    prepare = objective.preparing(Purpose.TRAINING)
    length = np.array([int((text[0] != 2).sum()) + 1])
    first, second = (prepare(Batch(n, (n,), text, length)) for n in (0, size))
    assert not np.array_equal(first.hidden, second.hidden)


def first_batch(config, rows: int = 8) -> MaskedBatch:
    objective = open_objective(config)
    with open_train_data(objective.data, seed=config.seed, split="validation") as data:
        (batch,) = data.evaluation(micro=rows, batches=1, prepare=objective.preparing(Purpose.VALIDATION))
    return batch


def test_examples_are_what_hugging_face_makes_of_the_lines(masked_store, tmp_path, tokenizer):
    """``<s>`` text ``</s>``, as LineByLineTextDataset with truncation gives; but what it cuts off goes on here."""
    config = masked_config(masked_store, tmp_path)
    objective = open_objective(config)
    found = []
    for split in ("train", "validation"):
        with open_train_data(objective.data, seed=1, split=split) as data:
            for batch in data.evaluation(micro=50, batches=99, prepare=objective.preparing(Purpose.VALIDATION)):
                found += [
                    np.where(h == IGNORED, s, h)[:n]
                    for s, h, n in zip(batch.shown, batch.hidden, batch.sizes, strict=True)
                ]
    texts = [line for line in lines() if line.strip()]
    theirs = tokenizer(texts, add_special_tokens=True, truncation=True, max_length=WIDTH)["input_ids"]
    ours = sorted(row.tolist() for row in found)
    assert all(row in ours for row in theirs)
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    step = LENGTH - 1
    assert ours == sorted([0, *ids[at : at + step], 2] for ids in whole for at in range(0, len(ids), step))
    kept = sum(len(row) - 2 for row in theirs) / sum(map(len, whole))
    assert kept < 0.9 < sum(len(row) - 2 for row in ours) / sum(map(len, whole)) == 1.0


def still_config(store, folder):
    return masked_config(store, folder, model=STILL)


def engine_of(config, vocab_size: int) -> PlainEngine:
    model = build_model(
        config.model, vocab_size=vocab_size, sequence_length=WIDTH, eod_id=2, seed=3,
        masked=open_objective(config).model_ids,
    )  # fmt: skip
    return PlainEngine(config, Accelerator(cpu=True), model, build_optimizer(model, config.optimizer), None)


def test_loss_and_gradients_are_those_of_hugging_face_with_its_own_collator(masked_store, tmp_path, tokenizer):
    config = still_config(masked_store, tmp_path)
    engine = engine_of(config, len(tokenizer))
    theirs = RobertaForMaskedLM(engine.plain_model.config)
    theirs.load_state_dict(engine.plain_model.state_dict())
    torch.manual_seed(5)
    rows = tokenizer(lines(8, seed=9), truncation=True, max_length=WIDTH)
    batch = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)(
        [{"input_ids": ids} for ids in rows["input_ids"]]
    )
    loss = theirs(**batch).loss
    loss.backward()

    shown, hidden = batch["input_ids"].numpy(), batch["labels"].numpy()
    sizes = batch["attention_mask"].sum(1).numpy()
    ours = MaskedBatch(
        first_sample=0, samples=tuple(range(8)), tokens=shown, lengths=sizes - 1, shown=shown, hidden=hidden,
        sizes=sizes,
    )  # fmt: skip
    engine._config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"clip_norm": None})})
    found = engine.gradients(Step(0, (ours,)), number=0, stop=StopFlag())
    assert found.loss == pytest.approx(loss.item(), rel=1e-6)
    expected = dict(theirs.named_parameters())
    for name, parameter in engine.plain_model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-7)
    assert found.tokens == sizes.sum()


def test_the_loss_is_the_mean_over_the_hidden_tokens_however_the_batch_is_cut(masked_store, tmp_path, tokenizer):
    config = still_config(masked_store, tmp_path)
    whole = first_batch(config)
    engine = engine_of(config, len(tokenizer))
    prepare = open_objective(config).preparing(Purpose.VALIDATION)
    parts = tuple(prepare(Batch(n, (n,), whole.tokens[n : n + 1], whole.lengths[n : n + 1])) for n in whole.samples)
    assert len({part.targets for part in parts}) > 1  # a mean of means would be another number
    one = engine.gradients(Step(0, (whole,)), number=0, stop=StopFlag())
    norm = one.grad_norm
    other = engine.gradients(Step(0, parts), number=0, stop=StopFlag())
    assert other.loss == pytest.approx(one.loss, rel=1e-6)
    assert other.grad_norm == pytest.approx(norm, rel=1e-5)
    assert (other.tokens, other.data) == (one.tokens, one.data)
    assert engine.summed_loss(whole) == pytest.approx(one.loss * whole.targets, rel=1e-5)


def test_the_digest_of_a_step_tells_masks_apart(masked_store, tmp_path):
    from lmbatch.loader import batches_digest

    batch = first_batch(masked_config(masked_store, tmp_path))
    other = first_batch(masked_config(masked_store, tmp_path, seed=2))
    assert np.array_equal(batch.tokens, other.tokens)
    assert batches_digest([batch]) != batches_digest([other])


def test_the_export_is_plain_transformers(exported, masked_run, tokenizer):
    model, report = AutoModelForMaskedLM.from_pretrained(exported, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(model).__name__ == "RobertaForMaskedLM"
    config = model.config
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.max_position_embeddings == WIDTH + 2
    card = (exported / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card
    assert "AutoModelForMaskedLM" in card
    assert "15% (80% hidden, 10% random, 10% as they are)" in card


def test_fill_mask_gives_what_the_pipeline_gives(exported):
    filler = MaskFiller.from_folder(exported, device="cpu")
    theirs = pipeline("fill-mask", model=str(exported), tokenizer=str(exported), device="cpu")
    one, two = filler.fill(["the old king speaks of <mask>.", PROMPT], top_k=4)
    for masks, found in ((one.masks, [theirs(one.prompt, top_k=4)]), (two.masks, theirs(two.prompt, top_k=4))):
        for choices, expected in zip(masks, found, strict=True):
            assert [choice.id for choice in choices] == [item["token"] for item in expected]
            assert [choice.probability for choice in choices] == pytest.approx(
                [item["score"] for item in expected], rel=1e-4
            )
            assert [choice.token for choice in choices] == [item["token_str"] for item in expected]
    assert one.best == f"the old king speaks of{one.masks[0][0].token}."


def test_the_command(exported):
    run = CliRunner().invoke
    done = run(cli, ["fill-mask", str(exported), "-p", PROMPT, "--top-k", "2", "--json"], standalone_mode=False)
    (found,) = json.loads(done.stdout)
    assert [len(choices) for choices in found["masks"]] == [2, 2]
    assert found["masks"][0][0].keys() == {"token", "id", "probability"}
    done = run(cli, ["fill-mask", str(exported), "-p", PROMPT], standalone_mode=False)
    assert done.stdout.startswith("the old")
    assert len(done.stdout.splitlines()) == 2 + 2 * 5


def test_prompts_that_cannot_be_filled_are_refused(exported):
    filler = MaskFiller.from_folder(exported, device="cpu")
    with pytest.raises(UsageError, match=r"prompt 2 holds no <mask>[^\n]*\n.*write <mask>"):
        filler.fill([PROMPT, "no mask here"])
    with pytest.raises(UsageError, match=rf"prompt 1 has \d+ tokens .* see {WIDTH}"):
        filler.fill(["<mask>" + " the king" * 30])


def test_each_kind_of_model_is_refused_where_the_other_belongs(exported, masked_run, tmp_path, straight):
    with pytest.raises(UsageError, match=r"masked language model[^\n]*\n.*lmbatch fill-mask"):
        TextGenerator.from_folder(exported)
    with pytest.raises(UsageError, match=r"masked language model[^\n]*\n.*lmbatch fill-mask"):
        load_for_generation(masked_run.run_dir)
    causal = export_model(straight.run_dir, tmp_path / "causal")
    with pytest.raises(UsageError, match=r"causal language model[^\n]*\n.*lmbatch generate"):
        MaskFiller.from_folder(causal)


def test_a_tokenizer_without_the_special_tokens_is_refused(store, tmp_path):
    with pytest.raises(TokenizerError, match="first token, a padding token and a mask token"):
        train(masked_config(store, tmp_path))


def test_examples_that_leave_no_room_for_the_first_token_are_refused(masked_store, tmp_path):
    with pytest.raises(ConfigError, match=rf"up to {LENGTH} tokens .* {LENGTH + 1} with the first token"):
        train(masked_config(masked_store, tmp_path, data={"sequence_length": LENGTH}))


def test_prompts_without_a_mask_are_refused_before_training(masked_store, tmp_path):
    with pytest.raises(ConfigError, match=r"samples\.prompts: 'the king' holds no <mask>"):
        train(masked_config(masked_store, tmp_path, samples={"prompts": ["the king"]}))


def test_causal_said_or_unsaid_is_the_same_run(store, tmp_path):
    plain = tiny_config(store, tmp_path)
    assert fingerprint(tiny_config(store, tmp_path, objective={"name": "causal"})) == fingerprint(plain)
    assert fingerprint(tiny_config(store, tmp_path, objective={"name": "masked"})) != fingerprint(plain)
    with pytest.raises((ConfigError, ValidationError), match="begins with random weights"):
        tiny_config(store, tmp_path, objective={"name": "masked"}, model={"base": "somewhere"})
