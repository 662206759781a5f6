"""The trained model as a plain `save_pretrained` folder, and what it says about held-out examples."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from recipes.storage import Storage
from recipes.training.model import PAD, untied

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from transformers import T5ForConditionalGeneration

    from recipes.data.tokenizer import TextTokenizer

FOLDER = "export"


def export_model(engine: DeepSpeedEngine, tokenizer: TextTokenizer, run_folder: Storage) -> None:
    """Write ``export/``: weights as the engine computes with them, tokenizer, generation config.

    Collective: under ZeRO-3 every rank takes part in gathering the weights. The folder appears whole.
    """
    weights = _whole_weights(engine)
    if dist.get_rank() == 0:
        model = _rebuilt(engine.module, weights)
        with tempfile.TemporaryDirectory(prefix="export_", dir=run_folder.local) as temporary:
            folder = Path(temporary) / FOLDER
            folder.mkdir()
            model.save_pretrained(folder)
            tokenizer.save(folder)
            run_folder.delete_folder(FOLDER)
            run_folder.publish_folder(folder, FOLDER)
    dist.barrier()


def _whole_weights(engine: DeepSpeedEngine) -> dict[str, torch.Tensor]:
    """Every parameter by name, on rank 0's CPU; under ZeRO-3 gathered one after the other."""
    if engine.zero_optimization_stage() < 3:
        return {name: p.detach().cpu().clone() for name, p in engine.module.named_parameters()}
    import deepspeed

    weights = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if dist.get_rank() == 0:
                weights[name] = parameter.detach().cpu().clone()
    return weights


def _rebuilt(module: T5ForConditionalGeneration, weights: dict[str, torch.Tensor]) -> T5ForConditionalGeneration:
    from transformers import GenerationConfig, T5ForConditionalGeneration

    config = module.config.__class__.from_dict(module.config.to_dict())
    config.scale_decoder_outputs = module.config.scale_decoder_outputs
    config.use_cache = True
    config.dtype = next(iter(weights.values())).dtype
    model = T5ForConditionalGeneration(config).to(config.dtype)
    if untied(module):
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        # Read by transformers on loading: an untied T5 does not scale its decoder's output.
        model.config.tie_word_embeddings = False
    missing, unexpected = model.load_state_dict(weights, strict=False)
    aliases = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if unexpected or set(missing) - aliases:
        raise RuntimeError(f"export: parameters {sorted(set(missing) - aliases) + unexpected} do not fit the model")
    model.generation_config = GenerationConfig(
        decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=config.eos_token_id
    )
    return model.eval()


def load_export(run_folder: Storage) -> T5ForConditionalGeneration:
    """The exported model, as any user would load it."""
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if run_folder.local is not None:
        return AutoModelForSeq2SeqLM.from_pretrained(run_folder.local / FOLDER).eval()
    temporary = Path(tempfile.mkdtemp(prefix="export_"))
    try:
        run_folder.download_folder(FOLDER, temporary)
        return AutoModelForSeq2SeqLM.from_pretrained(temporary).eval()
    finally:
        shutil.rmtree(temporary)


def greedy_predictions(
    model: T5ForConditionalGeneration, tokenizer: TextTokenizer, sources: list[list[int]], max_tokens: int
) -> list[str]:
    """Greedy decoding of tokenised sources in one batch."""
    width = max(map(len, sources))
    ids = torch.tensor([source + [PAD] * (width - len(source)) for source in sources])
    with torch.no_grad():
        outputs = model.generate(
            input_ids=ids, attention_mask=(ids != PAD).long(), max_new_tokens=max_tokens, do_sample=False, num_beams=1
        )
    return [tokenizer.decode(output.tolist()) for output in outputs]
