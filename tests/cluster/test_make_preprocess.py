"""The README's command, whole: `make preprocess CORPUS=wudao … STORE=s3://… ON=slurm`, and a node loses its power."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lmbatch.config import PreprocessConfig, load_config
from lmbatch.preprocess import load_plan, read_receipts
from lmbatch.store import Manifest, open_store, parse_manifest
from support.container_image import container_image
from support.drive import contents, preprocess_here
from support.slurm_site import NODES, SlurmCluster, wait_until
from support.wudao import write_files, write_tokenizer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("tasks.bytes=6000", "split.validation_fraction=0.1", "cleaning.min_characters=0", "heartbeat_seconds=1")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=2, documents=80)
    write_tokenizer(tmp_path / "tok")
    slurm = {"max_parallel": 4, "memory": "500MiB", "minutes": 15, "poll_seconds": 0.5, "batch_bytes": 6000}
    site = yaml.safe_dump({"name": "test", "slurm": slurm})
    (tmp_path / "site.yaml").write_text(site, encoding="utf-8")
    return tmp_path


def quiet_manifest(base: Path) -> Manifest:
    """What one undisturbed process makes of the same corpus with the same config."""
    places = [f"corpus.raw={base}/raw", f"tokenizer.path={base}/tok", f"store={base}/quiet", f"spool={base}/spool"]
    config = load_config(PreprocessConfig, ROOT / "configs/corpora/wudao.yaml", [*places, *SETTINGS])
    return preprocess_here(config)


def start_make(base: Path, store: str, cluster: SlurmCluster) -> subprocess.Popen[str]:
    variables = {
        "CORPUS": "wudao", "RAW": f"{base}/raw", "TOKENIZER": f"{base}/tok", "STORE": store, "ON": "slurm",
        "SITE": f"{base}/site.yaml", "SET": " ".join([*SETTINGS, f"jobs={base}/jobs"]), "VENV": sys.prefix,
    }  # fmt: skip
    # As a user calls it, although the suite itself may have been started by make.
    environ = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", f"--old-file={sys.prefix}/.installed", "preprocess", *(f"{k}={v}" for k, v in variables.items())]
    return subprocess.Popen(
        command, cwd=ROOT, env={**environ, **cluster.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def test_wudao_by_make_on_slurm_into_object_storage(slurm_cluster: SlurmCluster, base: Path, s3_uri: str) -> None:
    victim = slurm_cluster.settings.names[NODES - 1]
    make = start_make(base, s3_uri, slurm_cluster)
    running = ("squeue", "-h", "-t", "R", "-o", "%N")
    wait_until(lambda: victim in slurm_cluster.run(*running).stdout or make.poll() is not None)
    slurm_cluster.kill_node(NODES)
    try:
        output, errors = make.communicate(timeout=200)
    finally:
        slurm_cluster.start_node(NODES)
    assert make.returncode == 0, errors
    expected = quiet_manifest(base)
    store = open_store(s3_uri)
    manifest = parse_manifest(store.read("manifest.json"), s3_uri)
    assert manifest.digest == expected.digest
    assert f"digest: {expected.digest}" in output.splitlines()[-1]
    plan = load_plan(store)
    assert len(plan.tasks) > 5
    assert len(read_receipts(store, plan.tasks)) == len(plan.tasks)
    wait_until(
        lambda: slurm_cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%t").stdout.split() == ["idle"] * NODES
    )


def test_the_same_in_containers(slurm_cluster: SlurmCluster, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = container_image("preprocess")
    for name, value in image.environment.items():
        monkeypatch.setenv(name, value)
    site = yaml.safe_load((base / "site.yaml").read_text(encoding="utf-8"))
    site["slurm"]["batch_bytes"] = 18000
    site["container"] = {"runtime": "podman", "image": image.tag}
    (base / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    output, errors = start_make(base, f"{base}/store", slurm_cluster).communicate(timeout=200)
    assert f"digest: {quiet_manifest(base).digest}" in output, errors
    assert contents(open_store(f"{base}/store")) == contents(open_store(f"{base}/quiet"))
    assert len(list((base / "jobs").rglob("*_answer.json"))) == len(list((base / "jobs").rglob("*_log.out"))) > 1


def test_the_driver_as_a_job_of_its_own(slurm_cluster: SlurmCluster, base: Path) -> None:
    places = (f"corpus.raw={base}/raw", f"tokenizer.path={base}/tok", f"jobs={base}/jobs", f"spool={base}/spool")
    sets = [part for item in (*places, *SETTINGS) for part in ("--set", item)]
    done = subprocess.run(
        ["sbatch", "--wait", "--mem=500M", "--time=30", f"--output={base}/driver.log", ROOT / "slurm/preprocess.sbatch",
         "--config", ROOT / "configs/corpora/wudao.yaml", "--store", f"{base}/store", "--site", f"{base}/site.yaml",
         *sets],
        env={**os.environ, **slurm_cluster.environment, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"},
        cwd=base, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    log = (base / "driver.log").read_text(encoding="utf-8")
    assert done.returncode == 0, log
    assert f"digest: {quiet_manifest(base).digest}" in log.splitlines()[-1]
