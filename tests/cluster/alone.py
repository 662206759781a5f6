"""A place for a real Ray of a test's own: other Rays on this machine are neither seen nor touched."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

_SETUP = """
set -e
ip link set lo up
ip link add node0 type veth peer name far0
ip link set node0 up
ip link set far0 up
ip address add "$0/24" dev node0
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
exec "$@"
"""


def alone(address: str) -> list[str]:
    """A command prefix: processes, a network with this one address, and a /tmp/ray of its own.

    The test is skipped where the machine gives no such namespaces.
    """
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip are needed")
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [
        "unshare",
        *rights,
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--net",
        "bash",
        "-c",
        _SETUP,
        address,
    ]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine gives no namespaces of its own")
    return command
