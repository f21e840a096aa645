"""A real SLURM on this machine, for tests: one controller, virtual nodes, GPUs that are not there.

It needs no systemd, no cgroups and no root, uses free ports, and keeps all its files in one folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = "slurm-wlm slurmctld slurmd slurm-client munge"
"""Debian's packages."""
DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = (
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "sinfo",
    "scontrol",
    "sacct",
    "sacctmgr",
    "sshare",
)
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
UP = ("idle", "mixed", "allocated", "completing")
"""States of a node that answers."""
PATIENCE = 30.0
"""Seconds that a daemon has to answer."""
CONFIGURATION = """\
ClusterName=dmlbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
StateSaveLocation={folder}/controller
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/log/%n.log
SlurmdSpoolDir={folder}/spool/%n
# no cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
# a node may have more cores and memory than this machine
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
# a job starts in the second of its submission
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
# a dead node is noticed in seconds, and is back as soon as its daemon is
SlurmdTimeout=10
ReturnToService=2
TCPTimeout=2
KillWait={kill_wait}
OverTimeLimit=0
# jobs that ended stay in the answers of squeue, as Snakemake's plugin needs it
MinJobAge=3600
AccountingStorageType=accounting_storage/none
GresTypes=gpu
"""


def missing_programs() -> list[str]:
    """The programs of SLURM that this machine lacks."""
    return [p for p in (*DAEMONS, *CLIENTS) if not shutil.which(p, path=SYSTEM_PATH)]


