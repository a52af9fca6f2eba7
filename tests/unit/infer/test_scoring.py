"""Perplexity and bits per byte: every token once, in the context that was said, whatever the batches."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, RobertaConfig, RobertaForMaskedLM

from lmbatch.cli import cli
from lmbatch.errors import TokenizerError, UsageError
from lmbatch.infer import export_model, load_for_generation
from lmbatch.infer.scoring import Document, Score, Scorer, windows
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics
from support.tiny_corpus import LETTERS, write_corpus
from support.tiny_run import tiny_config
from support.word_folder import TEXT, write_word_model

LENGTHS = (1, 5, 16, 17, 40, 63)


@pytest.mark.parametrize("stride", [1, 3, 8, 16])
@pytest.mark.parametrize("targets", LENGTHS)
def test_windows_score_every_target_once_with_enough_before_it(targets, stride):
    scored = []
    for window in windows(targets, context=16, stride=stride):
        assert 1 <= window.inputs <= 16
        end = window.start + window.inputs
        first = end - window.scored
        assert first >= window.start
        assert window.start == 0 or first - window.start >= 16 - stride
        scored += range(first, end)
    assert scored == list(range(targets))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_word_model(tmp_path_factory.mktemp("scored"))
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def documents() -> list[Document]:
    generator = torch.Generator().manual_seed(0)
    return [
        Document(torch.randint(5, 30, (length,), generator=generator).tolist(), 3 * length) for length in (0, *LENGTHS)
    ]


def by_hand(model, document: Document, context: int, stride: int) -> float:
    """One forward pass for each window, and no batch."""
    ids, total = [0, *document.ids, 0], 0.0
    for window in windows(len(ids) - 1, context=context, stride=stride):
        end = window.start + window.inputs
        with torch.no_grad():
            logits = model(torch.tensor([ids[window.start : end]])).logits[0, -window.scored :]
        total += F.cross_entropy(logits, torch.tensor(ids[end + 1 - window.scored : end + 1]), reduction="sum").item()
    return total


@pytest.mark.parametrize(("context", "stride"), [(16, 8), (16, 16), (64, 32), (7, 1)])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_sum_is_that_of_single_passes(model, context, stride, batch):
    found = Scorer(model, eod_id=0, context=context, stride=stride, batch=batch, unknown_id=7).score(documents())
    assert found.nats == pytest.approx(sum(by_hand(model, one, context, stride) for one in documents()), rel=1e-5)
    assert found.tokens == sum(length + 1 for length in (0, *LENGTHS))
    assert found.documents == 1 + len(LENGTHS)
    assert found.unknown == sum(one.ids.count(7) for one in documents())
    again = Scorer(model, eod_id=0, context=context, stride=stride, batch=batch, unknown_id=7).score(documents())
    assert again == found


def test_the_mean_is_over_tokens():
    total = Score(1, 10, 30, 20.0) + Score(2, 30, 90, 20.0, unknown=1)
    assert (total.loss, total.documents, total.unknown) == (1.0, 3, 1)
    assert total.perplexity == pytest.approx(math.e)
    assert total.bits_per_byte == pytest.approx(40 / math.log(2) / 120)
    assert Score(1, 2, 0, 3.0).bits_per_byte is None


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_leaves_gaps_is_refused(model, stride):
    with pytest.raises(UsageError, match="does not fit a context of 16"):
        Scorer(model, eod_id=0, context=16, stride=stride, batch=1)


def test_no_document_is_no_result(model):
    with pytest.raises(UsageError, match="no document"):
        Scorer(model, eod_id=0, context=16, stride=8, batch=1).score([])


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run, its store and its export."""
    folder = tmp_path_factory.mktemp("evaluated")
    store = write_corpus(folder / "store")
    result = train(tiny_config(store, folder, steps=6, save={"every": 6}, evaluate={"batches": 1000}))
    return result.run_dir, store, export_model(result.run_dir, folder / "export")


def evaluate(*arguments) -> dict:
    done = CliRunner().invoke(cli, ["evaluate", *map(str, arguments), "--json"], catch_exceptions=False,
                              standalone_mode=False)  # fmt: skip
    return json.loads(done.stdout)


def test_a_corpus_gives_nearly_what_training_saw(run):
    """Training packs the same documents into samples, so their contexts differ a little."""
    run_dir, store, export = run
    (found,) = evaluate(export, "--store", store)["texts"].values()
    last = evaluation_rows(read_metrics(run_dir))[-1]
    assert found["documents"] == 40
    assert found["loss"] == pytest.approx(last["loss"], rel=0.02)
    assert found["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=0.02)
    assert evaluate(run_dir, "--store", store)["texts"] == {f"{store} (validation)": found}


def test_the_first_documents_alone_have_no_bytes(run):
    _, store, export = run
    (found,) = evaluate(export, "--store", store, "--documents", 3)["texts"].values()
    assert (found["documents"], found["bits_per_byte"]) == (3, None)


def test_text_files(run, tmp_path):
    _, _, export = run
    (tmp_path / "a.txt").write_text("\ufeff" + LETTERS + "\n" + LETTERS[::-1], encoding="utf-8")
    whole = evaluate(export, tmp_path / "a.txt", "--stride", 4)
    assert (whole["context"], whole["stride"]) == (32, 4)
    (found,) = whole["texts"].values()
    assert (found["documents"], found["text_bytes"]) == (1, 6 * len(LETTERS) + 1)
    (lines,) = evaluate(export, tmp_path / "a.txt", "--lines")["texts"].values()
    assert (lines["documents"], lines["text_bytes"]) == (2, 6 * len(LETTERS))


def test_what_cannot_be_evaluated_is_refused(run, tmp_path):
    _, store, export = run
    (tmp_path / "gbk.txt").write_bytes("中文".encode("gbk"))
    with pytest.raises(UsageError, match="byte 0: is not UTF-8"):
        evaluate(export, tmp_path / "gbk.txt")
    with pytest.raises(UsageError, match="more than the 32 tokens"):
        evaluate(export, "--store", store, "--context", 33)
    with pytest.raises(UsageError, match="nothing to evaluate on"):
        evaluate(export)
    cut = write_corpus(tmp_path / "cut", length=24)
    with pytest.raises(UsageError, match="were cut"):
        evaluate(export, "--store", cut)
    with pytest.raises(TokenizerError, match="id 0 is '\\[SEP\\]' in the first"):
        evaluate(write_word_model(tmp_path / "words"), "--store", store)


def test_a_masked_model_has_no_perplexity(run, tmp_path):
    _, _, export = run
    masked = tmp_path / "masked"
    RobertaForMaskedLM(RobertaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16)).save_pretrained(masked)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (masked / name).write_bytes((export / name).read_bytes())
    (tmp_path / "a.txt").write_text(LETTERS, encoding="utf-8")
    with pytest.raises(UsageError, match="masked language model"):
        evaluate(masked, tmp_path / "a.txt")


def test_unknown_words_are_counted(tmp_path):
    folder = write_word_model(tmp_path / "words")
    (tmp_path / "a.txt").write_text(TEXT + "闻所未闻", encoding="utf-8")
    (found,) = evaluate(folder, tmp_path / "a.txt")["texts"].values()
    assert found["unknown_tokens"] == len(load_for_generation(folder).tokenizer("闻所未闻")["input_ids"]) > 0
