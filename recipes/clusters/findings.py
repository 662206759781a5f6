"""What is right with a cluster and what is not, each with its remedy."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recipes.clusters.probe import Look, Node, Probes
from recipes.config import ScalingBlock
from recipes.launching.ray_cluster import needed_resources
from recipes.storage import Storage

GIB = 2**30
_LEAST_SHM, _LEAST_DISK = 1 * GIB, 10 * GIB
_MOST_SKEW_S = 1.0

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """level: ok; note: works, but worth knowing; bad: a run would fail. remedy: empty where all is well."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def versions(nodes: Sequence[Node], looks: Sequence[Look]) -> Finding:
    """Equal on all nodes: what one worker saves another must load."""
    first, different = looks[0].versions, []
    for name in first:
        there = {str(node): look.versions[name] for node, look in zip(nodes, looks, strict=True)}
        if len(set(there.values())) > 1:
            different.append(
                f"{name} is " + ", ".join(f"{version or 'missing'} on {node}" for node, version in there.items())
            )
    if different:
        return Finding(
            "bad", "versions", "; ".join(different), "install the lock file's versions on every node, and restart Ray"
        )
    missing = [name for name, version in first.items() if version is None]
    if missing:
        return Finding(
            "bad", "versions", f"not installed on any node: {', '.join(missing)}",
            "pip install -c requirements.lock '.[train]' in the Python that Ray runs in",
        )  # fmt: skip
    return Finding("ok", "versions", ", ".join(f"{name} {version}" for name, version in first.items()) + _on(nodes))


def resources(nodes: Sequence[Node], scaling: ScalingBlock) -> Finding:
    """Whether all workers fit, each whole on one node."""
    needed = needed_resources(scaling)
    fits = {str(node): node.num_workers(needed) for node in nodes}
    room, least, each = (
        sum(fits.values()),
        scaling.fewest_workers,
        ", ".join(f"{n:g} {kind}" for kind, n in needed.items()),
    )
    found = f"room for {room} workers of {each}: " + ", ".join(f"{n} on {node}" for node, n in fits.items())
    if room >= least:
        return Finding("ok", "room", f"{found}; {least} wanted")
    return Finding(
        "bad", "room", f"{found}; {least} wanted", "add nodes, or lower scaling.num_workers or scaling.cpus_per_worker"
    )


def gpus(nodes: Sequence[Node], looks: Sequence[Look], wanted: bool) -> Finding:
    """What torch sees against what Ray hands out."""
    lines, wrong = [], []
    for node, look in zip(nodes, looks, strict=True):
        promised = int(node.resources.get("GPU", 0))
        if promised > len(look.gpus):
            wrong.append(f"{node}: Ray hands out {promised}, torch sees {len(look.gpus)}")
        names = {name for name, _ in look.gpus}
        if look.gpus:
            lines.append(f"{node}: {len(look.gpus)} x {', '.join(sorted(names))}, {look.gpus[0][1] / GIB:.0f} GiB")
    if wrong:
        return Finding(
            "bad", "GPUs", "; ".join(wrong), "install the NVIDIA driver and torch's CUDA build there, or start Ray with the right --num-gpus"
        )  # fmt: skip
    if not lines:
        return Finding(
            "bad" if wanted else "ok", "GPUs", "none", "set scaling.use_gpu=false, or add GPU nodes" if wanted else ""
        )
    return Finding("ok", "GPUs", "; ".join(lines))


def interface(nodes: Sequence[Node], looks: Sequence[Look], wanted: str | None) -> Finding:
    """The one the workers would use."""
    if wanted is not None:
        without = [str(node) for node, look in zip(nodes, looks, strict=True) if wanted not in look.interfaces]
        if without:
            have = sorted(set.intersection(*(set(look.interfaces) for look in looks)))
            return Finding(
                "bad", "network interface", f"scaling.network_interface is {wanted}, which is missing on {', '.join(without)}",
                f"leave it out, or name one that all nodes have ({', '.join(have)})",
            )  # fmt: skip
        return Finding("ok", "network interface", f"{wanted}{_on(nodes)}")
    unknown = [str(node) for node, look in zip(nodes, looks, strict=True) if look.interface is None]
    if unknown:
        return Finding(
            "note", "network interface", f"none has the address by which Ray reaches {', '.join(unknown)}",
            "set scaling.network_interface, if the workers do not find each other",
        )  # fmt: skip
    return Finding(
        "ok",
        "network interface",
        ", ".join(f"{look.interface} on {node}" for node, look in zip(nodes, looks, strict=True)),
    )


