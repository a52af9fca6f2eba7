"""A real Slurm cluster on this machine, for tests, the demo and trying things out.

slurmctld, slurmdbd with a private MariaDB (without accounting nobody learns how a job ended), munge, and virtual nodes:
each is a slurmd in process, host name, IPC and mount namespaces of its own, so that killing the node's first process is
pulling its plug. Runs as root or as an ordinary user. Everything lies in one state folder; several clusters run side by
side, each with a folder of its own. It needs Debian's packages of Slurm, munge and MariaDB (cluster/install.sh) and
nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import hashlib
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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from slurm_conf import DATABASE, HOST, Settings, database_sql, hosts, slurm_conf, slurmdbd_conf

DEFAULT_STATE = Path(__file__).resolve().parent.parent / "data" / "slurm"
PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "unshare": "util-linux",
}  # by the Debian package that brings it
# In the order in which they start, each with a question that it answers when it is up.
SERVICES = {"slurmdbd": ["sacctmgr", "-n", "show", "cluster"], "slurmctld": ["scontrol", "ping"]}
LONGEST_STATE = 70  # of the folder's path: names of Unix sockets end at 108 characters
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
LARGEST = {"nodes": 64, "max_array_size": 100_000}

EXAMPLES = """examples:
  python cluster/slurm_cluster.py up --nodes 4           start it (or say that it runs already)
  eval "$(python cluster/slurm_cluster.py env)"          use it in this shell: sinfo, sbatch, squeue, sacct
  python cluster/slurm_cluster.py exec srun -N2 hostname
  python cluster/slurm_cluster.py kill-node 2            pull the plug of node 2; start-node 2 switches it on again
  python cluster/slurm_cluster.py up --state /tmp/other  a second one beside it
  python cluster/slurm_cluster.py down --wipe            stop it and delete its state folder
"""


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says what to do."""


