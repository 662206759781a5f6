"""Workers and their resources."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from recipes.config.values import Block, Count, CountOrZero, Number


class ScalingBlock(Block):
    num_workers: Count = Field(1, description="Training processes, one GPU each with use_gpu.")
    use_gpu: bool = Field(False, description="Train on GPUs with nccl; false: on CPUs with gloo.")
    cpus_per_worker: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="CPUs reserved for each worker; also its torch threads."
    )
    num_tokenizing_tasks: CountOrZero = Field(
        0,
        description="Ray tasks, of a CPU each, that tokenise texts at once, anywhere in the cluster; 0: the machine of the "
        "command does it alone.",
    )
    max_failures: CountOrZero = Field(
        0, description="Times the workers are started again from the last checkpoint after one fails."
    )
    hang_timeout_s: Count = Field(
        600,
        description="A worker that has not answered the others, or Ray, for so long counts as failed.",
    )
    stop_grace_s: CountOrZero = Field(
        60, description="What a run gets for a last checkpoint after Ctrl-C or SIGTERM; 0: stop at once."
    )
    node_wait_s: Count = Field(
        1800,
        description="Longest wait without a running worker, at the start or after a failure, while nodes are missing.",
    )
    wait_for_nodes: bool = Field(
        False,
        description="On a cluster that grows by itself: start with fewer nodes than the workers need, and let Ray ask for the "
        "others (at most node_wait_s); false: refused at once.",
    )
    network_interface: str | None = Field(
        None,
        description="Interface that gloo and nccl use on every node, such as eth0; none: the one by whose address Ray "
        "reaches the node.",
    )
    min_workers: Count | None = Field(
        None, description="Elastic training: go on with this many workers when nodes leave (with max_workers)."
    )
    max_workers: Count | None = Field(
        None,
        description="Elastic training: grow to this many workers when nodes come; num_workers does not count then.",
    )
    resize_interval_s: Count = Field(
        60,
        description="Elastic training: how often to look whether more workers would fit. Growing goes back to the last "
        "checkpoint.",
    )

    @model_validator(mode="after")
    def _elastic_pair(self) -> ScalingBlock:
        if (self.min_workers is None) != (self.max_workers is None):
            raise ValueError("min_workers and max_workers go together")
        if self.min_workers is None:
            return self
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        if self.max_failures == 0:
            raise ValueError("min_workers needs max_failures above 0: a node that dies counts as a failure")
        return self

    @property
    def fewest_workers(self) -> int:
        return self.min_workers or self.num_workers

    @property
    def most_workers(self) -> int:
        return self.max_workers or self.num_workers
