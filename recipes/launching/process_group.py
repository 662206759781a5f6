"""Ray Train's process group, made on the right network interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from recipes.config import ScalingBlock
from recipes.launching.network import set_interface


@dataclass
class GroupConfig(TorchConfig):
    """network_interface: scaling.network_interface."""

    network_interface: str | None = None

    @property
    def backend_cls(self) -> type:
        return _GroupBackend


class _GroupBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: GroupConfig) -> None:
        worker_group.execute(set_interface, backend_config.network_interface)
        super().on_start(worker_group, backend_config)


def group_config(scaling: ScalingBlock) -> GroupConfig:
    return GroupConfig(
        backend="nccl" if scaling.use_gpu else "gloo",
        timeout_s=scaling.hang_timeout_s,
        network_interface=scaling.network_interface,
    )
