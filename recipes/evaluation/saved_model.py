"""A T5 and its tokenizer from a run's export or any `save_pretrained` folder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.config import TokenizerBlock
from recipes.config.published import MODEL_TYPES
from recipes.errors import UserError
from recipes.storage import Storage
from recipes.training.precision import resolve_precision

if TYPE_CHECKING:
    import torch
    from transformers import T5ForConditionalGeneration

    from recipes.data.tokenizer import TextTokenizer

# A run's model, in its folder.
EXPORT = "export"
# What a saved model can be asked to compute in; auto: as saved where the device can, else fp32.
PRECISIONS = ("auto", "bf16", "fp32")


def is_run(folder: Storage) -> bool:
    """Whether a folder is that of a run, rather than of a model."""
    return folder.exists("config.yaml")


@contextmanager
def model_folder(folder: Storage) -> Iterator[Path]:
    """The folder of the model as a path of this machine: of a run, its export.

    Raises:
        UserError: there is no model.
    """
    place = _model_place(folder)
    with place.on_this_machine() as path:
        yield path


def _model_place(folder: Storage) -> Storage:
    place = folder / EXPORT if is_run(folder) else folder
    if not place.exists("config.json"):
        if is_run(folder):
            raise UserError(
                f"{folder}: the run has no {EXPORT}/ yet: it is written when the run ends, or from a checkpoint by "
                f"python -m recipes.export {folder}"
            )
        raise UserError(f"{folder}: neither the folder of a run (config.yaml) nor of a saved model (config.json)")
    return place


def check_t5(folder: Storage) -> None:
    """Whether a run's folder, or a model's, holds a T5 by its config; needs no transformers.

    Raises:
        UserError: it does not.
    """
    place = _model_place(folder)
    try:
        kind = json.loads(place.read_text("config.json")).get("model_type")
    except (ValueError, AttributeError):
        raise UserError(f"{place}/config.json is not the config of a model") from None
    if kind not in MODEL_TYPES:
        raise UserError(f"{place} holds a {kind}, not a T5")


def load_saved(folder: Path, device: str, precision: str = "saved") -> tuple[T5ForConditionalGeneration, TextTokenizer]:
    """Model and tokenizer, the model in evaluation mode.

    device: auto (cuda where there is one), cpu, cuda or another of torch's.
    precision: saved (as it was), or one of `PRECISIONS`.

    Raises:
        UserError: not a T5, no tokenizer, one with more ids than the model has embeddings, no such device, or one that
            does not compute in the precision.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    place = _device(device)
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
        if kind not in MODEL_TYPES:
            raise UserError(f"{folder} holds a {kind}, not a T5")
        model, found = AutoModelForSeq2SeqLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, weights_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(f"{folder}: no model can be loaded: {str(error).splitlines()[0]}") from None
    if found["missing_keys"]:
        # transformers would put random numbers there.
        raise UserError(f"{folder}: its weights lack {', '.join(sorted(found['missing_keys'])[:3])}: not a whole T5")
    tokenizer = model_tokenizer(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} token ids, the model {model.config.vocab_size} embeddings"
        )
    return model.to(place, _dtype(precision, model.dtype, place)).eval(), tokenizer


def model_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a saved model.

    Raises:
        UserError: there is none.
    """
    from recipes.data.tokenizer import saved_tokenizer

    try:
        return saved_tokenizer(TokenizerBlock(kind="folder", path=str(folder)))
    except UserError as error:
        raise UserError(str(error).removeprefix("data.tokenizer.path: ")) from None


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--device {name}: {reason}") from None
    return place


def _dtype(precision: str, saved: torch.dtype, place: torch.device) -> torch.dtype:
    """auto: as saved where the device computes that natively and T5 stays finite in it, else fp32."""
    import torch

    if precision == "saved":
        return saved
    has_bf16 = resolve_precision("auto", use_gpu=place.type == "cuda") == "bf16"
    if precision == "bf16" and not has_bf16:
        raise UserError(
            f"--precision bf16: this {place.type} has no bf16 instructions, and emulating them takes hundreds of times longer; "
            "give fp32"
        )
    if precision == "auto":
        precision = "bf16" if saved == torch.bfloat16 and has_bf16 else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
