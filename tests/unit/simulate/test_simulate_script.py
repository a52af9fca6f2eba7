"""What the real batch script says, with stand-ins for Slurm: its own table of ends."""

from __future__ import annotations

import pytest

from lmbatch.config import TrainSite
from lmbatch.simulate.script import BatchScript, Verdict


@pytest.fixture(scope="module")
def script() -> BatchScript:
    return BatchScript(TrainSite(setup=("exit 99",)))


@pytest.mark.parametrize(
    ("code", "notice", "requeued"),
    [(0, False, False), (75, True, True), (75, False, True), (143, True, True), (1, False, False), (2, False, False),
     (0, True, False)],
)  # fmt: skip
def test_an_end_leads_to_what_the_script_s_own_table_says(
    script: BatchScript, code: int, notice: bool, requeued: bool
) -> None:
    assert script.after(code, notice=notice) == Verdict(requeued, False, code)


def test_a_job_keeps_away_from_a_bad_node_but_not_from_ever_more(script: BatchScript) -> None:
    assert script.after(0, bad="node3") == Verdict(False, True, 1)
    assert script.after(0, bad="node9", excluded="node1,node2,node3,node4") == Verdict(False, False, 1)
    assert script.after(0, bad="node9", excluded="node1,node2") == Verdict(False, True, 1)
