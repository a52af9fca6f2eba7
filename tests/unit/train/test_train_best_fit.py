"""Training on a corpus packed by best fit: its documents apart give the loss of each alone, whatever pads them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from lmbatch.config import ModelConfig, TrainConfig
from lmbatch.loader import Apart, ApartBatch, Batch, BatchLoader, Purpose, open_train_data
from lmbatch.loader.batches import IGNORED
from lmbatch.model import build_model, causal_loss
from lmbatch.train import train
from lmbatch.train.metrics import evaluation_rows, read_metrics, training_rows
from lmbatch.train.objective import open_objective
from lmbatch.train.stop import StopFlag
from support.drive import preprocess_here
from support.tiny_run import assert_equal_runs, call_after_step, tiny_config
from support.wudao import config_for, write_files, write_tokenizer

LENGTH = 48  # some documents are longer
APART = {"document_attention": True, "sequence_length": LENGTH + 3}
STILL = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, **STILL}
EOD = 0


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("best-fit-train")
    write_files(folder / "raw", files=2)
    write_tokenizer(folder / "tok")
    chunking = {"mode": "best_fit", "length": LENGTH}
    preprocess_here(config_for(folder, chunking=chunking, tasks={"bytes": 10**6}))
    return str(folder / "store")


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.inputs().items()}


def documents(batch: Batch, eod: int) -> list[torch.Tensor]:
    """The parts of documents in a batch, padding and parts of one token left out."""
    parts = [part for row in batch.rows() for part in np.split(row, np.flatnonzero(row == eod) + 1)]
    return [torch.from_numpy(np.ascontiguousarray(part))[None] for part in parts if len(part) > 1]


def first_batch(config: TrainConfig) -> ApartBatch:
    with (
        open_train_data(config.data, seed=1) as data,
        BatchLoader(
            data.order, data.reader, batch_size=8, micro=8, prepare=open_objective(config).preparing(Purpose.TRAINING)
        ) as loader,
    ):
        batch = next(loader).batches[0]
    assert isinstance(batch, ApartBatch)
    return batch


def test_positions_labels_and_counts_leave_the_padding_out():
    rows = np.array([[5, 6, EOD, 7, EOD, EOD, EOD], [5, 6, 7, 8, 9, EOD, EOD], [5, 6, EOD, 4, 3, 2, EOD]])
    batch = Apart(EOD)(Batch(0, (0, 1, 2), rows, np.array([5, 5, 7])))
    assert batch.labels().tolist() == [
        [6, EOD, IGNORED, EOD, IGNORED, IGNORED],
        [6, 7, 8, 9, IGNORED, IGNORED],  # cut: it ends without EOD, and the padding is not predicted
        [6, EOD, IGNORED, 3, 2, EOD],
    ]
    assert batch.inputs()["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]]
    assert batch.targets == int((batch.labels() != IGNORED).sum()) == 3 + 4 + 5
    assert batch.seen == 5 + 5 + 6
    assert [row.tolist() for row in batch.rows()] == [[5, 6, EOD, 7, EOD], [5, 6, 7, 8, 9], rows[2].tolist()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_examples_give_the_loss_and_gradients_of_their_documents_alone(packed, tmp_path, attention):
    config = tiny_config(packed, tmp_path, data=APART)
    batch = first_batch(config)
    eod = batch.eod_id
    assert sum((row == eod).sum() > 1 for row in batch.rows()) > 2  # of several documents
    assert len({len(row) for row in batch.rows()}) > 1  # and padded
    assert any(row[-1] != eod for row in batch.rows())  # and cut ones
    model = build_model(
        ModelConfig(type="gpt2", config=GPT2), vocab_size=600, sequence_length=LENGTH + 3, eod_id=eod, seed=3
    )
    model.set_attn_implementation(attention)
    together = causal_loss(model(**tensors(batch), use_cache=False).logits, torch.from_numpy(batch.labels()))
    together.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    parts = documents(batch, eod)
    losses = [causal_loss(model(input_ids=ids[:, :-1], use_cache=False).logits, ids[:, 1:]) for ids in parts]
    alone = torch.stack(losses).sum()
    alone.backward()
    assert batch.targets == sum(ids.shape[1] - 1 for ids in parts)
    assert together.item() == pytest.approx(alone.item(), rel=2e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=2e-4, atol=2e-5)
    shown = torch.from_numpy(np.ascontiguousarray(batch.inputs()["input_ids"]))
    mixed = causal_loss(model(input_ids=shown, use_cache=False).logits, torch.from_numpy(batch.labels()))
    assert abs(mixed.item() - alone.item()) > 1e-4 * alone.item()  # else this test could not fail


def test_variable_length_kernels_are_told_where_documents_begin(packed, tmp_path):
    """What transformers makes of one row's positions for ``flash_attention_2``, which itself wants a GPU."""
    batch = first_batch(tiny_config(packed, tmp_path, data=APART))
    places = tensors(batch)["position_ids"]
    for row, tokens, length in zip(places, batch.tokens, batch.lengths, strict=True):
        (begins, _), (longest, _) = prepare_fa_kwargs_from_position_ids(row[None])
        ends = {at + 1 for at in np.flatnonzero(tokens[:length] == batch.eod_id).tolist()}
        shown = len(tokens) - 1
        expected = sorted({0, shown, *(end for end in ends if end < shown)})
        assert begins.tolist() == expected
        assert int(longest) == max(end - start for start, end in itertools.pairwise(expected))


def test_a_run_learns_counts_what_it_reads_and_resumes_bit_for_bit(packed, tmp_path):
    changes = {"data": APART, "model": {"config": STILL}}
    run = train(tiny_config(packed, tmp_path / "straight", **changes))
    rows = training_rows(read_metrics(run.run_dir))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert evaluation_rows(read_metrics(run.run_dir))[-1]["tokens"] > 0
    config = tiny_config(packed, tmp_path / "stopped", **changes)
    stop = StopFlag()
    call_after_step(7, lambda: stop.request("SIGTERM"))
    assert train(config, stop=stop).exit_code == 75
    assert_equal_runs(train(config).run_dir, run.run_dir)


def test_documents_may_see_each_other_too(packed, tmp_path):
    data = {"sequence_length": LENGTH + 3}
    mixed = train(tiny_config(packed, tmp_path / "mixed", steps=2, data=data, model={"config": STILL}))
    apart = train(tiny_config(packed, tmp_path / "apart", steps=2, data=APART, model={"config": STILL}))
    ours, others = (training_rows(read_metrics(run.run_dir)) for run in (mixed, apart))
    assert [row["data"] for row in ours] == [row["data"] for row in others]
    assert [row["loss"] for row in ours] != [row["loss"] for row in others]
