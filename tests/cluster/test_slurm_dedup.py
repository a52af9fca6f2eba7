"""De-duplication on a real Slurm: three stages of arrays, one after the other, with the bytes of a quiet run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from support.drive import contents, preprocess_here
from support.duplicates import dedup_config, write_duplicates
from support.slurm_site import Site
from support.wudao import write_tokenizer


def test_three_stages_of_arrays(site: Site, tmp_path: Path) -> None:
    base = tmp_path / "dedup"
    kinds = write_duplicates(base / "raw", 20)
    write_tokenizer(base / "tok")
    settings: dict[str, Any] = {"dedup": {"near": {}, "partition_bytes": 20_000}, "tasks": {"bytes": 20_000}}
    preprocess_here(dedup_config(base, store=str(base / "quiet"), **settings))
    config = dedup_config(base, store=str(base / "store"), jobs=str(site.jobs), **settings).model_dump(mode="json")
    (base / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    site.run("--config", str(base / "config.yaml"), batch_bytes="1GiB", max_parallel=2)
    store = open_store(str(base / "store"))
    assert verify_store(store).right
    assert contents(store) == contents(open_store(str(base / "quiet")))
    manifest = json.loads(store.read("manifest.json"))
    assert manifest["ledger"]["dropped"] == {"duplicate": len(kinds["copy"]), "near_duplicate": len(kinds["near"])}
    submitted = [json.loads(path.read_text())["batches"] for path in site.jobs.glob("*/slurm-*/batches.json")]
    stages = sorted({task.split("-")[0] for batches in submitted for batch in batches for task in batch["tasks"]})
    assert stages == ["compare", "sign", "task"]
    assert all(len({task.split("-")[0] for batch in batches for task in batch["tasks"]}) == 1 for batches in submitted)
