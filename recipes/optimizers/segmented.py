"""The torch optimizer that updates flat tensors by what is true of whole parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recipes.optimizers.segments import Layout, whole


class SegmentedOptimizer(torch.optim.Optimizer):
    """Base of optimizers that need sums over whole parameters.

    DeepSpeed replaces the parameters it is given by flat tensors of its own; `bind` tells what lies in those. A tensor
    that it does not name is one whole parameter. State is kept as tensors only.
    """

    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]):
        super().__init__(groups, defaults)
        self.layouts: dict[torch.Tensor, Layout] = {}

    def bind(self, layouts: dict[torch.Tensor, Layout]) -> None:
        """Take over the layouts of all flat tensors, in the order of their groups."""
        self.layouts = layouts

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of the tensors that are in the groups now. Collective where they are split."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for flat in group["params"]:
                if flat.grad is None:
                    continue
                state = self.state[flat]
                if not state:
                    state |= self.fresh_state(flat)
                state["step"] += 1
                self._update(flat.view(-1), flat.grad.reshape(-1), state, self._layout(flat), group)
        return loss

    def fresh_state(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of a tensor before its first update."""
        return {"step": torch.zeros(()), **self._new_state(flat.detach().view(-1), self._layout(flat))}

    def _layout(self, flat: torch.Tensor) -> Layout:
        return self.layouts.get(flat) or whole(flat)

    def _new_state(self, flat: torch.Tensor, layout: Layout) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _update(
        self,
        flat: torch.Tensor,
        grad: torch.Tensor,
        state: dict[str, torch.Tensor],
        layout: Layout,
        group: dict[str, Any],
    ) -> None:
        raise NotImplementedError
