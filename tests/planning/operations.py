"""Counts what torch really does: operations, and the bytes of their operands and results."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_MOVE_NOTHING = (
    "view", "_unsafe_view", "t.", "transpose", "expand", "slice", "select", "detach", "alias", "permute", "unsqueeze",
    "squeeze", "narrow", "as_strided", "empty", "split", "reshape", "unbind", "is_same_size", "record_stream", "set_",
    "lift_fresh", "_local_scalar",
)  # fmt: skip
_ONLY_WRITE_THE_FIRST = ("copy_", "zero_", "fill_")


class Operations(TorchDispatchMode):
    """Without views, allocations and collectives."""

    def __init__(self):
        super().__init__()
        self.num, self.bytes = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function).removeprefix("aten.")
        if name.startswith(("c10d", *_MOVE_NOTHING)):
            return result
        operands = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if name.startswith(_ONLY_WRITE_THE_FIRST):
            operands = operands[1:]
        # The fused AdamW returns nothing: it writes weights and both moments.
        written = (args[0], args[2], args[3]) if name.startswith("_fused_adamw") else result
        results = [each for each in tree_leaves(written) if isinstance(each, torch.Tensor)]
        self.num += 1
        self.bytes += sum(each.numel() * each.element_size() for each in operands + results)
        return result
