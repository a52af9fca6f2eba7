"""The exception tree and its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lmbatch import errors


def test_every_error_has_a_documented_exit_code() -> None:
    tree = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.LmbatchError)]
    assert len(tree) > 20
    assert {item.exit_code for item in tree} == {1, 2, 75}


def test_the_remedy_is_on_a_line_of_its_own() -> None:
    assert str(errors.StoreError("it failed", remedy="do this")) == "it failed\n  remedy: do this"


@pytest.mark.parametrize(("package", "remedy"), [("torch", "lmbatch[train]"), ("obstore", "lmbatch[s3]")])
def test_a_missing_package_names_its_extra(package: str, remedy: str) -> None:
    error = errors.missing_package(ModuleNotFoundError(name=f"{package}.nn"))
    assert error.exit_code == 2
    assert remedy in str(error)


@pytest.mark.parametrize("command", [["lmbatch", "generate", ".", "-p", "x"], ["lmbatch.train", "--config", "CONFIG"]])
def test_commands_on_a_machine_without_torch_say_what_to_install(command: list[str], tmp_path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        f"{{run: {{name: r, dir: '{tmp_path}'}}, data: {{store: s, sequence_length: 8}}, model: {{type: gpt2}}, "
        "optimizer: {lr: 1}, batch: {size: 1, micro: 1}, steps: 1}"
    )
    hide = "import sys, runpy; sys.modules.update(torch=None, transformers=None, accelerate=None, safetensors=None)"
    module, *arguments = [str(config) if item == "CONFIG" else item for item in command]
    script = f"{hide}; sys.argv = {[module, *arguments]!r}; runpy.run_module({module!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'lmbatch[train]'" in done.stderr
    assert "Traceback" not in done.stderr
