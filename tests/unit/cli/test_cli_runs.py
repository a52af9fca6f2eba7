"""The verbs that look at runs: status, compare, checkpoints, export, generate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmbatch.cli import cli
from lmbatch.config import TrainConfig, load_config
from lmbatch.errors import ConfigError, UsageError
from lmbatch.train import train
from support.tiny_corpus import write_corpus
from support.tiny_run import tiny_config, tiny_settings, write_config


def lmbatch(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs of ten steps: two alike, and one with another seed whose length is given in epochs."""
    folder = tmp_path_factory.mktemp("runs")
    store = write_corpus(folder / "store")
    for name, changes in (("one", {}), ("two", {}), ("other", {"seed": 2, "steps": None, "epochs": 0.05})):
        settings = {"run": {"name": name}, "steps": 10, **changes}
        train(tiny_config(store, folder, **settings))
    return folder


def test_status_of_a_run(runs: Path) -> None:
    facts = json.loads(lmbatch("status", str(runs / "one"), "--json").stdout)
    assert (facts["step"], facts["steps"], facts["steps_lost"], facts["seconds_left"]) == (10, 10, 0, 0)
    assert [attempt["why"] for attempt in facts["attempts"]] == ["finished"]
    assert [item["step"] for item in facts["checkpoints"]] == [5, 10]
    text = lmbatch("status", str(runs / "one")).stdout
    assert "step 10 of 10" in text
    assert "finished" in text


def test_status_knows_the_length_of_a_run_in_epochs(runs: Path) -> None:
    facts = json.loads(lmbatch("status", str(runs / "other"), "--json").stdout)
    assert facts["steps"] == facts["step"] > 0


def test_compare_equal_runs(runs: Path) -> None:
    done = lmbatch("compare", str(runs / "one"), str(runs / "two"))
    assert done.exit_code == 0
    assert "the same, bit for bit (largest difference 0)" in done.stdout
    assert json.loads(lmbatch("compare", str(runs / "one"), str(runs / "two"), "--json").stdout)["equal"] is True


def test_compare_finds_another_seed(runs: Path) -> None:
    done = lmbatch("compare", str(runs / "one"), str(runs / "other"), "--json")
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert facts["equal"] is False
    assert facts["same_samples"] is False
    assert facts["first_difference"].startswith("step 1:")


