"""What the daemons of the virtual cluster read, as a pure function of its settings: slurm.conf, slurmdbd.conf, hosts.

Meaning of the keys: the manual pages slurm.conf(5) and slurmdbd.conf(5) of Slurm 22.05, which Debian 12 has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
DATABASE = "slurm_acct"


@dataclass(frozen=True)
class Settings:
    """What stays the same from one start to the next."""

    prefix: str  # of node names and the cluster's name: two clusters of one machine must not share them
    nodes: int
    cpus: int  # that each node claims to have
    memory_mib: int
    max_array_size: int
    user: str
    host: str
    first_job: int
    controller: int  # ports
    accounting: int
    database: int
    daemons: tuple[int, ...]
    password: str

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names; number n of 1 … nodes is ``PREFIXn``."""
        return tuple(f"{self.prefix}{number}" for number in range(1, self.nodes + 1))

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that the cluster listens on."""
        return (self.controller, self.accounting, self.database, *self.daemons)

    def address(self, number: int) -> str:
        """Each node has an address of its own in the loopback network."""
        return f"127.0.0.{10 + number}"


def slurm_conf(settings: Settings, state: Path) -> str:
    """slurm.conf. The comments beside the keys say what is unusual about them."""
    return "\n".join([*_places(settings, state), *_behaviour(settings), *_nodes(settings), ""])


def _places(settings: Settings, state: Path) -> list[str]:
    return [
        f"ClusterName={settings.prefix}",
        f"SlurmctldHost={settings.host}({HOST})",
        f"SlurmctldPort={settings.controller}",
        f"SlurmUser={settings.user}",
        f"SlurmdUser={settings.user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # cred_expire is also the delay before a requeued job may start again; its default is 120 s.
        f"AuthInfo=socket={state}/munge/socket,cred_expire=5",
        f"StateSaveLocation={state}/controller",
        f"SlurmdSpoolDir={state}/spool/%n",
        f"SlurmctldPidFile={state}/run/slurmctld.own",
        f"SlurmdPidFile={state}/run/slurmd-%n.own",
        f"SlurmctldLogFile={state}/log/slurmctld.log",
        f"SlurmdLogFile={state}/log/slurmd-%n.log",
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={HOST}",
        f"AccountingStoragePort={settings.accounting}",
        f"AccountingStoragePass={state}/munge/socket",
        "MailProg=/bin/true",
    ]


def _behaviour(settings: Settings) -> list[str]:
    return [
        "MpiDefault=none",
        "SwitchType=switch/none",
        "SlurmdParameters=config_overrides",  # nodes may claim more than the machine has
        "ReturnToService=2",  # a node that comes back is used again at once
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        f"DefMemPerCPU={settings.memory_mib // settings.cpus // 2}",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=2",
        "JobAcctGatherParams=OverMemoryKill",  # memory limits without control groups
        "SlurmctldTimeout=30",
        "SlurmdTimeout=10",  # a dead node is noticed after 10 to 35 s
        "MessageTimeout=10",
        "KillWait=5",
        "UnkillableStepTimeout=120",  # a step whose end met no controller tries again after a minute
        "InactiveLimit=0",
        "MinJobAge=300",
        "CompleteWait=0",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,"
        "requeue_setup_env_fail",
        "PriorityType=priority/basic",
        "JobRequeue=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",  # preemption gives the notice that the job asked for
        f"FirstJobId={settings.first_job}",  # numbers do not start again when the state is wiped
        f"MaxArraySize={settings.max_array_size}",
        "MaxJobCount=20000",
    ]


def _nodes(settings: Settings) -> list[str]:
    nodes = [
        f"NodeName={name} NodeHostname={name} NodeAddr={settings.address(number)} Port={port} "
        f"CPUs={settings.cpus} RealMemory={settings.memory_mib}"
        for number, (name, port) in enumerate(zip(settings.names, settings.daemons, strict=True), start=1)
    ]
    common = "Nodes=ALL State=UP MaxTime=1-0 DefaultTime=10"
    return [
        *nodes,
        f"PartitionName=main {common} Default=YES PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=scav {common} PriorityTier=1 PreemptMode=REQUEUE GraceTime=20",
        f"PartitionName=urgent {common} PriorityTier=100 PreemptMode=OFF",
    ]


def slurmdbd_conf(settings: Settings, state: Path) -> str:
    """slurmdbd.conf; slurmdbd wants it to have mode 600."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={state}/munge/socket",
        "DbdHost=localhost",
        f"DbdAddr={HOST}",
        f"DbdPort={settings.accounting}",
        f"SlurmUser={settings.user}",
        f"PidFile={state}/run/slurmdbd.own",
        f"LogFile={state}/log/slurmdbd.log",
        "StorageType=accounting_storage/mysql",
        f"StorageHost={HOST}",
        f"StoragePort={settings.database}",
        "StorageUser=slurm",
        f"StoragePass={settings.password}",
        f"StorageLoc={DATABASE}",
    ]
    return "\n".join([*lines, ""])


def database_sql(settings: Settings) -> str:
    """What the private MariaDB does at its first start."""
    grants = "\n".join(
        f"GRANT ALL ON {DATABASE}.* TO 'slurm'@'{place}' IDENTIFIED BY '{settings.password}';"
        for place in (HOST, "localhost")
    )
    return f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n{grants}\n"


def hosts(settings: Settings) -> str:
    """/etc/hosts as the nodes see it."""
    nodes = [f"{settings.address(number)} {name}" for number, name in enumerate(settings.names, start=1)]
    return "\n".join([f"{HOST} localhost {settings.host}", "::1 ip6-localhost", *nodes, ""])
