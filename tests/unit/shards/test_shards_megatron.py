"""Someone else's reader and writer of the same format: Megatron-LM's own."""

import warnings

import numpy as np
import pytest
from shard_helpers import EOD, write_shard

from lmbatch.shards import Shard, ShardWriter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

DOCUMENTS = {
    "uint16": [[5, 6, EOD], [EOD], [65535, 0, 32768, EOD], [*list(range(10, 500)), EOD]],
    "int32": [[70_000, EOD], [2**31 - 1, 0, EOD], [EOD]],
}


@pytest.mark.parametrize("dtype", DOCUMENTS)
def test_megatron_reads_what_we_write(tmp_path, dtype):
    write_shard(tmp_path, DOCUMENTS[dtype], dtype=dtype)
    dataset = IndexedDataset(str(tmp_path / "s"))
    assert [dataset[number].tolist() for number in range(len(dataset))] == DOCUMENTS[dtype]
    assert dataset[0].dtype == np.dtype(dtype)
    assert dataset.document_indices.tolist() == list(range(len(DOCUMENTS[dtype]) + 1))
    assert dataset.sequence_lengths.tolist() == [len(ids) for ids in DOCUMENTS[dtype]]


@pytest.mark.parametrize("dtype", DOCUMENTS)
def test_we_read_what_megatron_writes_and_write_the_same_bytes(tmp_path, dtype):
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=getattr(np, dtype))
    for ids in DOCUMENTS[dtype]:
        builder.add_item(torch.tensor(ids))
        builder.end_document()
    builder.finalize(str(tmp_path / "m.idx"))
    shard = Shard.open(tmp_path / "m.bin", tmp_path / "m.idx")
    assert [shard.document(number).tolist() for number in range(len(shard))] == DOCUMENTS[dtype]
    written = write_shard(tmp_path, DOCUMENTS[dtype], dtype=dtype)
    assert written.idx.read_bytes() == (tmp_path / "m.idx").read_bytes()
    assert written.bin.read_bytes() == (tmp_path / "m.bin").read_bytes()


def test_documents_of_several_sequences_are_the_same_to_both(tmp_path):
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=np.uint16)
    builder.add_document(torch.tensor([5, 6, 7, EOD]), [2, 2])
    builder.add_document(torch.tensor([8, 9, EOD]), [3])
    builder.finalize(str(tmp_path / "m.idx"))
    shard = Shard.open(tmp_path / "m.bin", tmp_path / "m.idx")
    assert [shard.document(number).tolist() for number in range(len(shard))] == [[5, 6, 7, EOD], [8, 9, EOD]]
    assert [shard.sequence(number).tolist() for number in range(3)] == [[5, 6], [7, EOD], [8, 9, EOD]]
    writer = ShardWriter(tmp_path, "s", "uint16", examples=True)
    for ids, lengths in (([5, 6, 7, EOD], [2, 2]), ([8, 9, EOD], [3])):
        writer.append(ids, piece=0, position=0, id=None, text_bytes=0, lengths=lengths)
    assert writer.close().idx.read_bytes() == (tmp_path / "m.idx").read_bytes()
    dataset = IndexedDataset(str(tmp_path / "s"))
    assert [dataset[number].tolist() for number in range(3)] == [[5, 6], [7, EOD], [8, 9, EOD]]
    assert dataset.document_indices.tolist() == [0, 2, 3]
