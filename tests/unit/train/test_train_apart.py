"""Documents of a packed sample kept apart: the loss and gradients of each alone, and a run that resumes exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from pydantic import ValidationError
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lmbatch.config import DataConfig, ModelConfig, fingerprint
from lmbatch.errors import ConfigError
from lmbatch.loader import Apart, ApartBatch, Batch, Purpose, Step, batches_digest, open_train_data
from lmbatch.loader.apart import positions
from lmbatch.loader.batches import IGNORED
from lmbatch.model import build_model, causal_loss, check_documents_apart
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.objective import open_objective
from lmbatch.train.optimizer import build_optimizer
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.recorder import Recorder
from lmbatch.train.stop import StopFlag
from support.tiny_corpus import write_corpus
from support.tiny_run import assert_equal_runs, call_after_step, tiny_config

EOD = 0
APART = {"document_attention": True}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = WIDE | {"num_key_value_heads": 2, "head_dim": 8}
KEEPS_APART = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "llama": WIDE,
    "qwen2": WIDE | {"num_key_value_heads": 2},
    "qwen3": GROUPED,
    "mistral": WIDE | {"num_key_value_heads": 2},
    "gemma": GROUPED,
    "gpt_neox": WIDE,
    "phi3": WIDE | {"pad_token_id": 0},
    "olmo2": WIDE,
}
MIXES = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # ALiBi: it has no positions that could begin again
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
            "word_embed_proj_dim": 32},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
}  # fmt: skip
ROWS = np.array(
    [
        [5, 9, 4, EOD, 3, EOD, 7, 7, 2, 8, 1, EOD, 6],
        [EOD, 4, 4, 1, 9, 2, 2, 3, EOD, 5, EOD, 8, EOD],
        [5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3],
    ]
)


def batch_of(rows: np.ndarray = ROWS) -> ApartBatch:
    return Apart(EOD)(Batch(0, tuple(range(len(rows))), rows))


def documents(rows: np.ndarray = ROWS) -> list[np.ndarray]:
    """The pieces of documents in the rows, those of one token left out: nothing of them is predicted."""
    pieces = [piece for row in rows for piece in np.split(row, np.flatnonzero(row == EOD) + 1)]
    return [piece for piece in pieces if len(piece) > 1]


def model_of(kind: str, config: dict, attention: str = "sdpa") -> torch.nn.Module:
    settings = ModelConfig(type=kind, config=config)
    model = build_model(settings, vocab_size=48, sequence_length=16, eod_id=EOD, seed=3)
    model.set_attn_implementation(attention)
    return model


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_positions_begin_again_and_no_first_token_is_predicted():
    batch = batch_of()
    places = batch.inputs()["position_ids"]
    assert places[0].tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]
    assert places[1].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 0]
    assert places[2].tolist() == list(range(12))
    assert batch.labels()[0].tolist() == [9, 4, EOD, IGNORED, EOD, IGNORED, 7, 2, 8, 1, EOD, IGNORED]
    assert batch.targets == sum(len(piece) - 1 for piece in documents()) == int((batch.labels() != IGNORED).sum())
    assert batch.seen == 36
    assert np.array_equal(positions(ROWS[:, :0], EOD), ROWS[:, :0])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KEEPS_APART)
def test_a_packed_sample_gives_the_loss_and_gradients_of_its_documents_alone(kind, attention):
    model = model_of(kind, KEEPS_APART[kind], attention)
    check_documents_apart(model)
    batch = batch_of()
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.inputs().items()}
    packed = causal_loss(model(**tensors, use_cache=False).logits, torch.from_numpy(batch.labels()))
    packed.backward()
    together = gradients(model)
    alone = torch.zeros(())
    for piece in documents():
        ids = torch.from_numpy(piece)[None]
        alone = alone + causal_loss(model(input_ids=ids[:, :-1], use_cache=False).logits, ids[:, 1:])
    alone.backward()
    apart = gradients(model)
    assert packed.item() == pytest.approx(alone.item(), rel=2e-6)
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], rtol=2e-4, atol=2e-5)
    plain = causal_loss(model(input_ids=tensors["input_ids"], use_cache=False).logits, torch.from_numpy(batch.labels()))
    assert abs(plain.item() - alone.item()) > 1e-4 * alone.item()  # else this test could not fail


@pytest.mark.parametrize("kind", MIXES)
def test_a_model_that_mixes_documents_is_refused(kind):
    with pytest.raises(ConfigError, match=f"`{kind}` does not keep documents apart"):
        check_documents_apart(model_of(kind, MIXES[kind]))


def test_a_model_that_mixes_documents_where_there_are_several_rows_is_refused():
    """As flash_attention_2 does in transformers (``_is_packed_sequence``), which cannot run here."""

    def alone_or_mixed(module, query, key, value, attention_mask, **kwargs):
        mask = attention_mask if len(query) == 1 else None
        return sdpa_attention_forward(module, query, key, value, mask, is_causal=mask is None, **kwargs)

    AttentionInterface.register("alone_or_mixed", alone_or_mixed)
    AttentionMaskInterface.register("alone_or_mixed", sdpa_mask)
    model = model_of("llama", KEEPS_APART["llama"], "alone_or_mixed")
    with pytest.raises(ConfigError, match="`llama` does not keep documents apart"):
        check_documents_apart(model)


def test_asking_a_model_leaves_it_as_it_was():
    model = model_of("gpt2", {"n_layer": 1, "n_embd": 32, "n_head": 4}).train()
    random = torch.get_rng_state()
    check_documents_apart(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)


def test_the_engine_divides_by_what_is_predicted(store, tmp_path):
    config = tiny_config(store, tmp_path, data=APART | {"sequence_length": 12})
    model = model_of("gpt2", KEEPS_APART["gpt2"])
    engine = PlainEngine(config, Accelerator(cpu=True), model, build_optimizer(model, config.optimizer), None)
    batches = (batch_of(ROWS[:2]), batch_of(ROWS[2:]))
    found = engine.gradients(Step(0, batches), number=1, stop=StopFlag())
    alone = [torch.from_numpy(piece)[None] for piece in documents()]
    losses = [causal_loss(model(input_ids=ids[:, :-1], use_cache=False).logits, ids[:, 1:]).item() for ids in alone]
    assert found.loss == pytest.approx(sum(losses) / sum(ids.shape[1] - 1 for ids in alone), rel=1e-5)
    assert found.tokens == 36
    assert found.data == f"{batches_digest(batches):016x}"


def test_a_run_learns_reads_the_same_samples_and_resumes_bit_for_bit(store, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    run = train(tiny_config(store, tmp_path / "straight", data=APART))
    rows, usual = training_rows(read_metrics(run.run_dir)), training_rows(read_metrics(straight.run_dir))
    assert [row["data"] for row in rows] == [row["data"] for row in usual]
    assert [row["loss"] for row in rows] != [row["loss"] for row in usual]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert evaluation_rows(read_metrics(run.run_dir))[-1]["tokens"] < 3 * 4 * 32
    config = tiny_config(store, tmp_path / "stopped", data=APART)
    stop = StopFlag()
    call_after_step(7, lambda: stop.request("SIGTERM"))
    assert train(config, stop=stop).exit_code == 75
    assert_equal_runs(train(config).run_dir, run.run_dir)


def test_another_micro_batch_gives_the_same_losses(store, tmp_path):
    still = {"config": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}}
    rows = {}
    for micro in (8, 2):
        changes = {"data": APART, "model": still, "steps": 3, "batch": {"micro": micro}}
        rows[micro] = training_rows(read_metrics(train(tiny_config(store, tmp_path / str(micro), **changes)).run_dir))
    assert [row["loss"] for row in rows[8]] == pytest.approx([row["loss"] for row in rows[2]], rel=1e-5)


def test_it_is_refused_where_it_means_nothing(store, tmp_path):
    cut = write_corpus(tmp_path / "cut", length=16)
    with pytest.raises(ConfigError, match="every example is of one document already"):
        open_objective(tiny_config(cut, tmp_path, data=APART))
    config = tiny_config(store, tmp_path, data=APART)
    bloom = config.model_copy(update={"model": ModelConfig(type="bloom", config=MIXES["bloom"])})
    with pytest.raises(ConfigError, match="`bloom` does not keep documents apart"):
        train(bloom)
    with pytest.raises((ConfigError, ValidationError), match=r"document_attention is for the causal objective"):
        tiny_config(store, tmp_path, data=APART, objective={"name": "masked"})


def test_saying_no_is_saying_nothing(store, tmp_path):
    one = tiny_config(store, tmp_path)
    assert fingerprint(tiny_config(store, tmp_path, data={"document_attention": False})) == fingerprint(one)
    assert fingerprint(tiny_config(store, tmp_path, data=APART)) != fingerprint(one)
    assert DataConfig(store="s", sequence_length=8).document_attention is None
    assert open_objective(one).preparing(Purpose.TRAINING) is None
    with open_train_data(one.data, seed=1) as data:
        (batch,) = data.evaluation(micro=2, batches=1, prepare=open_objective(one).preparing(Purpose.VALIDATION))
    assert not batch.targets_vary
