"""What cutting lines off would keep of a corpus whose lines are split up."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from transformers import AutoTokenizer

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from support.drive import preprocess_here
from support.masked_corpus import LENGTH, WIDTH, lines, preprocess_config, write_corpus


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    write_corpus(folder)
    return folder


def kept(store, *options: str) -> dict:
    command = ["data", "kept", str(store), *options, "--json"]
    return json.loads(CliRunner().invoke(cli, command, standalone_mode=False, catch_exceptions=False).stdout)


def test_truncation_keeps_what_hugging_face_keeps(root):
    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer")
    cut = tokenizer(lines(), truncation=True, max_length=WIDTH)["input_ids"]
    whole = tokenizer(lines(), add_special_tokens=False)["input_ids"]
    found = kept(root / "store", "--mode", "truncate", "--length", str(LENGTH))
    assert found["documents"] == len(whole)
    assert found["encoded"] == sum(map(len, whole))
    assert found["kept"] == sum(len(ids) - 2 for ids in cut) < found["encoded"]
    assert kept(root / "store", "--mode", "split_lines", "--length", "9")["share"] == 1


def test_a_corpus_that_lost_tokens_cannot_tell(root, tmp_path):
    config = preprocess_config(root, chunking={"mode": "lines", "length": LENGTH}, store=str(tmp_path / "cut"))
    preprocess_here(config)
    with pytest.raises(UsageError, match="do not hold all tokens"):
        kept(tmp_path / "cut", "--mode", "truncate", "--length", "9")
