"""A single document of 200 MB costs itself alone, and no memory to speak of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIG = 200 * 10**6
READ = """
import json, sys
from pathlib import Path
from support.corpus_files import corpus, read_whole, rejected, texts
records = read_whole(corpus(Path(sys.argv[1]), sys.argv[2]))
# Not getrusage: its ru_maxrss begins with what the parent had when it started this process.
[peak] = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([texts(records), [(r.reason, r.position, r.length) for r in rejected(records)], peak]))
"""
AROUND = {  # what stands before and after the big text, and the position and the length of its record but for the text
    "json_array": (b'[{"id":1,"text":"before"},{"id":2,"text":"', b'"},{"id":3,"text":"after"}]', 26, 18),
    "json_lines": (b'{"id":1,"text":"before"}\n{"id":2,"text":"', b'"}\n{"id":3,"text":"after"}', 25, 18),
    "csv": (b'id,text\n1,before\n2,"', b'"\n3,after\n', 17, 4),
    "txt_lines": (b"before\n", b"\nafter\n", 7, 0),
}
FILLER = "古今多少事，{都付}笑谈中\\n。".encode()


def write_big(path: Path, layout: str) -> int:
    before, after, *_ = AROUND[layout]
    block = FILLER * (2**20 // len(FILLER))
    with path.open("wb") as file:
        file.write(before)
        written = sum(file.write(block) for _ in range(BIG // len(block) + 1))
        file.write(after)
    return written


@pytest.mark.parametrize("layout", AROUND)
def test_a_document_of_200_mb_between_two_good_ones(tmp_path: Path, layout: str) -> None:
    written = write_big(tmp_path / "a", layout)
    command = [sys.executable, "-c", READ, str(tmp_path), layout]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    texts, refusals, peak = json.loads(result.stdout)
    assert texts == ["before", "after"]
    position, extra = AROUND[layout][2:]
    assert refusals == [["record_too_large", position, written + extra]]
    assert peak < BIG, f"{peak / 1e6:.0f} MB"
    (tmp_path / "a").unlink()
