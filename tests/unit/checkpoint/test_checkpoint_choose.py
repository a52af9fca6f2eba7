"""Choosing the newest valid checkpoint: nothing is believed but the bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoint_helpers import fill, flip_byte, make_facts

from lmbatch.checkpoint import CheckpointReceipt, Checkpoints
from lmbatch.checkpoint.layout import receipt_key
from lmbatch.checkpoint.receipt import Problem, parse_receipt
from lmbatch.errors import CheckpointError
from lmbatch.store import LocalStore


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_file(folder: Path) -> None:
    (folder / "parts/extra.json").unlink()


def lose_the_payload(folder: Path) -> None:
    shutil.rmtree(folder)


def lose_the_receipt(folder: Path) -> None:
    (folder.parent / "receipt.json").unlink()


def tear_the_receipt(folder: Path) -> None:
    path = folder.parent / "receipt.json"
    path.write_bytes(path.read_bytes()[:100])


def change_a_fact(folder: Path) -> None:
    path = folder.parent / "receipt.json"
    path.write_text(path.read_text().replace('"samples_consumed": 160', '"samples_consumed": 161'))


def age(folder: Path) -> None:
    path = folder.parent / "receipt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2, "new_key": 1}))


def flip(folder: Path) -> None:
    flip_byte(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "kind", "reason"),
    [
        (flip, "damaged", "model.safetensors: its bytes were changed"),
        (truncate, "damaged", "model.safetensors: has 1399 bytes, its receipt says 1400"),
        (lose_a_file, "damaged", "parts/extra.json: is missing"),
        (lose_the_payload, "damaged", "model.safetensors: is missing"),
        (lose_the_receipt, "torn", "interrupted before its commit"),
        (tear_the_receipt, "unreadable", "receipt.json is no receipt"),
        (change_a_fact, "damaged", "digest does not fit"),
        (age, "newer", "checkpoint format 2; this lmbatch reads format 1"),
    ],
)
def test_walks_back_and_says_why(checkpoints, run_dir, save, harm, kind, reason):
    save(10)
    harm(save(20))
    found, refusals = checkpoints.newest_valid()
    assert found.step == 10
    (refusal,) = refusals
    assert (refusal.step, refusal.kind) == (20, kind)
    assert reason in refusal.reason
    assert str(run_dir) in str(refusal)
    assert any(reason in line for line in checkpoints.verify(20))


def test_every_one_damaged_gives_none_and_every_reason(checkpoints, save):
    for step in (10, 20):
        flip(save(step))
    found, refusals = checkpoints.newest_valid()
    assert found is None
    assert [refusal.step for refusal in refusals] == [20, 10]


def test_an_empty_folder_has_none(checkpoints):
    assert checkpoints.newest_valid() == (None, [])
    assert checkpoints.list() == []


def test_retired_steps_can_be_saved_again(checkpoints, run_dir, save):
    save(10)
    flip(save(20))
    _, refusals = checkpoints.newest_valid()
    (aside,) = checkpoints.retire(refusals)
    assert aside.name == "receipt.damaged-1.json"
    save(20)
    assert checkpoints.newest_valid()[0].step == 20


def test_retire_looks_again_and_leaves_what_is_good_or_newer(checkpoints, save):
    folder = save(20)
    before = (folder / "model.safetensors").read_bytes()
    flip(folder)
    _, refusals = checkpoints.newest_valid()
    (folder / "model.safetensors").write_bytes(before)
    assert checkpoints.retire(refusals) == []
    age(save(30))
    _, refusals = checkpoints.newest_valid()
    assert checkpoints.retire(refusals) == []
    with pytest.raises(CheckpointError, match="checkpoint format 2"):
        checkpoints.save(make_facts(30), fill(30))


def test_at_gives_the_named_step_or_says_what_is_wrong(checkpoints, save):
    save(10)
    flip(save(20))
    assert checkpoints.at(10).facts == make_facts(10)
    with pytest.raises(CheckpointError, match=r"step 20: .*bytes were changed") as caught:
        checkpoints.at(20)
    assert "10, 20" in caught.value.remedy
    with pytest.raises(CheckpointError, match="no valid checkpoint of step 7"):
        checkpoints.at(7)


def test_list_reads_receipts_only(checkpoints, save):
    save(10)
    lose_the_receipt(save(20))
    first, second = checkpoints.list()
    assert (first.step, first.state, first.files, first.bytes) == (10, "committed", 2, 1412)
    assert first.facts == make_facts(10)
    assert (second.step, second.state, second.facts) == (20, "torn", None)


def test_steps_sort_as_numbers(run_dir):
    checkpoints = Checkpoints(LocalStore(run_dir))
    for step in (99_999_999, 100_000_000):
        checkpoints.save(make_facts(step), fill(1))
    assert checkpoints.newest_valid()[0].step == 100_000_000


@pytest.mark.parametrize("key", ["checkpoints/step-00000020/attempt-aa/../../x", "/etc/passwd", "tokenizer/x"])
def test_a_receipt_cannot_point_out_of_its_folder(key):
    file = {"key": key, "size": 1, "sha256": "0" * 64}
    receipt = CheckpointReceipt.model_validate(
        {"attempt": "attempt-aa", "saved_at": 0, "facts": make_facts(20), "files": [file]}
    ).sealed()
    problem = parse_receipt(receipt.to_json(), 20)
    assert isinstance(problem, Problem)
    assert "lies outside" in problem.reason


def test_a_receipt_copied_to_another_step_is_refused(checkpoints, run_dir, save):
    save(20)
    (run_dir / receipt_key(30)).parent.mkdir()
    shutil.copy(run_dir / receipt_key(20), run_dir / receipt_key(30))
    found, (refusal,) = checkpoints.newest_valid()
    assert found.step == 20
    assert "belongs to step 20" in refusal.reason
