"""The trained model as a plain one, in memory or as a `save_pretrained` folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from recipes.config import ModelBlock
from recipes.evaluation.generation import Decoding
from recipes.evaluation.saved_model import EXPORT
from recipes.storage import Storage
from recipes.training.lora import merged, save_adapter
from recipes.training.model import PAD, skeleton, untied

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from transformers import T5ForConditionalGeneration

    from recipes.data.tokenizer import TextTokenizer

ADAPTER = "adapter"


def export_model(
    engine: DeepSpeedEngine, tokenizer: TextTokenizer, decoding: Decoding, run_folder: Storage, block: ModelBlock
) -> None:
    """Write ``export/``: weights as the engine computes with them, tokenizer, and ``decoding`` as its generation config;
    of a run with LoRA (``block``, its model) the merged weights, and the updates alone in ``export/adapter/``.

    Collective: under ZeRO-3 every rank takes part in gathering the weights. The folder appears whole.
    """
    weights = _whole_weights(engine)
    if dist.get_rank() == 0:
        write_export(
            rebuilt(engine.module, weights), tokenizer, decoding, run_folder, EXPORT, adapter_of(weights, block)
        )
    dist.barrier()


def adapter_of(weights: dict[str, torch.Tensor], block: ModelBlock) -> Callable[[Path], None] | None:
    """What puts LoRA's updates into a folder, for a run that has them."""
    if block.lora is None:
        return None
    return partial(save_adapter, weights, block.lora, str(block.hub or block.folder))


def write_export(
    model: T5ForConditionalGeneration,
    tokenizer: TextTokenizer,
    decoding: Decoding,
    place: Storage,
    name: str,
    adapter: Callable[[Path], None] | None = None,
) -> None:
    """A `save_pretrained` folder ``name`` in ``place``, whole from the moment it is seen; instead of an older one."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.generation_config = decoding.for_transformers(model)
    with tempfile.TemporaryDirectory(prefix="export_", dir=place.local) as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        model.save_pretrained(folder)
        # safetensors makes its file for this user alone.
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
        tokenizer.save(folder)
        if adapter is not None:
            adapter(folder / ADAPTER)
        place.delete_folder(name)
        place.publish_folder(folder, name)


def plain_model(engine: DeepSpeedEngine) -> T5ForConditionalGeneration:
    """The model that `export_model` would write now, on every rank's device, in evaluation mode. Collective.

    For a look from outside: engine, modes and random state stay as they are. Below ZeRO-3 its weights are the
    engine's own tensors and take no memory; at ZeRO-3 every rank holds a whole copy until the model is let go.
    """
    return rebuilt(engine.module, _whole_weights(engine, on_all_ranks=True))


def _whole_weights(engine: DeepSpeedEngine, on_all_ranks: bool = False) -> dict[str, torch.Tensor]:
    """Every parameter by name: copies on rank 0's CPU, or as they are on each rank's device.

    Under ZeRO-3 gathered one after the other, and copied in any case.
    """
    if engine.zero_optimization_stage() < 3:
        weights = {name: p.detach() for name, p in engine.module.named_parameters()}
        return weights if on_all_ranks else {name: weight.cpu().clone() for name, weight in weights.items()}
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    weights = {}
    for name, parameter in engine.module.named_parameters():
        # Small ones are kept whole, and giving them back to their parts would make the next forward gather them.
        whole = parameter.ds_status is ZeroParamStatus.AVAILABLE
        with contextlib.nullcontext() if whole else deepspeed.zero.GatheredParameters([parameter]):
            if on_all_ranks:
                weights[name] = parameter.detach().to(engine.device, copy=True)
            elif dist.get_rank() == 0:
                weights[name] = parameter.detach().cpu().clone()
    return weights


def rebuilt(module: T5ForConditionalGeneration, weights: dict[str, torch.Tensor]) -> T5ForConditionalGeneration:
    """A model of its own around these weights, LoRA's updates merged into them; draws no random number. Of ``module``
    only config, ties and LoRA's scale count."""
    from transformers import GenerationConfig

    weights = merged(module, weights)
    config = module.config.__class__.from_dict(module.config.to_dict())
    config.scale_decoder_outputs = module.config.scale_decoder_outputs
    config.use_cache = True
    config.dtype = next(iter(weights.values())).dtype
    model = skeleton(config, has_own_classifier=untied(module))
    if untied(module):
        # Read by transformers on loading: an untied T5 does not scale its decoder's output.
        model.config.tie_word_embeddings = False
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    aliases = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if unexpected or set(missing) - aliases:
        raise RuntimeError(f"export: parameters {sorted(set(missing) - aliases) + unexpected} do not fit the model")
    # Loading by assignment has put new parameters where ties were.
    model.encoder.embed_tokens.weight = model.decoder.embed_tokens.weight = model.shared.weight
    if not untied(module):
        model.lm_head.weight = model.shared.weight
    model.generation_config = GenerationConfig(
        decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=config.eos_token_id
    )
    return model.requires_grad_(False).eval()


def load_export(run_folder: Storage) -> T5ForConditionalGeneration:
    """The exported model, as any user would load it."""
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with (run_folder / EXPORT).on_this_machine() as folder:
        return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
