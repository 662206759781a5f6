#!/usr/bin/env python3
"""Several hosts on one Linux machine: a cluster to try things on, with cables to pull and power to cut.

    sudo python3 cluster/test_hosts/hosts.py up head w1 w2 op      # 10.77.0.1, .2, .3, .4
    sudo python3 cluster/test_hosts/hosts.py in w1 CMD ...         # run a command there; the environment is passed on
    sudo python3 cluster/test_hosts/hosts.py off w1 | on w1        # power: its processes and its files are lost
    sudo python3 cluster/test_hosts/hosts.py drop w1 | undrop w1   # its packets vanish, as in a partition
    sudo python3 cluster/test_hosts/hosts.py cut w1 | mend w1      # the cable: its interface loses the carrier
    sudo python3 cluster/test_hosts/hosts.py slow w1 50 | unslow w1           # milliseconds each way
    sudo python3 cluster/test_hosts/hosts.py rate w1 100mbit | rate w1 off    # both ways
    sudo python3 cluster/test_hosts/hosts.py limit w1 0.5 | limit w1 off      # cores for what runs there now
    sudo python3 cluster/test_hosts/hosts.py ls | down

A host is a set of namespaces (network, PID, mount, UTS, IPC) with an address, a host name, an sshd and a file system of
its own: everything of the machine is there to read, what is written goes to memory and is gone with the host. --shared
folders are the same for all, as on NFS. A host has no way out: it sees the other hosts, and nothing else.

Needed: root, a kernel with overlayfs; Debian: apt-get install iproute2 openssh-server rsync. Python's standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
_START_S = 20.0
# Control groups of version 1; where a machine has version 2 only, hosts cannot be limited.
_CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD_US = 10_000


class HostsError(Exception):
    """One clear line."""


class Hosts:
    """A set of hosts. Two sets stand beside each other if all of folder, prefix and network differ.

    folder: state, and the set's ssh key. prefix: of the network namespaces' names. network: first three bytes of the
    addresses. shared: folders that all hosts see as they are. memory: the most that a host's files may take.
    """

    def __init__(
        self,
        folder: Path = Path("/tmp/test_hosts"),
        prefix: str = "t5h",
        network: str = "10.77.0",
        shared: tuple[Path, ...] = (),
        memory: str = "6g",
    ):
        self.folder, self.prefix, self.network, self.shared, self.memory = folder, prefix, network, shared, memory
        # Those that this process started itself, and so has to wait for when they end.
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def opened(cls, folder: Path) -> Hosts:
        """The set that ``up`` made.

        Raises:
            HostsError: there is none.
        """
        try:
            state = json.loads((folder / "state.json").read_text())
        except FileNotFoundError:
            raise HostsError(f"no hosts are up in {folder}: `hosts.py up head w1 w2` makes some") from None
        shared = tuple(Path(path) for path in state["shared"])
        return cls(folder, state["prefix"], state["network"], shared, state["memory"])

    @property
    def names(self) -> dict[str, str]:
        """Host -> address."""
        lines = (self.folder / "names").read_text().split("\n")
        return dict(line.split() for line in lines if line)

    def address(self, host: str) -> str:
        if host not in self.names:
            raise HostsError(f"no host {host}; there are: {', '.join(self.names)}")
        return self.names[host]

    def up(self, names: list[str]) -> None:
        """Make the network and start all hosts."""
        if (self.folder / "state.json").exists():
            raise HostsError(f"hosts are up in {self.folder} already: take them down first, or give another --folder")
        check_possible()
        self.folder.mkdir(parents=True, exist_ok=True)
        addresses = {name: f"{self.network}.{i}" for i, name in enumerate(names, 1)}
        (self.folder / "names").write_text("".join(f"{name} {address}\n" for name, address in addresses.items()))
        table = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        (self.folder / "etc_hosts").write_text("\n".join(table) + "\n")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test hosts", "-f", str(self.folder / "key"))
        state = {"prefix": self.prefix, "network": self.network, "shared": [str(path) for path in self.shared]}
        (self.folder / "state.json").write_text(json.dumps(state | {"memory": self.memory}))
        try:
            self._make_switch()
            for name, address in addresses.items():
                self._plug_in(name, address)
                self.on(name)
        except BaseException:
            self.down()
            raise

    def _make_switch(self) -> None:
        # In a namespace of its own: a bridge in the machine's could be routed out of it.
        _run("ip", "netns", "add", self._space("sw"))
        self._ip("sw", "link", "set", "lo", "up")
        self._ip("sw", "link", "add", "br0", "type", "bridge")
        self._ip("sw", "link", "set", "br0", "up")

    def _plug_in(self, host: str, address: str) -> None:
        _run("ip", "netns", "add", self._space(host))
        self._ip(host, "link", "set", "lo", "up")
        self._ip("sw", "link", "add", f"v-{host}", "type", "veth", "peer", "name", "eth0", "netns", self._space(host))
        self._ip("sw", "link", "set", f"v-{host}", "master", "br0", "up")
        self._ip(host, "addr", "add", f"{address}/24", "dev", "eth0")
        self._ip(host, "link", "set", "eth0", "up")

    def on(self, host: str) -> None:
        """Start a host with a fresh file system."""
        self.address(host)
        if self.pid(host) is not None:
            raise HostsError(f"{host} is on")
        mount = self.folder / f"{host}.root"
        mount.mkdir(exist_ok=True)
        ready = self.folder / f"{host}.ready"
        ready.unlink(missing_ok=True)
        environment = os.environ | {
            "HOST_NAME": host,
            "HOST_ROOT": str(mount),
            "HOST_FILES": str(self.folder),
            "HOST_SHARED": "\n".join(map(str, self.shared)),
            "HOST_MEMORY": self.memory,
        }
        command = ["ip", "netns", "exec", self._space(host), "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"]
        with (self.folder / f"{host}.log").open("w") as log:
            outer = subprocess.Popen(
                [*command, "--propagation", "private", "bash", str(HERE / "host_init.sh")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[host] = outer
        _wait_for(
            lambda: ready.exists() and ready.stat().st_size > 0,
            lambda: f"{host} did not start: {(self.folder / f'{host}.log').read_text().strip()}",
        )
        # `unshare` has one child: the first process of the host, PID 1 inside.
        (pid,) = _below(outer.pid)
        (self.folder / f"{host}.pid").write_text(f"{pid} {_started_at(pid)}")

    def off(self, host: str) -> None:
        """Cut the power: every process of the host ends at once, without a word to anybody."""
        self.address(host)
        pid = self.pid(host)
        if pid is None:
            raise HostsError(f"{host} is off")
        os.kill(pid, signal.SIGKILL)
        self._wait_for_child(host)
        _wait_for(lambda: self.pid(host) is None, lambda: f"{host} does not end")

    def _wait_for_child(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(timeout=_START_S)

    def pid(self, host: str) -> int | None:
        """Of the host's first process, as the machine sees it; None while it is off."""
        try:
            pid, started = map(int, (self.folder / f"{host}.pid").read_text().split())
        except FileNotFoundError:
            return None
        return pid if _started_at(pid) == started else None

    def command(self, host: str, *words: str) -> list[str]:
        """What to start to run ``words`` in the host, in its root folder."""
        self.address(host)
        pid = self.pid(host)
        if pid is None:
            raise HostsError(f"{host} is off")
        # The paths of the machine are not those of a host.
        clean = ["env", "-u", "TMPDIR", "-u", "VIRTUAL_ENV", "HOME=/root", f"HOSTNAME={host}"]
        return ["nsenter", "-t", str(pid), "-m", "-p", "-n", "-u", "-i", "-r", "-w", *clean, *words]

    def cut(self, host: str) -> None:
        self._ip("sw", "link", "set", self._cable(host), "down")

    def mend(self, host: str) -> None:
        self._ip("sw", "link", "set", self._cable(host), "up")

    def drop(self, host: str) -> None:
        self._ip("sw", "link", "set", self._cable(host), "nomaster")

    def undrop(self, host: str) -> None:
        self._ip("sw", "link", "set", self._cable(host), "master", "br0")

    def slow(self, host: str, delay_ms: float) -> None:
        """Every packet to and from the host comes so much later; a relay of our own, for kernels without netem."""
        cable, ends = self._cable(host), (f"a-{host}", f"b-{host}")
        self._ip("sw", "link", "add", f"x-{host}", "type", "bridge")
        self._ip("sw", "link", "set", f"x-{host}", "up")
        command = ["ip", "netns", "exec", self._space("sw"), sys.executable, str(HERE / "delay.py"), *ends]
        relay = subprocess.Popen(
            [*command, str(delay_ms)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._children[f"{host}.relay"] = relay
        (self.folder / f"{host}.relay").write_text(str(relay.pid))
        _wait_for(lambda: self._has_link(ends[1]), lambda: f"the relay of {host} did not start")
        self._ip("sw", "link", "set", ends[0], "master", f"x-{host}", "up")
        self._ip("sw", "link", "set", ends[1], "master", "br0", "up")
        self._ip("sw", "link", "set", cable, "master", f"x-{host}")

    def unslow(self, host: str) -> None:
        relay = self.folder / f"{host}.relay"
        if not relay.exists():
            raise HostsError(f"{host} is not slow")
        self.undrop(host)
        os.kill(int(relay.read_text()), signal.SIGTERM)
        self._wait_for_child(relay.name)
        relay.unlink()
        self._ip("sw", "link", "del", f"x-{host}")

    def rate(self, host: str, rate: str) -> None:
        """Limit what the host sends and gets, as ``100mbit``; ``off`` takes the limit away."""
        for space, link in ((self._space("sw"), self._cable(host)), (self._space(host), "eth0")):
            discipline = ["ip", "netns", "exec", space, "tc", "qdisc"]
            subprocess.run([*discipline, "del", "dev", link, "root"], capture_output=True, check=False)
            if rate != "off":
                limit = ["tbf", "rate", rate, "burst", "128kb", "latency", "100ms"]
                _run(*discipline, "add", "dev", link, "root", *limit)

    def limit(self, host: str, cpus: str, process: int | None = None) -> None:
        """The most processor time that all that runs in the host now, and what that starts, may take: cores, or ``off``.

        What `in` starts afterwards is not counted. process: only what this process of `command` has started by now, and what
        that starts.
        """
        pid, group = self.pid(host), self._cpu_group(host)
        if pid is None:
            raise HostsError(f"{host} is off")
        if not (_CPU_GROUPS / "cpu.cfs_quota_us").exists():
            raise HostsError(f"hosts cannot be limited here: {_CPU_GROUPS} is no control group of version 1")
        group.mkdir(exist_ok=True)
        # Short periods: a host that has used its time up must not keep the others waiting long.
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text("-1" if cpus == "off" else str(int(float(cpus) * _PERIOD_US)))
        for each in process_tree(process or pid):
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(each))

    def down(self) -> None:
        """Stop all hosts and leave nothing of them."""
        for host in self.names:
            if (self.folder / f"{host}.relay").exists():
                self.unslow(host)
            if self.pid(host) is not None:
                self.off(host)
            if self._cpu_group(host).is_dir():
                self._cpu_group(host).rmdir()
        spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        for name in (line.split()[0] for line in spaces.splitlines()):
            if name in {self._space(host) for host in (*self.names, "sw")}:
                _run("ip", "netns", "del", name)
        shutil.rmtree(self.folder)

    def _space(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def _cpu_group(self, host: str) -> Path:
        return _CPU_GROUPS / self._space(host)

    def _cable(self, host: str) -> str:
        self.address(host)
        return f"v-{host}"

    def _ip(self, host: str, *words: str) -> None:
        _run("ip", "-n", self._space(host), *words)

    def _has_link(self, name: str) -> bool:
        command = ["ip", "-n", self._space("sw"), "link", "show", name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def check_possible() -> None:
    """Whether this machine can make hosts.

    Raises:
        HostsError: saying what is missing.
    """
    if os.geteuid() != 0:
        raise HostsError("test hosts need root: network and mount namespaces are made")
    missing = [
        tool for tool in ("ip", "unshare", "nsenter", "ssh-keygen", "sshd", "rsync") if shutil.which(tool) is None
    ]
    if missing:
        raise HostsError(f"not installed: {', '.join(missing)} (Debian: apt-get install iproute2 openssh-server rsync)")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        raise HostsError("this machine lets nobody make namespaces (a container without privileges?)")


def _started_at(pid: int) -> int | None:
    """Clock ticks since boot at which a process started, which tells it from a later one of its number; None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _below(pid: int) -> list[int]:
    """Children of a process of one thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def process_tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tasks = Path(f"/proc/{process}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return found


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise HostsError(f"{' '.join(command)}: {result.stderr.strip()}")


def _wait_for(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    end = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > end:
            raise HostsError(otherwise())
        time.sleep(0.02)


def main() -> int:
    options = _parser().parse_args()
    try:
        if options.verb == "up":
            shared = tuple(path.resolve() for path in options.shared)
            Hosts(options.folder, options.prefix, options.network, shared, options.memory).up(options.words)
            return 0
        hosts = Hosts.opened(options.folder)
        if options.verb == "in":
            command = hosts.command(*options.words)
            os.execvp(command[0], command)
        if options.verb == "ls":
            for name, address in hosts.names.items():
                print(name, address, f"on, process {hosts.pid(name)}" if hosts.pid(name) else "off")
        else:
            getattr(hosts, options.verb)(*options.words)
    except HostsError as error:
        print(error, file=sys.stderr)
        return 2
    except TypeError:
        print(f"{options.verb} is not called so: see hosts.py --help", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = ("up", "in", "on", "off", "cut", "mend", "drop", "undrop", "slow", "unslow", "rate", "limit", "ls", "down")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/test_hosts"), help="of the set's state")
    parser.add_argument("--prefix", default="t5h", help="up: of the namespaces' names")
    parser.add_argument("--network", default="10.77.0", help="up: first three bytes of the addresses")
    parser.add_argument("--shared", type=Path, action="append", default=[], help="up: a folder that all hosts share")
    parser.add_argument("--memory", default="6g", help="up: most that a host's files may take")
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
