"""What a site file decides for a job."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from lmbatch.cli.launch import command
from lmbatch.config import SiteConfig, fingerprint
from lmbatch.launch import at_site, place_of
from support.tiny_run import tiny_settings, write_config
from support.wudao import config_for


def test_a_sites_places_are_taken_where_the_config_names_none(tmp_path: Path) -> None:
    site = SiteConfig(name="hpc", store="s3://bucket/corpora/", scratch="/scratch/me")
    config = config_for(tmp_path, store="", spool=None)
    found = at_site(config, site)
    assert (found.store, found.spool) == ("s3://bucket/corpora/small", "/scratch/me")
    assert fingerprint(found) == fingerprint(config)


def test_what_the_config_names_goes_before_the_site(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    assert at_site(config, SiteConfig(name="hpc", store="s3://bucket/x", scratch="/scratch")) == config
    assert at_site(config_for(tmp_path, store="", spool=None), SiteConfig(name="bare")).store == ""


def test_options_go_before_the_site() -> None:
    site = SiteConfig.model_validate({"name": "hpc", "executor": "slurm", "workers": 3, "slurm": {"max_parallel": 9}})
    assert (place_of(site).executor, place_of(site).workers) == ("slurm", 9)
    assert (place_of(site, "local").executor, place_of(site, "local").workers) == ("local", 3)
    assert place_of(site, None, 2).slurm.max_parallel == 2


def launched(tmp_path: Path, scratch: str, **data: object) -> str:
    settings = tiny_settings(str(tmp_path / "store"), tmp_path)
    settings["data"] = {**settings["data"], "cache": {}, **data}
    config = write_config(tmp_path / "c.yaml", settings)
    site = tmp_path / "site.yaml"
    site.write_text(f"name: hpc\nexecutor: slurm\n{scratch}", encoding="utf-8")
    return (
        CliRunner().invoke(command, ["train", "--config", str(config), "--on", str(site), "--dry-run", "--json"]).output
    )


def test_training_keeps_its_shards_on_the_sites_scratch_disk(tmp_path: Path) -> None:
    assert '"data.cache.dir=/scratch/me/lmbatch-shards"' in launched(tmp_path, "scratch: /scratch/me\n")
    assert "lmbatch-shards" not in launched(tmp_path, "")
    assert "lmbatch-shards" not in launched(tmp_path, "scratch: /scratch/me\n", cache={"dir": "/mine"})
