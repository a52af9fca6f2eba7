"""A run goes on in any shape: {1, 2, 4} processes, each with {plain, ZeRO 1, 2, 3}.

Of the 132 ways from one shape to another CI goes a tour that leaves and enters every shape and makes every kind of
change; ``LMBATCH_ALL_SHAPES=1`` (``make test-shapes``) goes all of them.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmbatch.infer import export_model
from lmbatch.infer.run import choose_checkpoint, load_checkpoint, read_run
from lmbatch.train.attempts import read_attempts
from support.rank_server import RankServer
from support.shape_runs import SMALL, Runner, Shape, assert_bit_for_bit, assert_same_losses
from support.tiny_corpus import write_corpus
from support.tiny_run import saved_steps

pytestmark = pytest.mark.slow

WORLDS = (1, 2, 4)
ENGINES = {"plain": {"name": "plain"}} | {
    f"zero{stage}": {"name": "deepspeed", "zero_stage": stage, **SMALL} for stage in (1, 2, 3)
}
SHAPES: dict[str, Shape] = {
    f"{name}x{world}": (world, engine) for world, (name, engine) in itertools.product(WORLDS, ENGINES.items())
}
TOUR = [
    ("plainx1", "zero1x2"), ("zero1x2", "zero3x4"), ("zero3x4", "plainx1"), ("zero1x1", "plainx4"),
    ("plainx4", "zero3x2"), ("zero3x2", "zero2x4"), ("zero2x4", "plainx2"), ("plainx2", "zero2x1"),
    ("zero2x1", "zero2x2"), ("zero2x2", "zero3x1"), ("zero3x1", "zero1x4"), ("zero1x4", "zero1x1"),
    ("plainx1", "plainx4"), ("plainx2", "plainx1"), ("plainx2", "zero2x2"), ("zero3x2", "plainx2"),
    ("zero1x4", "zero3x4"), ("zero3x2", "zero1x2"), ("zero3x4", "zero1x2"), ("plainx1", "zero3x1"),
]  # fmt: skip
ALL = list(itertools.permutations(SHAPES, 2))
WAYS = ALL if os.environ.get("LMBATCH_ALL_SHAPES") == "1" else TOUR

TWENTY = {"steps": 20, "save": {"every": 10}, "evaluate": {"every": 10}, "samples": {"prompts": []}}
DROPOUT = {**TWENTY, "model": {"config": {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}}}


def change(before: str, after: str) -> tuple[str, str]:
    """What happens to the number of processes, and to the engine."""
    (old, _), (new, _) = SHAPES[before], SHAPES[after]
    engines = before[:-2], after[:-2]
    world = "stays" if old == new else "grows" if new > old else "shrinks"
    if "plain" in engines or engines[0] == engines[1]:
        return world, " to ".join("plain" if name == "plain" else "zero" for name in engines)
    return world, "stage up" if engines[1] > engines[0] else "stage down"


def test_the_tour_leaves_and_enters_every_shape_by_every_kind_of_change():
    assert {before for before, _ in TOUR} == {after for _, after in TOUR} == set(SHAPES)
    assert {change(*way) for way in TOUR} == {change(*way) for way in ALL}
    assert {(SHAPES[one][0], SHAPES[other][0]) for one, other in TOUR} == set(itertools.product(WORLDS, WORLDS))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with RankServer() as server:
        yield Runner(server, write_corpus(tmp_path_factory.mktemp("tiny-store")), SHAPES)


@pytest.fixture(scope="module")
def straight(run, tmp_path_factory):
    """The folder of 20 undisturbed steps in a shape; checkpoints of step 10 and step 20."""
    done: dict[str, Path] = {}

    def get(shape: str) -> Path:
        if shape not in done:
            done[shape] = run(tmp_path_factory.mktemp("straight"), shape, changes=TWENTY)
        return done[shape]

    return get


def at_step_10(run_dir: Path, folder: Path) -> None:
    """A copy of a run that died without notice after step 10's checkpoint."""
    shutil.copytree(run_dir, folder / "tiny", ignore=shutil.ignore_patterns("step-00000020", "lock"))
    assert saved_steps(folder / "tiny") == [10]


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_a_run_goes_on_in_another_shape(run, straight, tmp_path, before, after):
    at_step_10(straight(before), tmp_path)
    run_dir = run(tmp_path, after, changes=TWENTY)
    assert_same_losses(run_dir, straight("plainx1"), 1e-5)
    attempt = read_attempts(run_dir)[-1]
    assert (attempt.resumed_from, attempt.world_size) == (10, SHAPES[after][0])


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_steps_and_ten_are_twenty_bit_for_bit(run, tmp_path, shape):
    (tmp_path / "straight").mkdir()
    whole = run(tmp_path / "straight", shape, changes=DROPOUT)
    at_step_10(whole, tmp_path)
    assert_bit_for_bit(run(tmp_path, shape, changes=DROPOUT), whole)


def test_what_a_model_draws_from_python_and_numpy_is_drawn_again(run, straight, tmp_path):
    """In a process that does not save, whose generators no checkpoint holds."""
    (tmp_path / "straight").mkdir()
    whole = run(tmp_path / "straight", "plainx2", changes=TWENTY, draws=[1])
    with pytest.raises(AssertionError):
        assert_same_losses(whole, straight("plainx2"), 1e-3)
    at_step_10(whole, tmp_path)
    assert_bit_for_bit(run(tmp_path, "plainx2", changes=TWENTY, draws=[1]), whole)


@pytest.fixture(scope="module")
def logits(straight, tmp_path_factory):
    """What transformers makes of the export of a shape's run, after a look that it is what the checkpoint gives."""
    ids = torch.arange(1, 33)[None]

    def get(shape: str) -> torch.Tensor:
        folder = export_model(straight(shape), tmp_path_factory.mktemp("export") / "out")
        run = read_run(straight(shape))
        with torch.no_grad():
            found = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
            assert torch.equal(found, load_checkpoint(run, choose_checkpoint(run)).eval()(ids).logits)
        return found

    return get


@pytest.mark.parametrize("shape", list(SHAPES)[1:])
def test_weights_alone_go_into_other_trainers_from_every_shape(logits, shape):
    assert torch.allclose(logits(shape), logits("plainx1"), atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", ["plainx2", "zero1x2", "zero3x2"])
def test_a_padded_vocabulary_changes_no_number_in_any_engine(run, straight, tmp_path, shape):
    changes = {**TWENTY, "samples": {"prompts": ["一"]}, "model": {"pad_vocab_to_multiple": 48}}
    run_dir = run(tmp_path, shape, changes=changes)
    assert_same_losses(run_dir, straight("plainx1"), 1e-5)
    assert AutoModelForCausalLM.from_pretrained(export_model(run_dir, tmp_path / "out")).config.vocab_size == 58