def ports(nodes: Sequence[Node], looks: Sequence[Look]) -> Finding:
    """Addresses beside the one by which Ray reaches a node: Ray 2.60 listens on those too, and no setting changes that."""
    others = []
    for node, look in zip(nodes, looks, strict=True):
        more = [f"{name} ({address})" for name, address in look.interfaces.items() if _is_another(address, node)]
        others += [f"{', '.join(more)} of {node}"] if more else []
    public = [str(node) for node in nodes if ipaddress.ip_address(node.address).is_global]
    if not others and not public:
        return Finding("ok", "Ray's ports", f"on no address but the nodes' own and loopback{_on(nodes)}")
    found = [f"open on {'; '.join(others)} too"] * bool(others)
    found += [f"the addresses of {', '.join(public)} are public"] * bool(public)
    return Finding(
        "note",
        "Ray's ports",
        "; ".join(found),
        "let a firewall close all TCP ports there to all but the cluster's nodes (cluster/firewall.nft)",
    )


def _is_another(address: str, node: Node) -> bool:
    return address != node.address and not ipaddress.ip_address(address).is_loopback


def clocks(nodes: Sequence[Node], looks: Sequence[Look]) -> Finding:
    off = {str(node): look.clock_off_s for node, look in zip(nodes, looks, strict=True)}
    skew = max(off.values()) - min(off.values())
    blur = 2 * max(look.clock_error_s for look in looks)
    words = f"{skew * 1000:.0f} ms apart at most, give or take {blur * 1000:.0f} ms"
    if skew - blur <= _MOST_SKEW_S:
        return Finding("ok", "clocks", words)
    worst = max(off, key=lambda node: abs(off[node]))
    return Finding(
        "note",
        "clocks",
        f"{words}; {worst} differs most",
        "run an NTP client (chrony) on every node; logs and object stores need it",
    )


def room_on_disk(nodes: Sequence[Node], looks: Sequence[Look]) -> Finding:
    remedy = "free some, or start Ray with --temp-dir on a larger disk"
    sizes = [look.free_bytes for look in looks]
    return _large_enough("disk for Ray's session", nodes, sizes, _LEAST_DISK, remedy, digits=1, what=" free")


def shared_memory(nodes: Sequence[Node], looks: Sequence[Look]) -> Finding:
    remedy = "a container needs --shm-size=8g (Kubernetes: an emptyDir of medium Memory)"
    return _large_enough("/dev/shm", nodes, [look.shm_bytes for look in looks], _LEAST_SHM, remedy, digits=2)


def _large_enough(
    subject: str, nodes: Sequence[Node], sizes: list[int], least: int, remedy: str, *, digits: int, what: str = ""
) -> Finding:
    """sizes, least: in bytes. digits: after the point, of a size that is too small. what: of it is so large."""
    little = [f"{node}: {size / GIB:.{digits}f} GiB" for node, size in zip(nodes, sizes, strict=True) if size < least]
    if little:
        return Finding("note", subject, "; ".join(little), remedy)
    return Finding("ok", subject, f"at least {min(sizes) / GIB:.0f} GiB{what}{_on(nodes)}")


def storage(probes: Probes, place: Storage) -> Finding:
    """Whether all nodes see one and the same place: what this process writes they read, what they write it reads.

    Raises:
        StorageError: this process itself cannot write there.
    """
    place.check_writable()
    mark = f".probe_{uuid.uuid4().hex}"
    names = [f"{mark}_{i}" for i in range(len(probes.nodes))]
    place.write_text(mark, mark)
    try:
        seen = probes.ask("read", place, mark)
        written = probes.ask_each("write", [(place, name, name) for name in names])
        blind = [str(node) for node, text in zip(probes.nodes, seen, strict=True) if text != mark]
        mute = [f"{node} ({reason})" for node, reason in zip(probes.nodes, written, strict=True) if reason]
        lost = [
            str(node)
            for node, name, reason in zip(probes.nodes, names, written, strict=True)
            if not reason and not place.exists(name)
        ]
    finally:
        for name in (mark, *names):
            if place.exists(name):
                place.delete_file(name)
    remedy = "give a run.storage_path that every node mounts (NFS, Lustre, ...), or a URI such as s3://bucket/runs"
    if blind or mute or lost:
        words = [
            *([f"what is written here is not seen on {', '.join(blind)}"] if blind else []),
            *([f"cannot be written on {', '.join(mute)}"] if mute else []),
            *([f"what is written there is not seen here: {', '.join(lost)}"] if lost else []),
        ]
        return Finding("bad", "storage", f"{place}: {'; '.join(words)}", remedy)
    return Finding("ok", "storage", f"{place}: written here and read{_on(probes.nodes)}, and the other way round")


def _on(nodes: Sequence[Node]) -> str:
    return " on the one node" if len(nodes) == 1 else f" on all {len(nodes)} nodes"
