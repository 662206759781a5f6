"""Ray Train's process group, made on the right network interface.

Torch is imported by the workers alone: the launcher and Ray Train's controller load this module too, and start a second
sooner without it. So this does in the workers what `ray.train.torch.TorchConfig` does, with its own functions.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

from recipes.config import ScalingBlock
from recipes.launching.network import set_interface

# As long as Ray Train itself waits for a group to end.
_SHUTDOWN_S = 5


@dataclass
class GroupConfig(BackendConfig):
    """backend: gloo or nccl. timeout_s: of a collective. network_interface: scaling.network_interface."""

    backend: str
    timeout_s: int
    network_interface: str | None = None

    @property
    def backend_cls(self) -> type:
        return _GroupBackend

    @property
    def train_func_context(self) -> type:
        return _OnItsDevice

    def to_dict(self) -> dict[str, Any]:
        return {"backend": self.backend, "timeout_s": self.timeout_s}


class _GroupBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: GroupConfig) -> None:
        import ray
        from ray.train._internal.utils import get_address_and_port

        worker_group.execute(set_interface, backend_config.network_interface)
        address, port = worker_group.execute_single(0, get_address_and_port)
        size = len(worker_group)
        joining = [
            worker_group.execute_single_async(rank, _join, backend_config, address, port, rank, size)
            for rank in range(size)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: GroupConfig) -> None:
        import ray

        leaving = worker_group.execute_async(_leave, len(worker_group) > 1)
        # What hangs there is killed with its process.
        with suppress(GetTimeoutError):
            ray.get(leaving, timeout=_SHUTDOWN_S)


def _join(config: GroupConfig, address: str, port: int, rank: int, size: int) -> None:
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(config.backend, rank, size, "env://", config.timeout_s)


def _leave(destroy: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy)


class _OnItsDevice:
    """Around the training function: the worker's GPU is torch's default one."""

    def __enter__(self) -> None:
        from ray.train.torch.config import TorchConfigContextManager

        TorchConfigContextManager().__enter__()

    def __exit__(self, *_: Any) -> None:
        pass


def group_config(scaling: ScalingBlock) -> GroupConfig:
    return GroupConfig(
        backend="nccl" if scaling.use_gpu else "gloo",
        timeout_s=scaling.hang_timeout_s,
        network_interface=scaling.network_interface,
    )
