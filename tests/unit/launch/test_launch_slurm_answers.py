"""What Slurm's commands answer, read as they print it."""

from __future__ import annotations

import pytest

from lmbatch.errors import SchedulerError
from lmbatch.launch.slurm_commands import (
    Ending,
    Limits,
    expand_ids,
    parse_endings,
    parse_limits,
    parse_queue,
    pick_endings,
)


def test_the_queue() -> None:
    text = (
        "3231816_2|PENDING|JobArrayTaskLimit|/a|b/slurm-1\n3231813|RUNNING|None|(null)\nslurm_load_jobs error: noise\n"
    )
    rows = parse_queue(text)
    assert [(row.id, row.array, row.index, row.state) for row in rows] == [
        ("3231816_2", "3231816", 2, "PENDING"),
        ("3231813", "3231813", 0, "RUNNING"),
    ]
    assert rows[0].comment == "/a|b/slurm-1"


def test_accounting() -> None:
    text = (
        "17_0|COMPLETED|0:0|n[1-2]\n17_1|CANCELLED by 1000|0:15|n1\n18|RUNNING|0:0|n1\n"
        "17_[2-3,7%2]|CANCELLED by 0|0:0|None assigned\n"
    )
    found = parse_endings(text)
    assert found["17_1"] == Ending("CANCELLED", 0, 15, "n1")
    assert found["17_1"].over
    assert not found["18"].over
    assert {"17_2", "17_3", "17_7"} < found.keys()
    assert str(found["17_0"]) == "COMPLETED (exit code 0) on n[1-2]"


@pytest.mark.parametrize(
    ("ids", "meant"),
    [("5", ["5"]), ("5_1", ["5_1"]), ("5_[0-2]", ["5_0", "5_1", "5_2"]), ("5_[1,4-5%3]", ["5_1", "5_4", "5_5"])],
)
def test_elements_that_share_a_line(ids: str, meant: list[str]) -> None:
    assert expand_ids(ids) == meant


def test_elements_that_never_started_may_share_the_record_of_the_array() -> None:
    cancelled = parse_endings("17_0|FAILED|3:0|n1\n17|CANCELLED by 0|0:0|None assigned\n")
    picked = pick_endings(cancelled, ["17_0", "17_1", "18_0"])
    assert {element: ending.state for element, ending in picked.items()} == {"17_0": "FAILED", "17_1": "CANCELLED"}
    assert pick_endings(parse_endings("17|PENDING|0:0|None assigned\n"), ["17_1"]) == {}


def test_limits() -> None:
    text = "MaxArraySize            = 1001\nMaxDBDMsgs = 20000\nMaxJobCount             = 10000\n"
    assert parse_limits(text) == Limits(array=1001, jobs=10000)
    with pytest.raises(SchedulerError, match="MaxJobCount"):
        parse_limits("MaxArraySize = 5\n")
