"""A cluster that `ray up cluster/on_prem.yaml` makes over test hosts: for tests, measurements, and to try things on.

    sudo .venv/bin/python cluster/test_hosts/lab.py up [--workers 2] [--shared /tmp/lab]     # then, as the lines it prints say:
    sudo .venv/bin/python cluster/test_hosts/lab.py down

The hosts have no network but each other, so each is given the environment of this checkout instead of installing one. With
`--wheels FOLDER` each installs its own (`make setup`, as on real machines) from what this command put there:

    .venv/bin/pip download -c requirements.lock -d FOLDER '.[train,dev]' 'setuptools>=77' wheel
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster.test_hosts.hosts import Hosts, HostsError

CHECKOUT = Path(__file__).resolve().parents[2]
_HEAD, _OPERATOR = "head", "op"
# As in the README's commands, on the operator's machine.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_UP_enable_autoscaler_v2": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_COLOR": "1",
}
_NODES_S, _INSTALLED_S = 180.0, 1200.0


class Lab:
    """Hosts head, w1, w2, ... and op, from where the cluster is operated.

    shared: what all of them mount. wheels: a folder to install the environment from; None: it is given. num_cpus: what Ray takes each worker host to have; None: what the machine has.
    """

    def __init__(
        self,
        folder: Path,
        shared: Path,
        num_workers: int = 2,
        prefix: str = "t5l",
        network: str = "10.78.0",
        num_cpus: int | None = None,
        wheels: Path | None = None,
    ):
        self._num_cpus, self._wheels = num_cpus, wheels
        self.workers = [f"w{i}" for i in range(1, num_workers + 1)]
        self.shared = shared
        self.hosts = Hosts(folder, prefix, network, (shared, *([wheels] if wheels else [])))
        self._bin = Path(sys.executable).parent

    @property
    def address(self) -> str:
        return f"{self.hosts.address(_HEAD)}:6379"

    def up(self) -> None:
        """From nothing to a cluster with all its nodes."""
        self.shared.mkdir(parents=True, exist_ok=True)
        names = [_HEAD, *self.workers, _OPERATOR]
        self.hosts.up(names)
        for name in names:
            self._furnish(name)
        config = yaml.safe_load((CHECKOUT / "cluster" / "on_prem.yaml").read_text())
        config["provider"] |= {"head_ip": _HEAD, "worker_ips": self.workers}
        config["auth"]["ssh_user"] = "root"
        if self._num_cpus is not None:
            config["worker_start_ray_commands"][-1] += f" --num-cpus={self._num_cpus}"
        (self.shared / "on_prem.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.do(_OPERATOR, "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
        self.ray_up()

    def ray_up(self) -> None:
        self.do(
            _OPERATOR,
            f"cd {CHECKOUT} && ray up -y --disable-usage-stats --no-config-cache {self.shared}/on_prem.yaml",
            _INSTALLED_S,
        )
        self.wait_for_nodes(1 + len(self.workers))

    def ray_down(self) -> None:
        self.do(_OPERATOR, f"cd {CHECKOUT} && ray down -y {self.shared}/on_prem.yaml", 300)
        for name in self.workers:
            self.do(_OPERATOR, f"ssh {name} {self._bin}/ray stop --force", 120)

    def down(self) -> None:
        self.hosts.down()

    def on(self, host: str) -> None:
        """Power again. A real machine would have kept its disk: what `ray up` had put there is put there again."""
        self.hosts.on(host)
        self._furnish(host)
        token = self.do(_OPERATOR, "cat ~/.ray/auth_token").stdout
        self.do(host, f"mkdir -p ~/.ray && echo -n {token.strip()} > ~/.ray/auth_token && chmod 600 ~/.ray/auth_token")
        setup = yaml.safe_load((self.shared / "on_prem.yaml").read_text())["setup_commands"]
        self.do(host, setup[-1])

    def _furnish(self, host: str) -> None:
        if self._wheels is not None:
            # Instead of the machine's own pip settings, whichever those are.
            pip = f"export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS={self._wheels}"
            self.do(host, f"echo '{pip}' >> ~/.bashrc")
            return
        self.do(host, f"mkdir -p ~/t5-on-ray && ln -sfn {self._bin.parent} ~/t5-on-ray/.venv")

    def command(self, host: str, words: str) -> list[str]:
        """What to start to run a shell command in a host, with the recipe's Python first on the path."""
        path = f"{self._bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        settings = [f"{name}={value}" for name, value in (_ENVIRONMENT | {"PATH": path}).items()]
        clean = ["-u", "RAY_ADDRESS", "-u", "RAY_AUTH_TOKEN"]
        return self.hosts.command(host, "env", *clean, *settings, "bash", "-c", words)

    def do(self, host: str, words: str, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command in a host.

        Raises:
            HostsError: it failed, with what it said.
        """
        result = subprocess.run(
            self.command(host, words),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and result.returncode:
            raise HostsError(f"{host}: {words}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def start(self, host: str, words: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command in a host, its output to a file."""
        with log.open("wb") as stream:
            return subprocess.Popen(self.command(host, words), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)

    def wait_for_nodes(self, num_nodes: int) -> None:
        """Until so many nodes live, the head among them."""
        program = "import ray; ray.init(logging_level='ERROR'); print(sum(node['Alive'] for node in ray.nodes()))"
        end = time.monotonic() + (_NODES_S if self._wheels is None else _INSTALLED_S)
        while time.monotonic() < end:
            answer = self.do(_HEAD, f'RAY_ADDRESS={self.address} python -c "{program}"', check=False)
            if answer.stdout.strip() == str(num_nodes):
                return
            time.sleep(1)
        raise HostsError(f"not {num_nodes} nodes in time; the last answer: {answer.stdout}{answer.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/lab_hosts"))
    parser.add_argument("--shared", type=Path, default=Path("/tmp/lab"), help="a folder that all hosts see")
    parser.add_argument("--wheels", type=Path, help="hosts install their environment from here")
    options = parser.parse_args()
    lab = Lab(options.folder, options.shared, options.workers, wheels=options.wheels)
    try:
        if options.verb == "down":
            lab.down()
            return 0
        lab.up()
    except HostsError as error:
        print(error, file=sys.stderr)
        return 1
    hosts = f"{os.path.relpath(Path(__file__).parent / 'hosts.py')} --folder {options.folder}"
    print(f"head, {', '.join(lab.workers)} and op are up; all see {options.shared}. For example:")
    print(
        f"  python3 {hosts} in op env PATH={lab._bin}:$PATH RAY_AUTH_MODE=token ray exec {options.shared}/on_prem.yaml 'ray status'"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
