"""Ray Train's trainer, without the processes that it would start and nobody here would use."""

from __future__ import annotations

from typing import Any

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from recipes.launching.ray_cluster import joins_cluster


class Trainer(DataParallelTrainer):
    """What `ray.train.torch.TorchTrainer` is, a `DataParallelTrainer` with a process group of torch, which `group_config` makes.

    It starts no actor for Ray datasets: ranks read the token cache. On a Ray of the command's own, none that frees
    placement groups of dead controllers either: that Ray ends with the command, and the actor would need the dashboard.
    """

    def fit(self) -> Any:
        if not joins_cluster():
            # The controller would do it, and wait for it to start, before it asks for workers.
            get_or_create_autoscaling_coordinator()
        return super().fit()

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback,) if joins_cluster() else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]