class Sandbox:
    """A SLURM with the nodes node1, node2, ...; use it as a context manager.

    Args:
        nodes: their number.
        cores, memory, gpus: what each node claims to have; memory in MB.
        kill_wait: seconds between SIGTERM and SIGKILL of a job that is cancelled.
    """

    def __init__(self, nodes=2, cores=4, memory=8000, gpus=2, kill_wait=15):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets have short paths
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.cores, self.memory, self.gpus, self.kill_wait = cores, memory, gpus, kill_wait
        self.file = self.folder / "slurm.conf"
        self.bin = self.folder / "bin"
        self.daemons: dict[str, subprocess.Popen] = {}
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:{SYSTEM_PATH}",
            "SLURM_CONF": str(self.file),
        }

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        self._stop()

    def _start(self):
        for name in ("munge", "log", "controller", "gpus", "bin"):
            (self.folder / name).mkdir()
        self._start_munge()
        self._configure()
        for client in CLIENTS:
            self.wrap(client)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node, wait=False)
        self.wait_for(self._is_up, "the nodes are up")

    def _start_munge(self):
        folder = self.folder / "munge"
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {"key-file": key, "socket": folder / "socket", "pid-file": folder / "pid"}
        files |= {"log-file": folder / "log", "seed-file": folder / "seed"}
        options = [f"--{option}={path}" for option, path in files.items()]
        self._daemon("munged", "munged", "--foreground", "--force", *options)
        self.wait_for((folder / "socket").exists, "munged answers")

    def _configure(self):
        ports = _free_ports(1 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        lines = CONFIGURATION.format(
            host=host, user=user, folder=self.folder, port=ports[0], kill_wait=self.kill_wait
        ).splitlines()
        for node, port in zip(self.nodes, ports[1:], strict=True):
            place = f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            size = f"CPUs={self.cores} RealMemory={self.memory} Gres=gpu:{self.gpus}"
            lines.append(f"{place} {size} State=UNKNOWN")
        lines.append("PartitionName=main Nodes=ALL Default=YES DefaultTime=10 State=UP")
        self.file.write_text("\n".join([*lines, ""]))
        # SLURM wants a device for each GPU: a link to one that every machine has will do
        for number in range(self.gpus):
            (self.folder / f"gpus/nvidia{number}").symlink_to("/dev/null")
        names = f"{self.folder}/gpus/nvidia[0-{self.gpus - 1}]"
        lines = [f"NodeName={node} Name=gpu File={names}\n" for node in self.nodes]
        (self.folder / "gres.conf").write_text("".join(lines))

    def wrap(self, client, before=""):
        """Put a client command first in PATH. It sets SLURM_CONF, which jobs of the plugin lose.

        Args:
            before: lines of the shell that run before the command, as `exit 1`.
        """
        program = shutil.which(client, path=SYSTEM_PATH)
        script = self.bin / client
        new = script.with_suffix(".new")
        new.write_text(f'#!/bin/sh\n{before}\nSLURM_CONF={self.file} exec {program} "$@"\n')
        new.chmod(0o755)
        new.replace(script)  # a call that is running reads the old one to its end

    def _daemon(self, name, *command):
        program = shutil.which(command[0], path=SYSTEM_PATH)
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *command[1:]],  # it ends with the tests
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )

    def start_controller(self):
        """Start slurmctld, and wait until it answers."""
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.file))
        self.wait_for(
            lambda: not self.call("scontrol", "ping", check=False).returncode, "slurmctld"
        )

    def stop_controller(self):
        """Stop slurmctld as an administrator does: nobody answers, and jobs go on."""
        self._end("slurmctld", signal.SIGTERM)

    def start_node(self, node, wait=True):
        """Start the daemon of a node, also after `kill_node` and `kill_slurmd`."""
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self._daemon(node, "slurmd", "-D", "-N", node, "-f", str(self.file))
        if wait:
            self.wait_for(lambda: self.node_state(node) in UP, f"{node} is up")

    def kill_slurmd(self, node):
        """SIGKILL to the daemon of a node; its jobs live on."""
        self._end(node, signal.SIGKILL)

    def kill_node(self, node):
        """End a node as if it lost power: its daemon, and all processes of its jobs."""
        self._end(node, signal.SIGKILL)
        log = self.folder / "log" / f"{node}.log"
        for _ in range(2):  # a process may start another one meanwhile
            for process in self._processes():
                if f"SLURMD_NODENAME={node}" in process.variables or process.writes(log):
                    process.kill()
        shutil.rmtree(self.folder / "spool" / node)  # or it could not start the same job again

    def _end(self, name, number):
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _stop(self):
        """Stop the jobs, the daemons, and all that was started with `environment`."""
        if "slurmctld" in self.daemons:
            with contextlib.suppress(subprocess.SubprocessError):
                self.call("scancel", "--signal=KILL", "--full", *self.queue("%A"), check=False)
        for node in self.nodes:
            self._end(node, signal.SIGTERM)
        for _ in range(3):
            for process in self._processes():
                if process.pid not in [daemon.pid for daemon in self.daemons.values()]:
                    process.kill()
        for name in [*self.daemons]:
            self._end(name, signal.SIGKILL)  # slurmctld would take 10 s to save what is deleted
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self):
        """The processes that run in this sandbox's environment."""
        return [
            process
            for process in map(_Process, _numbers_in_proc())
            if f"SLURM_CONF={self.file}" in process.variables
            or any(v.startswith(f"PATH={self.bin}:") for v in process.variables)
            or any(v.startswith("PATH=") and f":{self.bin}:" in v for v in process.variables)
        ]

    def wait_for(self, condition, name, seconds=PATIENCE):
        """Wait until `condition()` is true; return its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seconds:.0f} s: not so: {name}\n{self.logs()}")
            time.sleep(0.05)
        return value

    def logs(self):
        """The ends of the daemons' logs, for a test that failed."""
        texts = {log.name: log.read_text(errors="replace") for log in self.folder.glob("log/*")}
        return "\n".join(f"--- {name}\n{text[-1500:]}" for name, text in texts.items())

    def call(self, *command, check=True):
        """Run a client command."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def queue(self, columns="%A|%T|%k", states="PENDING,RUNNING,COMPLETING"):
        """Lines of squeue: one for each job in these states."""
        answer = self.call("squeue", "-h", "-t", states, "-o", columns, check=False)
        return answer.stdout.splitlines()

    def job(self, number):
        """What `scontrol show job` says of a job, by its name, as {"JobState": "RUNNING", ...}."""
        text = self.call("scontrol", "show", "job", "-o", str(number)).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def jobs(self):
        """What `scontrol show job` says of all jobs, by their number."""
        text = self.call("scontrol", "show", "job", "-o").stdout
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        return {int(job["JobId"]): job for job in jobs if "JobId" in job}

    def node_state(self, node):
        return self.call("sinfo", "-h", "-N", "-n", node, "-o", "%T", check=False).stdout.strip()

    def _is_up(self):
        return all(self.node_state(node) == "idle" for node in self.nodes)


class _Process:
    def __init__(self, pid):
        self.pid = pid
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            variables = b""
        self.variables = variables.decode(errors="replace").split("\0")

    def writes(self, file):
        """Whether it has `file` open."""
        try:
            return any(link.resolve() == file for link in Path(f"/proc/{self.pid}/fd").iterdir())
        except OSError:
            return False

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _numbers_in_proc():
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != "self"]


def _free_ports(count):
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":  # to try something by hand: a shell in the sandbox
    with Sandbox() as sandbox:
        command = sys.argv[1:] or ["bash"]
        sys.exit(subprocess.call(command, env=sandbox.environment))
