"""YAML, `extends` and `--set` into a checked config, and the errors on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lmbatch.config import PreprocessConfig, TrainConfig, dump_yaml, fingerprint, load_config
from lmbatch.config.load import parse_yaml
from lmbatch.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]

TRAIN = """
run: {name: r}
data: {store: s, sequence_length: 8}
model: {type: gpt2}
optimizer: {lr: 1e-4}
batch: {size: 4, micro: 2}
steps: 3
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def train(folder: Path, extra: str = "", sets: tuple[str, ...] = ()) -> TrainConfig:
    return load_config(TrainConfig, write(folder, "t.yaml", TRAIN + extra), sets)


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("5E3", 5000.0), ("1.5e+2", 150.0), ("-2e-1", -0.2)])
def test_a_number_with_an_exponent_is_a_number(text: str, value: float) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": value}


@pytest.mark.parametrize("text", ["e5", "1e", "sha256:1e5", "v1e5"])
def test_what_only_looks_like_a_number_stays_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": text}


def test_exponent_reaches_the_schema(tmp_path: Path) -> None:
    assert train(tmp_path).optimizer.lr == 1e-4


def test_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key `optimizer\.weight_dekay`, did you mean `weight_decay`\?"):
        train(tmp_path, sets=("optimizer.weight_dekay=0.1",))


def test_unknown_key_far_from_all_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key `schedule.zzz`; known here: name, warmup_steps"):
        train(tmp_path, sets=("schedule.zzz=1",))


def test_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`batch` is missing"):
        load_config(TrainConfig, write(tmp_path, "t.yaml", TRAIN.replace("batch: {size: 4, micro: 2}", "")))


def test_steps_or_epochs_but_not_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one of `steps` and `epochs`"):
        train(tmp_path, "epochs: 2\n")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "t.yaml", "a: 1\nb: 2\na: 3\n")
    with pytest.raises(ConfigError, match=r"t\.yaml, line 3, column 1: the key 'a' stands twice"):
        load_config(TrainConfig, path)


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.yaml, line 3, column 1"):
        load_config(TrainConfig, write(tmp_path, "t.yaml", "a: 1\nb: [1, 2\n"))


def test_a_file_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "wudao.yaml", "")
    with pytest.raises(ConfigError, match=r"did you mean wudao\.yaml\?"):
        load_config(PreprocessConfig, tmp_path / "wudoa.yaml")


def test_extends_lays_the_child_over_the_parent(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", TRAIN)
    child = write(tmp_path, "child.yaml", "extends: base.yaml\noptimizer: {weight_decay: 0.5}\nsteps: 9\n")
    config = load_config(TrainConfig, child)
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.steps) == (1e-4, 0.5, 9)


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: a.yaml\n")
    with pytest.raises(ConfigError, match="comes back to"):
        load_config(TrainConfig, tmp_path / "a.yaml")


@pytest.mark.parametrize("bad", ["steps", "=3", "a..b=1"])
def test_a_malformed_set_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="not of the form"):
        train(tmp_path, sets=(bad,))


@pytest.mark.parametrize(
    ("text", "size"), [("256MiB", 2**28), ("2GB", 2 * 10**9), ("1.5 KiB", 1536), ("12", 12), ("7b", 7)]
)
def test_sizes_are_read_as_people_write_them(tmp_path: Path, text: str, size: int) -> None:
    assert train(tmp_path, sets=(f"data.cache.max_bytes={text}",)).data.cache.max_bytes == size


def test_a_size_that_is_none_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'lots' is not a size"):
        train(tmp_path, sets=("data.cache.max_bytes=lots",))


def test_the_resolved_config_loads_back_to_the_same_values(tmp_path: Path) -> None:
    config = train(tmp_path, "samples: {prompts: [牛顿]}\n")
    text = dump_yaml(config)
    assert "牛顿" in text
    assert load_config(TrainConfig, write(tmp_path, "resolved.yaml", text)) == config


def test_operational_keys_leave_the_fingerprint_alone(tmp_path: Path) -> None:
    before = fingerprint(train(tmp_path))
    operational = ("run.name=other", "data.store=elsewhere", "batch.micro=4", "save.every=7", "log_every=1")
    assert fingerprint(train(tmp_path, sets=operational)) == before
    for decisive in ("optimizer.lr=1e-3", "batch.size=8", "seed=1", "data.sequence_length=16", "model.type=llama"):
        assert fingerprint(train(tmp_path, sets=(decisive,))) != before, decisive


@pytest.mark.parametrize("path", sorted((ROOT / "configs/corpora").glob("*.yaml")), ids=lambda path: path.name)
def test_every_corpus_config_is_valid(path: Path) -> None:
    if path.name != "base.yaml":
        assert load_config(PreprocessConfig, path).corpus.obtain


@pytest.mark.parametrize("path", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_train_config_is_valid(path: Path) -> None:
    config = load_config(TrainConfig, path)
    assert config.batch.size % config.batch.micro == 0


def test_no_config_holds_a_secret() -> None:
    for path in (ROOT / "configs").rglob("*.yaml"):
        keys = str(yaml.safe_load(path.read_text(encoding="utf-8"))).lower()
        assert not any(word in keys for word in ("secret", "password", "access_key")), path