class SlurmCluster:
    """One cluster and its state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self._settings = self.state / "settings.json"

    @property
    def settings(self) -> Settings:
        """Raises ClusterError if no cluster was ever started here."""
        try:
            values = json.loads(self._settings.read_text())
            return Settings(**{**values, "daemons": tuple(values["daemons"])})
        except (OSError, ValueError, TypeError, KeyError):
            raise ClusterError(f"no cluster was started in {self.state}: use `up` first") from None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Slurm's commands find the cluster."""
        path = os.environ.get("PATH", os.defpath)
        return {"SLURM_CONF": str(self.state / "etc" / "slurm.conf"), "PATH": f"{path}:/usr/sbin:/sbin"}

    @property
    def running(self) -> bool:
        """Does the controller run?"""
        return self._daemon("slurmctld").pid is not None

    def up(self, *, nodes: int = 4, cpus: int = 2, memory_mib: int = 4000, max_array_size: int = 1000) -> Settings:
        """Start it and wait until every node is idle; one that runs already is left as it is."""
        _require_programs()
        if len(str(self.state)) > LONGEST_STATE:
            raise ClusterError(
                f"the path {self.state} is longer than {LONGEST_STATE} characters: use a shorter --state"
            )
        self.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._locked():
            if not self.running:
                self._write_files(self._new_settings(nodes, cpus, memory_mib, max_array_size))
                try:
                    self._launch()
                except BaseException:
                    self._stop_all()
                    raise
        return self.settings

    def down(self, *, wipe: bool = False) -> bool:
        """Stop it, and everything that runs on its nodes. False if it did not run. ``wipe`` deletes the folder."""
        if not self._settings.exists():
            return False
        with self._locked():
            ran = self.running
            self._stop_all()
        if wipe:
            shutil.rmtree(self.state)
        return ran

    def kill_node(self, number: int) -> None:
        """Pull the plug of node ``number`` (1 …): SIGKILL for everything that runs on it."""
        daemon = self._daemon(self._node(number))
        if daemon.pid is None:
            raise ClusterError(f"node {number} is not up")
        daemon.end(signal.SIGKILL)

    def start_node(self, number: int) -> None:
        """Switch node ``number`` on; one that is on is left as it is."""
        self._node(number)
        with self._locked():
            if not self.running:
                raise ClusterError("the cluster does not run: use `up` first")
            self._start_node(number)

    def stop_service(self, name: str) -> None:
        """End slurmctld or slurmdbd, as a restart does; what runs on the nodes goes on."""
        self._daemon(self._service(name)).end(signal.SIGTERM)

    def start_service(self, name: str) -> None:
        """Start slurmctld or slurmdbd again and wait until it answers; one that runs is left as it is."""
        with self._locked():
            self._start_service(self._service(name))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands against the cluster."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    def status(self) -> str:
        """A line for each daemon and each node, and what is queued."""
        names = ("munged", "mariadbd", "slurmdbd", "slurmctld", *self.settings.names)
        lines = [f"{name:<12} {self._daemon(name).pid or 'does not run'}" for name in names]
        if self.running:
            lines += [self.run("sinfo", "-N", "-o", "%N %P %t %C").stdout, self.run("squeue").stdout]
        return "\n".join(lines)

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _new_settings(self, nodes: int, cpus: int, memory_mib: int, max_array_size: int) -> Settings:
        if not 0 < nodes <= LARGEST["nodes"] or not 0 < max_array_size <= LARGEST["max_array_size"]:
            raise ClusterError(
                f"at most {LARGEST['nodes']} nodes and arrays of {LARGEST['max_array_size']}, at least 1"
            )
        ports = _free_ports(nodes + 3)
        return Settings(
            prefix=f"c{hashlib.sha256(os.fsencode(self.state)).hexdigest()[:4]}n",
            nodes=nodes,
            cpus=cpus,
            memory_mib=memory_mib,
            max_array_size=max_array_size,
            user=getpass.getuser(),
            host=socket.gethostname().split(".")[0],
            first_job=int(time.time()) % 1_000_000 * 10 + 1,
            controller=ports[0],
            accounting=ports[1],
            database=ports[2],
            daemons=tuple(ports[3:]),
            password=self.settings.password if self._settings.exists() else secrets.token_hex(16),
        )

    def _write_files(self, settings: Settings) -> None:
        for folder in ("etc", "run", "log", "controller", "spool", "munge", "database"):
            (self.state / folder).mkdir(mode=0o755, exist_ok=True)
        etc = self.state / "etc"
        _write(etc / "slurm.conf", slurm_conf(settings, self.state), 0o644)
        _write(etc / "slurmdbd.conf", slurmdbd_conf(settings, self.state), 0o600)
        _write(etc / "hosts", hosts(settings), 0o644)
        _write(self.state / "database" / "first.sql", database_sql(settings), 0o600)
        key = etc / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(64))
        # Last, for its presence says that the folder is a cluster's.
        _write(self._settings, json.dumps(asdict(settings), indent=1), 0o600)

    def _launch(self) -> None:
        state, settings = self.state, self.settings
        self._start(
            "munged",
            ["munged", "-F", "--force", f"--key-file={state}/etc/munge.key", f"--socket={state}/munge/socket",
             f"--pid-file={state}/run/munged.own", f"--log-file={state}/log/munged.log",
             f"--seed-file={state}/munge/seed"],
        )  # fmt: skip
        self._await("munged", ["munge", "-S", f"{state}/munge/socket", "-n"])
        self._start("mariadbd", self._database_command())
        client = ["mariadb", "--no-defaults", f"--socket={state}/database/socket", "-uslurm",
                  f"-p{settings.password}", "-e", "select 1", DATABASE]  # fmt: skip
        self._await("mariadbd", client)
        for name in SERVICES:
            self._start_service(name)
        for number in range(1, settings.nodes + 1):
            self._start_node(number)
        self._wait("nodes", lambda: self._idle_nodes() == settings.nodes)

    def _start_service(self, name: str) -> None:
        self._start(name, [name, "-D"])
        self._await(name, SERVICES[name])

    def _database_command(self) -> list[str]:
        folder = self.state / "database"
        common = ["--no-defaults", f"--datadir={folder}/data", f"--user={getpass.getuser()}"]
        first = []
        if not (folder / "data" / "mysql").is_dir():
            install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            done = self.run(*install)
            _write(self.state / "log" / "mariadb-install.log", done.stdout + done.stderr, 0o600)
            if done.returncode:
                raise ClusterError(f"mariadb-install-db failed; see {self.state}/log/mariadb-install.log")
            first = [f"--init-file={folder}/first.sql"]
        return [
            "mariadbd", *common, *first, f"--socket={folder}/socket", f"--bind-address={HOST}",
            f"--port={self.settings.database}", f"--pid-file={self.state}/run/mariadbd.own", "--skip-log-bin",
            "--skip-name-resolve", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync",
            "--performance-schema=OFF",
        ]  # fmt: skip

    def _start_node(self, number: int) -> None:
        name = self._node(number)
        (self.state / "spool" / name).mkdir(exist_ok=True)
        # The shell is the node's first process: it reaps what is orphaned there, and takes everything along.
        boot = (
            f"mount --make-rprivate /; hostname {name}; mount --bind {shlex.quote(str(self.state / 'etc/hosts'))} "
            f"/etc/hosts; mount -t tmpfs tmpfs /dev/shm; slurmd -D -N {name} & d=$!; "
            "trap 'kill -TERM $d' TERM INT; while kill -0 $d 2>/dev/null; do wait $d; done"
        )
        mapped = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        isolated = ["--pid", "--fork", "--kill-child=KILL", "--uts", "--ipc", "--mount", "--mount-proc"]
        self._start(name, ["unshare", *mapped, *isolated, "--", "bash", "-c", boot])

    def _start(self, name: str, command: Sequence[str]) -> None:
        daemon = self._daemon(name)
        if daemon.pid is None:
            daemon.start(command, {**os.environ, **self.environment}, self.state / "log" / f"{name}.out")

    def _await(self, name: str, probe: Sequence[str]) -> None:
        self._wait(name, lambda: self.run(*probe).returncode == 0)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if (self._daemon(name).dead and name != "nodes") or time.monotonic() > deadline:
                raise ClusterError(f"{name} did not start: see {self.state}/log/{name}.out and the logs beside it")
            time.sleep(0.05)

    def _idle_nodes(self) -> int:
        states = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%t").stdout.split()
        return sum(state in ("idle", "mix", "alloc") for state in states)

    # ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _stop_all(self) -> None:
        nodes = [self._daemon(name) for name in self.settings.names]
        with ThreadPoolExecutor(len(nodes)) as pool:
            # Whatever runs on a node ends with it, so there is nothing to wait for.
            list(pool.map(lambda daemon: daemon.end(signal.SIGKILL), nodes))
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._daemon(name).end(signal.SIGTERM)

    def _node(self, number: int) -> str:
        names = self.settings.names
        if not 0 < number <= len(names):
            raise ClusterError(f"there is no node {number}: this cluster has 1 to {len(names)}")
        return names[number - 1]

    @staticmethod
    def _service(name: str) -> str:
        if name not in SERVICES:
            raise ClusterError(f"{name} is none of {', '.join(SERVICES)}")
        return name

    def _daemon(self, name: str) -> Daemon:
        return Daemon(self.state / "run" / f"{name}.pid")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Daemon:
    """A process in the background, known by a file that holds its number and when it began.

    The number alone proves nothing: it may belong to another program by now.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def pid(self) -> int | None:
        """Its process, or None if it does not run."""
        try:
            pid, begun = (int(word) for word in self._file.read_text().split())
        except (OSError, ValueError):
            return None
        return pid if _begun(pid) == begun else None

    @property
    def dead(self) -> bool:
        """It was started, was not stopped, and yet does not run."""
        return self._file.exists() and self.pid is None

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        """Start it in a session of its own, with no descriptor of the caller's."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        _write(self._file, f"{process.pid} {_begun(process.pid) or 0}", 0o600)
        process.returncode = 0  # nobody waits for it: it outlives this script

    def end(self, first: int) -> None:
        """Send the signal, after a while SIGKILL, and wait until it is gone."""
        for number in (first, signal.SIGKILL):
            pid = self.pid
            if pid is None:
                break
            os.kill(pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while self.pid is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        self._file.unlink(missing_ok=True)


def _begun(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine started; None if it ended, even if nobody reaped it.

    Fields of /proc/PID/stat, counted from the third: 0 is the state, 17 the number of threads, 19 the start (proc(5)).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else int(fields[19])


def _require_programs() -> None:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = {program: package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    if missing:
        raise ClusterError(
            f"not installed: {', '.join(missing)}. As root: cluster/install.sh, or: apt-get install -y "
            f"--no-install-recommends {' '.join(sorted(set(missing.values())))}"
        )


def _free_ports(count: int) -> list[int]:
    numbers = random.sample(range(4_000, 11_900), 1_000)
    found = [number for number in numbers if _all_free([number])]
    return found[:count]


def _all_free(ports: Iterable[int]) -> bool:
    with ExitStack() as stack:
        try:
            for port in ports:
                stack.enter_context(socket.create_server((HOST, port)))
        except OSError:
            return False
    return True


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: done (for `status`: it runs); 1: not; 2: wrong usage; `exec` gives the command's code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(SlurmCluster(options.state), options))
    except ClusterError as error:
        print(f"slurm_cluster: {error}", file=sys.stderr)
        return 1


def _up(cluster: SlurmCluster, options: argparse.Namespace) -> int:
    clock = time.monotonic()
    settings = cluster.up(
        nodes=options.nodes, cpus=options.cpus, memory_mib=options.memory, max_array_size=options.max_array_size
    )
    print(
        f"Slurm: {settings.nodes} nodes, {settings.names[0]} … {settings.names[-1]} ({time.monotonic() - clock:.1f} s)"
    )
    print(f'to use it: eval "$(python {shlex.quote(sys.argv[0])} env --state {shlex.quote(str(cluster.state))})"')
    return 0


def _down(cluster: SlurmCluster, options: argparse.Namespace) -> int:
    print("Slurm: stopped" if cluster.down(wipe=options.wipe) else "Slurm: was not running")
    return 0


def _status(cluster: SlurmCluster, _: argparse.Namespace) -> int:
    print(cluster.status())
    return 0 if cluster.running else 1


def _env(cluster: SlurmCluster, _: argparse.Namespace) -> int:
    if not cluster.running:
        print("slurm_cluster: note that it is not running: use `up`", file=sys.stderr)
    print(f"export SLURM_CONF={shlex.quote(cluster.environment['SLURM_CONF'])}")
    return 0


def _exec(cluster: SlurmCluster, options: argparse.Namespace) -> int:
    if not cluster.running:
        raise ClusterError(f"no cluster runs in {cluster.state}: use `up` first")
    if not options.command:
        raise ClusterError("exec needs a command")
    try:
        os.execvpe(options.command[0], options.command, {**os.environ, **cluster.environment})  # noqa: S606
    except OSError as error:
        raise ClusterError(f"cannot run {options.command[0]}: {error.strerror}") from None


def _kill_node(cluster: SlurmCluster, options: argparse.Namespace) -> int:
    cluster.kill_node(options.node)
    return 0


def _start_node(cluster: SlurmCluster, options: argparse.Namespace) -> int:
    cluster.start_node(options.node)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slurm_cluster.py", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    helps = {
        "up": ("start it and wait until every node is idle", _up),
        "down": ("stop it and everything on its nodes", _down),
        "status": ("show daemons, nodes and queue (exit code 1 if it does not run)", _status),
        "env": ("print the variables to use it, for eval", _env),
        "exec": ("run a command with these variables set", _exec),
        "kill-node": ("pull the plug of a node", _kill_node),
        "start-node": ("switch a node on again", _start_node),
    }
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(helps))
    for verb, (text, run) in helps.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--state", type=Path, default=DEFAULT_STATE, help="its folder (default: %(default)s)")
    up = verbs.choices["up"]
    up.add_argument("--nodes", type=int, default=4, help="virtual nodes (default: %(default)s)")
    up.add_argument("--cpus", type=int, default=2, help="cores that each node claims (default: %(default)s)")
    up.add_argument("--memory", type=int, default=4000, help="MiB that each node claims (default: %(default)s)")
    up.add_argument("--max-array-size", type=int, default=1000, help="elements of an array (default: %(default)s)")
    verbs.choices["down"].add_argument("--wipe", action="store_true", help="delete its state folder as well")
    verbs.choices["exec"].add_argument("command", nargs=argparse.REMAINDER, metavar="CMD…", help="command to run")
    for verb in ("kill-node", "start-node"):
        verbs.choices[verb].add_argument("node", type=int, help="its number, from 1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
