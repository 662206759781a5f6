"""LoRA (Hu et al., arXiv 2106.09685) through peft: beside some frozen matrices W an update B A of low rank is trained.

peft puts its layers into the T5 itself, so the model stays a T5; only their names change, from ``...q.weight`` to
``...q.base_layer.weight``, ``...q.lora_A.default.weight`` and ``...q.lora_B.default.weight``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recipes.config import LoraBlock
from recipes.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

_NAME = "default"
_A, _B = f".lora_A.{_NAME}.weight", f".lora_B.{_NAME}.weight"
_BASE = ".base_layer.weight"


def add_lora(model: torch.nn.Module, block: LoraBlock, seed: int) -> None:
    """Freeze the model and put an update beside every matrix named in ``targets``.

    A is drawn (from ``seed`` alone), B is zero: the model computes what it did.

    Raises:
        UserError: the model has none of the matrices.
    """
    import torch
    from peft import inject_adapter_in_model

    present = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    absent = [target for target in block.targets if target not in present]
    if absent:
        gated = "gated" if "wi_0" in present else "not gated"
        raise UserError(f"model.lora.targets: the model has no matrix {absent[0]}; its feed-forward layers are {gated}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(block), model, _NAME)


def _peft_config(block: LoraBlock, origin: str | None = None) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        r=block.rank,
        lora_alpha=block.rank * block.scale,
        lora_dropout=block.dropout_rate,
        target_modules=list(block.targets),
        task_type="SEQ_2_SEQ_LM",
        base_model_name_or_path=origin,
    )


def merged(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a plain T5: W + scale * B A in place of the three, computed in fp32, each in W's precision.

    module: which the weights are of; without LoRA they are as they were.
    """
    scales = {name: layer.scaling[_NAME] for name, layer in module.named_modules() if hasattr(layer, "lora_A")}
    plain = {}
    for name, weight in weights.items():
        stem = name.removesuffix(_BASE)
        if name.endswith(_BASE) and stem in scales:
            update = weights[stem + _B].float() @ weights[stem + _A].float()
            plain[f"{stem}.weight"] = (weight.float() + scales[stem] * update).to(weight.dtype)
        elif not name.endswith((_A, _B)):
            plain[name] = weight
    return plain


def save_adapter(weights: dict[str, torch.Tensor], block: LoraBlock, origin: str, folder: Path) -> None:
    """Only the updates, as a folder for ``peft.PeftModel.from_pretrained(base, folder)``; origin: of the base model."""
    from safetensors.torch import save_file

    folder.mkdir()
    config = _peft_config(block, origin)
    config.inference_mode = True
    config.save_pretrained(folder)
    own = {
        f"base_model.model.{name.replace(f'.{_NAME}.weight', '.weight')}": weight.contiguous()
        for name, weight in weights.items()
        if name.endswith((_A, _B))
    }
    save_file(own, folder / "adapter_model.safetensors", metadata={"format": "pt"})
