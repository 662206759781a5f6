"""LoRA: what it trains, what it leaves alone, and what comes out of a run."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from recipes.config import LoraBlock, ModelBlock
from recipes.config_file import load_config
from recipes.data.tokenizer import bytes_tokenizer
from recipes.errors import UserError
from recipes.launching.preflight import prepare
from recipes.storage import Storage
from recipes.training.export import ADAPTER
from recipes.training.model import build_model, group_lr_ratios, parameter_groups
from recipes.training.reexport import export_checkpoint
from tests.conftest import small_run
from tests.training.alone import train_alone

LORA = {"rank": 4, "alpha": 8, "targets": ["q", "v", "wo"]}
NAMES = "model={folder: %s, dropout_rate: 0.1, lora: {rank: 4, alpha: 8, targets: [q, v, wo], dropout_rate: 0.1}}"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(5)
    config = T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, pad_token_id=0)
    model = T5ForConditionalGeneration(config)
    model.config.decoder_start_token_id = 0
    model.save_pretrained(folder)
    bytes_tokenizer().save(folder)
    return folder


def block_of(base, **lora):
    return ModelBlock(folder=str(base), lora=LORA | lora)


def job_of(base, pairs, storage, *settings):
    common = (NAMES % base, "scaling.num_workers=1", "checkpoint.every_steps=1", "checkpoint.keep=9", "run.resume=auto")
    arguments = small_run(pairs, storage, *common, "schedule.total_steps=4", *settings)
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]


def test_it_begins_as_the_model_it_adapts(base):
    plain, adapted = build_model(ModelBlock(folder=str(base)), 384, 0), build_model(block_of(base), 384, 0)
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        logits = [model.eval()(input_ids=ids, decoder_input_ids=ids).logits for model in (plain, adapted)]
    assert torch.equal(*logits)


def test_only_the_updates_are_trained(base):
    model = build_model(block_of(base), 384, 0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    # q and v in three attentions, wo in two feed-forward layers.
    assert sum(p.numel() for p in trained.values()) == 4 * (6 * (32 + 32) + 2 * (32 + 64))
    config = load_config("recipes/configs/local.yaml").optimizer.model_copy(update={"embedding_lr_ratio": 1.0})
    groups = parameter_groups(model, config, 1e-3)
    assert len(groups) == len(group_lr_ratios(config, block_of(base))) == 1
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in trained.values()}


def test_the_draw_depends_on_the_seed_alone(base):
    def drawn(seed):
        model = build_model(block_of(base), 384, seed)
        return torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name])

    before = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(before, torch.get_rng_state())


STAGES = [pytest.param(0, "fp32"), pytest.param(2, "bf16", marks=pytest.mark.slow), pytest.param(3, "fp32")]


# peft's PeftModel asks transformers by a name of before 5.23; only this test makes one.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(("stage", "precision"), STAGES)
def test_a_run(process_group, base, pairs, tmp_path, stage, precision):
    settings = (f"deepspeed.zero_stage={stage}", f"training.precision={precision}")
    whole = job_of(base, pairs, tmp_path, *settings, "run.name=whole")
    summary, _ = train_alone(whole)
    assert summary["num_trained"] == 4 * (6 * (32 + 32) + 2 * (32 + 64)) < summary["num_parameters"]

    # Resumed after one update: the same to the last bit.
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    for step in (2, 3, 4):
        shutil.rmtree(tmp_path / "broken" / "checkpoints" / f"step_{step:08d}")
    shutil.rmtree(tmp_path / "broken" / "export")
    train_alone(job_of(base, pairs, tmp_path, *settings, "run.name=broken"))
    for name in ("export/model.safetensors", "export/adapter/adapter_model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    # Out of a checkpoint: the same files.
    place = Storage(tmp_path / "again")
    export_checkpoint(whole.run_folder, whole.config, "4", None, place, "export", lambda text: None)
    for name in ("export/model.safetensors", "export/adapter/adapter_model.safetensors"):
        assert place.read_bytes(name) == (tmp_path / "whole" / name).read_bytes()

    # The export is the base with the adapter merged; the base itself is unchanged.
    export = tmp_path / "whole" / "export"
    merged = AutoModelForSeq2SeqLM.from_pretrained(export, dtype=torch.float32).eval()
    original = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32), export / ADAPTER
    ).eval()
    ids = AutoTokenizer.from_pretrained(export)("red green blue", return_tensors="pt").input_ids
    with torch.no_grad():
        out = [model(input_ids=ids, decoder_input_ids=ids).logits for model in (merged, adapted, original)]
    tolerance = 1e-5 if precision == "fp32" else 0.05
    assert torch.allclose(out[0], out[1], atol=tolerance)
    assert (out[0] - out[2]).abs().max() > 10 * (out[0] - out[1]).abs().max()
    if precision == "fp32":
        moved = {
            name
            for (name, a), b in zip(merged.named_parameters(), original.parameters(), strict=True)
            if not torch.equal(a, b)
        }
        assert {name.rsplit(".", 2)[-2] for name in moved} <= {"q", "v", "wo"}
    assert json.loads((export / ADAPTER / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("model={shape: {}, lora: {rank: 2}}",), "lora changes a trained model a little"),
        (("optimizer.embedding_lr_ratio=3",), "model.lora trains neither embedding nor norms"),
        (("model.lora.targets=[q, w]",), "model.lora.targets.1 is 'w'"),
        (("model.freeze=[norms]",), "freeze has no effect with lora"),
        (("model.lora.rank=0",), "model.lora.rank is 0"),
        (("model.lora.alhpa=3",), "did you mean 'model.lora.alpha'?"),
    ],
)
def test_wrong_settings_are_refused(base, pairs, tmp_path, settings, words):
    with pytest.raises(UserError) as caught:
        job_of(base, pairs, tmp_path, *settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_matrix_the_model_lacks_is_named(base):
    with pytest.raises(UserError, match="the model has no matrix wi_0; its feed-forward layers are not gated"):
        build_model(block_of(base, targets=["q", "wi_0"]), 384, 0)
    assert LoraBlock(rank=8).scale == 2