@pytest.mark.parametrize("key", ["loss", "data", "grad_norm"])
def test_compare_finds_one_last_digit(runs: Path, tmp_path: Path, key: str) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(runs / "one", changed)
    rows = [json.loads(line) for line in (changed / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["kind"] == "train" and row["step"] == 7)
    row[key] = row[key] * (1 + 2**-52) if isinstance(row[key], float) else row[key][::-1]
    (changed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = lmbatch("compare", str(runs / "one"), str(changed))
    assert done.exit_code == 1
    assert f"first difference: step 7: {key}" in done.stdout


def test_compare_finds_a_run_that_is_shorter(runs: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter"
    shutil.copytree(runs / "one", shorter)
    rows = [line for line in (shorter / "metrics.jsonl").read_text().splitlines() if json.loads(line)["step"] < 8]
    (shorter / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert lmbatch("compare", str(runs / "one"), str(shorter)).exit_code == 1


def test_checkpoints_are_listed_and_a_flipped_byte_is_found(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs / "one", copy)
    assert [item["step"] for item in json.loads(lmbatch("checkpoints", "list", str(copy), "--json").stdout)] == [5, 10]
    assert "committed" in lmbatch("checkpoints", "list", str(copy)).stdout
    assert lmbatch("checkpoints", "verify", str(copy)).exit_code == 0
    weights = next((copy / "checkpoints/step-00000010").rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    done = lmbatch("checkpoints", "verify", str(copy))
    assert done.exit_code == 1
    assert "step 5: right" in done.stdout
    assert "model.safetensors" in done.stdout
    assert lmbatch("checkpoints", "verify", str(copy), "--step", "5").exit_code == 0


def test_export_and_generate(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    assert lmbatch("export", str(runs / "one"), "--out", str(out)).exit_code == 0
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {path.name for path in out.iterdir()}
    options = ["--max-new-tokens", "5", "--temperature", "0"]
    done = lmbatch("generate", str(out), "-p", "第一", "-p", "二", *options, "--json")
    rows = json.loads(done.stdout)
    assert [row["prompt"] for row in rows] == ["第一", "二"]
    assert all(row["text"].startswith(row["prompt"]) for row in rows)
    piped = CliRunner().invoke(cli, ["generate", str(out), "--prompts-from", "-", *options], input="第一\n二\n")
    assert piped.stdout.split("\n\n")[0] == rows[0]["text"]


def test_generate_refuses_what_cannot_work(runs: Path) -> None:
    assert isinstance(lmbatch("generate", str(runs / "one")).exception, UsageError)
    assert isinstance(lmbatch("generate", str(runs / "one"), "-p", "x", "--top-p", "3").exception, ConfigError)


def test_status_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert "plan.json" in str(lmbatch("status", str(tmp_path)).exception)


def test_doctor_looks_at_what_training_needs(runs: Path, tmp_path: Path) -> None:
    done = lmbatch("doctor", "--train", str(runs / "one" / "config.yaml"), "--json")
    assert done.exit_code == 0, done.stdout
    assert any(row["what"] == "pre-flight check" for row in json.loads(done.stdout))
    text = (runs / "one" / "config.yaml").read_text(encoding="utf-8")
    store = next(line for line in text.splitlines() if line.strip().startswith("store:"))
    (tmp_path / "c.yaml").write_text(text.replace(store, f"  store: {tmp_path}/nowhere"), encoding="utf-8")
    bad = lmbatch("doctor", "--train", str(tmp_path / "c.yaml"), "--json")
    assert bad.exit_code == 1
    (row,) = [row for row in json.loads(bad.stdout) if not row["right"]]
    assert row["what"] == "store of the data"
    assert "manifest.json" in row["found"]


def test_status_sets_what_was_predicted_beside_what_happened(runs: Path) -> None:
    facts = json.loads(lmbatch("status", str(runs / "one"), "--json").stdout)
    rows = {row["what"]: row for row in facts["foretold"]}
    newest = facts["checkpoints"][-1]["bytes"]
    assert rows["checkpoint"]["happened"] == newest
    parameters = json.loads((runs / "one" / "model.json").read_text())["parameters"]["total"]
    assert rows["checkpoint"]["predicted"] == 12 * parameters
    assert rows["peak memory of a process"]["happened"] > 100 * 2**20
    assert facts["attempts"][0]["peak_host_bytes"] == rows["peak memory of a process"]["happened"]
    assert "tokens/s" not in rows  # nobody knows the peak of this CPU, and nothing was probed
    assert "peak memory of a process" in lmbatch("status", str(runs / "one")).stdout


def test_a_plan_that_was_kept_before_the_start_stays(runs: Path, tmp_path: Path) -> None:
    """It may know more than the start does: here the MFU of the user."""
    settings = tiny_settings(str(runs / "store"), tmp_path, steps=3, evaluate={"batches": 0})
    config = write_config(tmp_path / "tiny.yaml", settings | {"peak_flops": 1e12})
    assert lmbatch("plan", "train", str(config), "--device", "cpu", "--mfu", "0.5", "--save").exit_code == 0
    train(load_config(TrainConfig, config))
    plan = json.loads((tmp_path / "tiny" / "plan.json").read_text())
    assert (plan["made_by"], plan["mfu"]) == ("plan", pytest.approx(0.5))
    rows = {
        row["what"]: row for row in json.loads(lmbatch("status", str(tmp_path / "tiny"), "--json").stdout)["foretold"]
    }
    assert rows["tokens/s"]["predicted"] == pytest.approx(plan["tokens_per_second"])
    assert rows["time of steps and saves"]["happened"] > 0


def test_another_run_gets_a_prediction_of_its_own(runs: Path, tmp_path: Path) -> None:
    settings = tiny_settings(str(runs / "store"), tmp_path, steps=3, evaluate={"batches": 0})
    config = write_config(tmp_path / "tiny.yaml", settings)
    assert lmbatch("plan", "train", str(config), "--device", "A100", "--save").exit_code == 0
    train(load_config(TrainConfig, config))
    plan = json.loads((tmp_path / "tiny" / "plan.json").read_text())
    assert (plan["made_by"], plan["device"]) == ("start", "cpu")
