"""Rows on disk: whole after a kill, equal to the bit, cut where a run resumes."""

from __future__ import annotations

import math

import pytest

from lmbatch.errors import CheckpointError
from lmbatch.train.metrics import METRICS_FILE, cut_after, last_step, read_metrics, reproducible
from lmbatch.train.records import RecordLog, read_records


def write(path, *records):
    log = RecordLog(path)
    for record in records:
        log.append(record)
    log.sync()
    log.close()


def row(step, kind="train", **more):
    return {"kind": kind, "step": step, "loss": 1.0, **more}


def test_floats_read_back_to_the_same_bits(tmp_path):
    values = [0.1 + 0.2, math.pi * 1e-30, 5e-324, 1 / 3]
    write(tmp_path / "f", {"values": values, "text": "法律"})
    assert read_records(tmp_path / "f") == [{"values": values, "text": "法律"}]
    assert "法律".encode() in (tmp_path / "f").read_bytes()


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write(tmp_path / "f", {"loss": math.nan})


def test_without_a_file_there_are_no_records(tmp_path):
    assert read_records(tmp_path / "none") == []
    assert cut_after(tmp_path / "none", 3) == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\xe6\xb3", b"{}"])
def test_a_torn_last_line_is_left_out_and_the_next_record_does_not_stick_to_it(tmp_path, torn):
    write(tmp_path / "f", row(1), row(2))
    with (tmp_path / "f").open("ab") as file:
        file.write(torn)
    assert read_records(tmp_path / "f") == [row(1), row(2)]
    write(tmp_path / "f", row(3))
    assert read_records(tmp_path / "f") == [row(1), row(2), row(3)]


def test_damage_in_the_middle_is_named_by_its_line(tmp_path):
    (tmp_path / "f").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match="line 2"):
        read_records(tmp_path / "f")


def test_rows_after_the_resumed_step_are_cut_off(tmp_path):
    path = tmp_path / METRICS_FILE
    write(path, row(1), row(2), row(2, kind="evaluation"), row(3), row(3, kind="evaluation"), row(4))
    assert last_step(read_metrics(tmp_path)) == 4
    assert cut_after(path, 2) == 3
    assert read_metrics(tmp_path) == [row(1), row(2), row(2, kind="evaluation")]
    assert [p.name for p in tmp_path.iterdir()] == [METRICS_FILE]


def test_what_a_clock_measured_is_no_part_of_the_comparison():
    assert reproducible([row(1, seconds=2.0, tokens_per_second=9.0, mfu=None)]) == [row(1)]
