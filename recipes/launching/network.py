"""Which network interface the workers talk over.

Left to itself gloo takes the address that a host's name resolves to, on many machines 127.0.1.1, and then finds no other
host. Ray knows the address by which each node is reached; the interface that has it is right.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from recipes.errors import UserError

_SIOCGIFADDR = 0x8915
# Read by gloo and by nccl when a process group is made.
_VARIABLES = {"GLOO_SOCKET_IFNAME": "", "NCCL_SOCKET_IFNAME": "="}


def interfaces() -> dict[str, str]:
    """Name -> IPv4 address of this machine's network interfaces that have one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def interface_of(address: str) -> str | None:
    """The interface that has this address; None: none has."""
    return next((name for name, own in interfaces().items() if own == address), None)


def check_interface(wanted: str | None) -> None:
    """Whether this node has the interface; None is no wish.

    Raises:
        UserError: it has none of that name; says which it has.
    """
    import ray

    have = interfaces()
    if wanted is not None and wanted not in have:
        found = ", ".join(f"{name} ({own})" for name, own in have.items())
        raise UserError(
            f"scaling.network_interface is {wanted}, but the node {ray.util.get_node_ip_address()} has {found}"
        )


def set_interface(wanted: str | None) -> None:
    """Tell gloo and nccl, in this process, which interface to use; what the environment says already stands.

    wanted: a name; None: the interface of the address by which Ray reaches this node, if there is one.

    Raises:
        UserError: this node has no interface of that name.
    """
    import ray

    check_interface(wanted)
    name = wanted or interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable, exactly in _VARIABLES.items():
            os.environ.setdefault(variable, exactly + name)
