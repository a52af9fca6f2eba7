"""`lmbatch plan train`: what it says, what it refuses, what it keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmbatch.cli import cli
from lmbatch.errors import LaunchError, UsageError
from lmbatch.train.planning import read_prediction
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_settings, write_config

ROOT = Path(__file__).resolve().parents[3]
S0 = ROOT / "configs/train/s0_gpt2.yaml"


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["plan", "train", *map(str, arguments)])


def facts(*arguments: object) -> dict[str, object]:
    done = plan(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_s0_beside_its_published_sixty_hours() -> None:
    """36,000 steps × 160 × 512 = 2,949,120,000 tokens in 60 h = 13,653 tokens/s; × 664,353,792 FLOPs = 12.8 % of 71e12;
    at 35 % it is 0.35 × 71e12 / 664,353,792 = 37,405 tokens/s: 21.9 h."""
    found = facts(S0, "--device", "RTX 3090")
    published = found["published"]
    assert isinstance(published, dict)
    assert published["tokens_per_second"] == pytest.approx(13653, abs=1)
    assert published["mfu"] == pytest.approx(0.1278, abs=1e-4)
    assert published["our_hours"] == pytest.approx(21.9, abs=0.05)
    text = plan(S0, "--device", "RTX 3090").stdout
    assert "in 60 h on one RTX 3090" in text
    assert "fits into" in text


def test_the_manifest_tells_vocabulary_and_length(tmp_path: Path) -> None:
    settings = tiny_settings(write_corpus(tmp_path / "store"), tmp_path, steps=None, epochs=2)
    found = facts(write_config(tmp_path / "tiny.yaml", settings), "--device", "cpu")
    assert found["epochs"] == pytest.approx(2, abs=0.1)
    assert found["tokens_per_second"] is None
    assert str(found["source"]).startswith("not known")
    assert found["fits"] is True


def test_both_spellings_and_neither(tmp_path: Path) -> None:
    assert facts(S0, "--device", "A100 80") == facts("--config", S0, "--device", "A100 80")
    with pytest.raises(UsageError, match="which config"):
        CliRunner().invoke(cli, ["plan", "train"], catch_exceptions=False)


def test_a_corpus_that_nobody_knows(tmp_path: Path) -> None:
    settings = tiny_settings(str(tmp_path / "nothing"), tmp_path, steps=None, epochs=2)
    config = write_config(tmp_path / "tiny.yaml", settings)
    with pytest.raises(UsageError, match="vocabulary is not known"):
        CliRunner().invoke(cli, ["plan", "train", str(config)], catch_exceptions=False)
    with pytest.raises(UsageError, match="whose tokens are not known"):
        CliRunner().invoke(cli, ["plan", "train", str(config), "--vocab", "99"], catch_exceptions=False)
    assert facts(config, "--vocab", 99, "--tokens", "32K", "--device", "cpu")["steps"] == 2 * 1000 // 8


def test_what_does_not_fit_says_what_to_change() -> None:
    big = ("--set", "model.config.n_layer=48", "--set", "model.config.n_embd=1600", "--set", "model.config.n_head=25")
    alone = plan(S0, "--device", "RTX 3090", *big).stdout
    assert "DOES NOT FIT" in alone
    assert "engine.offload_optimizer=cpu" in alone
    more = plan(S0, "--device", "RTX 3090", "--set", "batch.micro=80").stdout
    assert "batch.micro=40" in more


def test_a_site_and_too_short_a_notice(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "name: here\nexecutor: slurm\ntrain: {nodes: 2, processes_per_node: 4, gpus_per_node: 4, device: V100 16, "
        "notice_seconds: 30, preemptions_per_day: 4, write_speed: 100MB}\n"
    )
    found = facts(S0, "--on", site)
    assert (found["world"], found["nodes"], found["device"]) == (8, 2, "V100 16GB")
    warnings = found["warnings"]
    assert isinstance(warnings, list)
    assert any("--signal" in line and "is 30" in line for line in warnings)
    assert "4 preemptions a day" in plan(S0, "--on", site).stdout


def test_a_device_that_cannot_do_the_precision() -> None:
    with pytest.raises(UsageError, match="cannot do bf16"):
        CliRunner().invoke(
            cli, ["plan", "train", str(S0), "--device", "V100", "--set", "precision=bf16"], catch_exceptions=False
        )
    with pytest.raises(UsageError, match="not in the table"):
        CliRunner().invoke(cli, ["plan", "train", str(S0), "--device", "Voodoo 2"], catch_exceptions=False)


def test_the_accelerate_file_decides_an_open_precision(tmp_path: Path) -> None:
    file = ROOT / "configs/accelerate/single_3090.yaml"
    found = facts(S0, "--device", "RTX 3090", "--accelerate", file, "--set", "precision=launcher")
    assert found["precision"] == "bf16"


def test_saved_into_the_run(tmp_path: Path) -> None:
    facts(S0, "--device", "RTX 3090", "--save", "--set", f"run.dir={tmp_path}")
    kept = read_prediction(tmp_path / "s0_gpt2")
    assert kept is not None
    assert kept.device == "RTX 3090"
    assert kept.tokens == 2_949_120_000


def test_no_torch_is_loaded_for_a_common_type() -> None:
    code = (
        "import sys\nfrom lmbatch.cli import cli\n"
        f"cli.main(['plan', 'train', {str(S0)!r}, '--device', 'RTX 3090', '--json'], standalone_mode=False)\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split()[-1] == "False"


def test_a_probe_really_trains_and_leaves_nothing(tmp_path: Path) -> None:
    settings = tiny_settings(str(tmp_path / "nothing"), tmp_path / "runs", steps=1000, peak_flops=1e12)
    config = write_config(tmp_path / "tiny.yaml", settings)
    found = facts(config, "--vocab", 99, "--probe", "--probe-seconds", 0.1, "--device", "cpu")
    assert found["source"] == "probe"
    speed, mfu = found["tokens_per_second"], found["mfu"]
    assert isinstance(speed, float)
    assert isinstance(mfu, float)
    assert mfu == pytest.approx(speed * float(str(found["flops_per_token"])) / 1e12)
    assert found["step_seconds"] == pytest.approx(8 * 32 / speed)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    changes = {"config": {"n_embd": 33}}  # not a multiple of its two heads
    settings = tiny_settings(str(tmp_path / "nothing"), tmp_path / "runs", model=changes)
    config = write_config(tmp_path / "tiny.yaml", settings)
    with pytest.raises(LaunchError, match="divisible"):
        CliRunner().invoke(
            cli, ["plan", "train", str(config), "--vocab", "99", "--probe", "--device", "cpu"], catch_exceptions=False
        )
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_probe_cannot_stand_in_for(tmp_path: Path) -> None:
    masked = ["plan", "train", str(ROOT / "configs/train/s1_roberta.yaml"), "--vocab", "52000", "--tokens", "1G"]
    with pytest.raises(UsageError, match="masked"):
        CliRunner().invoke(cli, [*masked, "--probe", "--device", "cpu"], catch_exceptions=False)
    with pytest.raises(UsageError, match="measures this machine"):
        CliRunner().invoke(cli, [*masked, "--probe", "--device", "V100"], catch_exceptions=False)


def test_rows_that_pad_the_vocabulary_count() -> None:
    plain, padded = (
        facts(S0, "--device", "cpu"),
        facts(S0, "--set", "model.pad_vocab_to_multiple=64", "--device", "cpu"),
    )
    assert isinstance(plain["shape"], dict)
    assert isinstance(padded["shape"], dict)
    assert padded["shape"]["vocabulary"] == 21184
    assert padded["shape"]["parameters"] - plain["shape"]["parameters"] == (21184 - 21129) * 768


def test_a_copy_in_the_store_and_prices() -> None:
    found = facts(
        S0, "--device", "RTX 3090", "--set", "save.store=s3://bucket/runs", "--upload-speed", "100MB",
        "--price-gb-month", 0.02, "--price-1000-writes", 0.005, "--price-gpu-hour", 0.5,
    )  # fmt: skip
    saving, costs = found["saving"], found["costs"]
    assert isinstance(saving, dict)
    assert isinstance(costs, dict)
    assert saving["upload_seconds"] == pytest.approx(12 * 101_676_288 / 100e6)
    assert costs["stored_per_month"] == pytest.approx(3 * 12 * 101_676_288 / 1e9 * 0.02)
    assert costs["writes"] == pytest.approx(saving["requests"] / 1000 * 0.005)
    assert costs["compute"] == pytest.approx(costs["gpu_hours"] * 0.5)
    assert costs["gpu_hours"] == pytest.approx(21.9, abs=0.05)
