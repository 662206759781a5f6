"""An actor on every node, that looks around there."""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import RunFailed
from recipes.launching.environment import installed_version

PACKAGES = ("ray", "torch", "deepspeed", "transformers", "pyarrow", "numpy")
_ANSWER_S = 60.0
_PINGS = 5


@dataclass(frozen=True)
class Node:
    """A node of the cluster, as Ray has it. resources: all, used or not."""

    node_id: str
    address: str
    host: str
    resources: dict[str, float]

    def __str__(self) -> str:
        return f"{self.host} ({self.address})"

    def num_workers(self, needed: dict[str, float]) -> int:
        """Workers of which each needs so much, that the whole node holds."""
        return int(min((self.resources.get(kind, 0.0) + 1e-6) // each for kind, each in needed.items() if each > 0))


@dataclass(frozen=True)
class Look:
    """What a node's probe found.

    versions: of Python and PACKAGES, None where a package is not installed. gpus: (name, bytes). interface: the one with
    the node's address, None if none has. interfaces: name -> IPv4 address. free_bytes: of the disk that Ray's session lies
    on. shm_bytes: size of /dev/shm. clock_off_s: how far its clock is ahead of this process's, give or take clock_error_s.
    """

    versions: dict[str, str | None]
    gpus: tuple[tuple[str, int], ...]
    interface: str | None
    interfaces: dict[str, str]
    free_bytes: int
    shm_bytes: int
    clock_off_s: float = 0.0
    clock_error_s: float = 0.0


class Probe:
    """The actor."""

    def look(self, with_gpus: bool) -> Look:
        """with_gpus: also import torch, which takes seconds."""
        import ray

        from recipes.launching.network import interface_of, interfaces

        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        return Look(
            versions={"python": platform.python_version()} | {name: installed_version(name) for name in PACKAGES},
            gpus=_gpus() if with_gpus else (),
            interface=interface_of(ray.util.get_node_ip_address()),
            interfaces=interfaces(),
            free_bytes=shutil.disk_usage(session).free,
            shm_bytes=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
        )

    def now(self) -> float:
        return time.time()

    def read(self, storage: Any, name: str) -> str | None:
        """Text of a file, or None where it is not."""
        try:
            return storage.read_text(name)
        except OSError:
            return None

    def write(self, storage: Any, name: str, text: str) -> str:
        """Why it could not be written; empty if it could."""
        try:
            storage.write_text(name, text)
        except OSError as error:
            return error.strerror or str(error).splitlines()[0]
        return ""

    def free_address(self) -> str:
        """tcp://address:port of this node for others to meet at."""
        import ray

        with socket.socket() as listener:
            listener.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{listener.getsockname()[1]}"

    def all_reduce_s(
        self, meeting: str, rank: int, num_nodes: int, backend: str, wanted: str | None, sizes: list[int]
    ) -> list[float]:
        """Seconds of an all-reduce over one process of each node, best of several, for each size in bytes."""
        from datetime import timedelta

        import torch
        import torch.distributed as dist

        from recipes.launching.network import set_interface

        set_interface(wanted)
        dist.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=num_nodes, timeout=timedelta(seconds=_ANSWER_S)
        )
        device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
        found = []
        for size in sizes:
            values = torch.ones(max(1, size // 4), device=device)
            times = []
            for _ in range(_PINGS):
                dist.barrier()
                began = time.perf_counter()
                dist.all_reduce(values)
                if backend == "nccl":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
            found.append(min(times))
        dist.destroy_process_group()
        return found


def _gpus() -> tuple[tuple[str, int], ...]:
    # A process without GPUs of its own is not shown any by Ray.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch

    count = torch.cuda.device_count()
    properties = [torch.cuda.get_device_properties(i) for i in range(count)]
    return tuple((each.name, each.total_memory) for each in properties)


def nodes() -> list[Node]:
    """The living nodes of the connected cluster, the head among them, in the order of their addresses (Ray has none)."""
    import ray

    alive = [each for each in ray.nodes() if each["Alive"]]
    found = [
        Node(each["NodeID"], each["NodeManagerAddress"], each["NodeManagerHostname"], each["Resources"])
        for each in alive
    ]
    return sorted(found, key=lambda node: (*_number(node.address), node.node_id))


def _number(address: str) -> tuple[int, int]:
    parsed = ipaddress.ip_address(address)
    return parsed.version, int(parsed)


class Probes:
    """A probe on each of some nodes, for the length of a ``with`` block."""

    def __init__(self, among: list[Node], num_gpus: float = 0):
        self.nodes, self._num_gpus = among, num_gpus
        self._actors: list[Any] = []

    def __enter__(self) -> Probes:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in self.nodes:
            there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            options = {"num_cpus": 0, "num_gpus": self._num_gpus, "scheduling_strategy": there}
            self._actors.append(ray.remote(**options)(Probe).remote())
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of all nodes, in their order, to a call with the same arguments."""
        return self.ask_each(method, [arguments for _ in self.nodes])

    def ask_each(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """The same with each node's own arguments.

        Raises:
            RunFailed: a node does not answer; names it.
        """
        import ray

        calls = [getattr(actor, method).remote(*each) for actor, each in zip(self._actors, arguments, strict=True)]
        ray.wait(calls, num_returns=len(calls), timeout=_ANSWER_S)
        answers = []
        for node, call in zip(self.nodes, calls, strict=True):
            try:
                answers.append(ray.get(call, timeout=0.1))
            except ray.exceptions.GetTimeoutError:
                raise RunFailed(
                    f"the node {node} did not answer for {_ANSWER_S:.0f} s: is it overloaded, or cut off?"
                ) from None
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, Exception) else error) from None
            except ray.exceptions.RayError as error:
                raise RunFailed(f"the node {node} cannot run anything: {_first_line(error)}") from None
        return answers

    def looks(self, with_gpus: bool) -> list[Look]:
        from dataclasses import replace

        looks = self.ask("look", with_gpus)
        clocks = [self._clock(actor) for actor in self._actors]
        return [
            replace(look, clock_off_s=off, clock_error_s=error)
            for look, (off, error) in zip(looks, clocks, strict=True)
        ]

    def _clock(self, actor: Any) -> tuple[float, float]:
        """How far ahead a node's clock is, from the quickest of some questions, and half of what that one took."""
        import ray

        found = []
        for _ in range(_PINGS):
            began = time.time()
            there = ray.get(actor.now.remote(), timeout=_ANSWER_S)
            took_s = time.time() - began
            found.append((took_s / 2, there - began - took_s / 2))
        error, off = min(found)
        return off, error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
