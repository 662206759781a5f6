"""A run's model out of one of its checkpoints: what the run would have exported at that update."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recipes.config import RunConfig, TokenizerBlock
from recipes.config_file import parse_config
from recipes.data.cache import known_tokenizer, open_data, prepare_data
from recipes.data.tokenizer import TextTokenizer, saved_tokenizer
from recipes.errors import UserError
from recipes.evaluation.generation import decoding_of
from recipes.evaluation.saved_model import EXPORT
from recipes.storage import Storage
from recipes.training import manifest as manifests
from recipes.training.manifest import Manifest

if TYPE_CHECKING:
    from transformers import T5Config

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """step: the update of the weights."""

    step: int
    precision: str


def read_run_config(run_folder: Storage) -> RunConfig:
    """
    Raises:
        UserError: the folder holds no run, or its config cannot be read.
    """
    import yaml

    if not run_folder.exists("config.yaml"):
        raise UserError(f"{run_folder}: holds no run (config.yaml)")
    try:
        content = yaml.safe_load(run_folder.read_text("config.yaml"))
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{run_folder}/config.yaml is not the config of a run")
    return parse_config(content, where=f"{run_folder}/config.yaml")


def export_checkpoint(
    run_folder: Storage,
    config: RunConfig,
    which: str | None,
    precision: str | None,
    place: Storage,
    name: str,
    say: Say,
) -> Exported:
    """Write the folder ``name`` in ``place`` from a checkpoint, instead of an older one.

    which: last, best, or a number of updates; None: what training exports. precision: bf16 or fp32; None: the run's.

    Raises:
        UserError: there is no such checkpoint, or it is damaged; no tokenizer.
    """
    import torch

    from recipes.training.export import adapter_of, rebuilt, write_export
    from recipes.training.lora import add_lora
    from recipes.training.model import skeleton
    from recipes.training.snapshot import local_copy
    from recipes.training.whole_weights import checkpoint_weights

    manifest = _chosen(run_folder, which, config, say)
    trained_in = config.training.precision
    wanted = precision or trained_in
    tokenizer = _tokenizer(run_folder, config, say)
    say(f"{run_folder}: the checkpoint at update {manifest.step} in {wanted}")
    with torch.no_grad(), local_copy(run_folder, manifests.folder_name(manifest.step)) as folder:
        weights = checkpoint_weights(
            folder / manifests.SHARDS, manifest.zero_stage, trained_in=trained_in, wanted=wanted
        )
    has_own_classifier = "lm_head.weight" in weights
    place.make_folder()
    t5 = _model_config(run_folder, config, vocab_size=len(weights["shared.weight"]))
    module = skeleton(t5, has_own_classifier)
    if config.model.lora is not None:
        add_lora(module, config.model.lora, config.run.seed)
    adapter = adapter_of(weights, config.model)
    write_export(rebuilt(module, weights), tokenizer, decoding_of(config), place, name, adapter)
    return Exported(manifest.step, wanted)


def _chosen(run_folder: Storage, which: str | None, config: RunConfig, say: Say) -> Manifest:
    """The checkpoint that is meant, whole; None: the one that training exports."""
    steps = manifests.steps_with_folder(run_folder)
    if not steps:
        raise UserError(f"{run_folder}: has no checkpoint")
    if which in (None, "last", "best"):
        newest = _newest(run_folder, steps, say)
        wants_best = which == "best" or (which is None and config.evaluation.export == "best")
        step = _best_step(run_folder, newest) if wants_best else newest.step
        if not step and which == "best":
            raise UserError(f"--checkpoint best: {run_folder} keeps no best checkpoint (evaluation.best)")
        if step in (0, newest.step):
            return newest
    elif which.isdecimal():
        step = int(which)
    else:
        raise UserError(f"--checkpoint is '{which}': give last, best, or a number of updates ({_shown(steps)})")
    asked = which or "best"
    if step not in steps:
        raise UserError(
            f"--checkpoint {asked}: {run_folder} has no checkpoint at update {step}, only at {_shown(steps)}"
        )
    manifest, fault = _read(run_folder, step)
    if fault is not None:
        raise UserError(
            f"--checkpoint {asked}: the checkpoint at update {step} {fault}; {run_folder} has {_shown(steps)}"
        )
    return manifest


def _shown(steps: list[int]) -> str:
    return ", ".join(map(str, sorted(steps)))


def _newest(run_folder: Storage, steps: list[int], say: Say) -> Manifest:
    for step in steps:
        manifest, fault = _read(run_folder, step)
        if fault is None:
            return manifest
        say(f"checkpoint at update {step} {fault}: not used")
    raise UserError(f"{run_folder}: not one of its checkpoints ({_shown(steps)}) is whole")


def _read(run_folder: Storage, step: int) -> tuple[Manifest, str | None]:
    """The manifest, and what is wrong with the files that an export reads."""
    manifest = manifests.read_manifest(run_folder, step)
    if manifest is None:
        return Manifest(step, 0, 0, "", {}), "has no manifest (it was never finished)"
    needed = {
        name: entry
        for name, entry in manifest.files.items()
        if name.startswith(f"{manifests.SHARDS}/") or name == manifests.rank_file(0)
    }
    fault = manifests.damage(run_folder, replace(manifest, files=needed))
    return manifest, None if fault is None else f"is damaged ({fault})"


def _best_step(run_folder: Storage, newest: Manifest) -> int:
    """As the newest checkpoint knows it; 0 where none is tracked."""
    import torch

    content = run_folder.read_bytes(f"{manifests.folder_name(newest.step)}/{manifests.rank_file(0)}")
    return torch.load(io.BytesIO(content), weights_only=False)["counters"]["best"]["step"]


def _model_config(run_folder: Storage, config: RunConfig, vocab_size: int) -> T5Config:
    """Of a model from elsewhere the run's export knows it, after the place it came from may be gone."""
    from transformers import AutoConfig

    from recipes.training.model import model_config

    if config.model.shape is None and run_folder.exists(f"{EXPORT}/config.json"):
        with (run_folder / EXPORT).on_this_machine() as folder:
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model_config(config.model, vocab_size)


def _tokenizer(run_folder: Storage, config: RunConfig, say: Say) -> TextTokenizer:
    """Of the run's token cache, else of its export, else made again from the data."""
    storage = run_folder.parent
    known = known_tokenizer(config.data, storage)
    if known is not None:
        return known
    if run_folder.exists(f"{EXPORT}/tokenizer.json"):
        with (run_folder / EXPORT).on_this_machine() as folder:
            return saved_tokenizer(TokenizerBlock(kind="folder", path=str(folder)))
    return open_data(prepare_data(config.data, storage, say)).tokenizer
