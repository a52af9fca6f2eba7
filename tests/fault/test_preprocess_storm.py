"""Many processes are killed (kill -9) over one corpus; what is left at the end is what a quiet run makes.

The seed is random, and is told when a test fails; LMBATCH_TEST_SEED sets it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from lmbatch.store.probe import PROBE_PREFIX
from support.drive import contents, preprocess_here
from support.storm import Storm
from support.wudao import config_for, record_of, write_files, write_tokenizer

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("LMBATCH_TEST_SEED") or secrets.randbelow(10**6))


def arrays(raw: Path) -> dict[str, Any]:
    """JSON arrays, compact and pretty, with records among them that are set aside; about 150 tasks."""
    write_files(raw, files=5, documents=150)
    bad = [{**record_of(number), "content": None} if number % 5 else {"id": number} for number in range(40)]
    (raw / "zz-bad.json").write_text(json.dumps(bad, ensure_ascii=False), encoding="utf-8")
    return {"budget": {"max_quarantined_records": 100}, "tokenizer": {"engine": "huggingface"}}


def lines_to_clean(raw: Path) -> dict[str, Any]:
    """JSON Lines with dirt in them, for the rules of cleaning, a fast engine and best fit; about 90 tasks."""
    raw.mkdir()
    for file in range(3):
        records = map(record_of, range(file * 150, (file + 1) * 150))
        dirty = [
            {**record, "content": record["content"] + "<br>電話１３８００１３８０００\u200b"} for record in records
        ]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in dirty)
        (raw / f"part-{file}.jsonl").write_text(text, encoding="utf-8")
    return {"corpus": {"format": "json_lines", "include": ["*.jsonl"]}, "cleaning": {"preset": "zh_web"},
            "tokenizer": {"engine": "fastokens"}, "chunking": {"mode": "best_fit", "length": 64, "buffer_tokens": 128},
            "shards": {"max_bytes": 200}}  # fmt: skip


@pytest.mark.parametrize(("corpus", "kills"), [(arrays, 50), (lines_to_clean, 12)])
def test_a_storm_of_kills_changes_no_byte(tmp_path: Path, corpus: Callable[[Path], dict[str, Any]], kills: int) -> None:
    write_tokenizer(tmp_path / "tok")
    # Each of these deaths is an attempt at a task, and there are more of them than any job would be granted.
    changes = {"tasks": {"bytes": 2500}, "retries": 1000, **corpus(tmp_path / "raw")}
    quiet = preprocess_here(config_for(tmp_path, store=str(tmp_path / "quiet"), **changes))
    config = config_for(tmp_path, store=str(tmp_path / "stormy"), **changes).model_dump(mode="json")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "lmbatch", "preprocess", "--config", str(path), "--workers", "3"]

    (tmp_path / "storm").mkdir()
    storm = Storm(tmp_path / "storm", SEED, command)
    storm.rage(kills)
    assert storm.moments > kills / 10, storm
    assert len(storm.boundaries()) > kills / 10, storm
    last = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert last.returncode == 0, (storm, last.stderr)
    storm.wait_for_orphans()

    stormy = open_store(str(tmp_path / "stormy"))
    found = {key: data for key, data in contents(stormy).items() if not key.startswith(PROBE_PREFIX)}
    assert found == contents(open_store(str(tmp_path / "quiet"))), storm
    assert json.loads(last.stdout)["digest"] == verify_store(stormy).digest == quiet.digest, storm
