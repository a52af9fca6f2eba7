"""`lmbatch logs`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from lmbatch.cli.logs import command, growing, of_rank

TEXT = " 0: 第一步 loss 2.1\n 1: warm\n10: hello\nsrun: error: n1: task 1: Killed\n 1: last words\n"


def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x-1.log").write_text(TEXT, encoding="utf-8")
    return tmp_path


def test_one_process_and_the_last_lines(tmp_path: Path) -> None:
    run = str(run_folder(tmp_path))
    assert CliRunner().invoke(command, [run]).output == TEXT
    assert CliRunner().invoke(command, [run, "--rank", "1"]).output == " 1: warm\n 1: last words\n"
    assert CliRunner().invoke(command, [run, "--rank", "0"]).output == " 0: 第一步 loss 2.1\n"
    assert CliRunner().invoke(command, [run, "--lines", "1"]).output == " 1: last words\n"


def test_a_line_belongs_to_the_number_before_the_colon() -> None:
    assert of_rank("10: x", 10)
    assert not of_rank("10: x", 1)
    assert not of_rank("srun: error: task 1", 1)


def test_following_ends_with_the_run_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = run_folder(tmp_path) / "logs" / "x-1.log"
    with path.open(encoding="utf-8") as log, path.open("a", encoding="utf-8") as more:
        log.read()
        more.write("one\ntwo\nhalf")
        more.flush()
        assert list(growing(log, tmp_path)) == ["one\n", "two\n"]
