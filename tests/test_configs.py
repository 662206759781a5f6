"""The shipped configs: each opens with its command, runs dry as it stands, and fits where it says it fits.

What a config takes from the Hub or from the user's disk is put in its place here: a tiny T5 of the same family, pairs
with the config's columns. Everything else is the config's own.
"""

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from recipes import plan, train
from recipes.config.published import CHECKPOINTS
from recipes.config_file import apply_overrides, load_config, read_yaml
from recipes.data.tokenizer import train_unigram
from tests.data.corpus import pairs

FOLDER = Path("recipes/configs")
RUNS = sorted(path.name for path in FOLDER.glob("*.yaml") if not path.name.startswith("sweep_"))
# The smallest hardware that a config's first lines name: --gpu, --gpus-per-node, --nodes.
HARDWARE = {
    "flan_t5_base_finetune.yaml": ("l4", 1, 1),
    "byt5_g2p.yaml": ("l4", 1, 1),
    "mt5_large_translate.yaml": ("a100-40", 8, 1),
    "t5_v1_1_base_pretrain.yaml": ("a100-40", 8, 1),
    "t5_11b_zero3.yaml": ("a100-80", 8, 2),
}
WORDS = {
    "l4": "one GPU of 24 GB",
    "a100-40": "one node of eight GPUs with 40 GB",
    "a100-80": "two nodes of eight GPUs with 80 GB",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    rows = pairs(400)
    texts = [row["source"] for row in rows] + [row["target"] for row in rows]
    train_unigram(texts, 400).save(folder / "tokenizer")
    return folder


def head(name):
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line.startswith("#")]
    return dict(line.removeprefix("# ").split(":", 1) for line in lines[:4])


def commands(name):
    return {key: re.split(r"\s{5,}", head(name)[key].strip())[0] for key in ("Run", "Other")}


@pytest.mark.parametrize("name", RUNS)
def test_it_opens_with_its_command(name):
    assert list(head(name)) == ["What", "Needs", "Run", "Other"]
    found = commands(name)
    assert found["Run"] == f"python -m recipes.train recipes/configs/{name}"
    words = shlex.split(found["Other"])
    assert words[:2] + words[3:4] == ["python", "-m", f"recipes/configs/{name}"]
    if words[2] == "recipes.train":
        overrides = words[4:]
        assert overrides
        assert load_config(FOLDER / name, overrides) != load_config(FOLDER / name)


def stand_ins(config, place, name):
    """Overrides that put something at hand where the config names the Hub or the user's data."""
    overrides = [f"run.storage_path={place / name}"]
    if config.model.hub is not None:
        overrides.append(f"model.hub={config.model.hub}")
        model = place / name / "model"
        family = config.model.hub.rsplit("/", 1)[1].split("-")[0]
        vocab = 384 if family == "byt5" else 512
        T5ForConditionalGeneration(
            T5Config(
                vocab_size=vocab, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
            )
        ).save_pretrained(model)
        overrides[-1:] = ["model.hub=null", f"model.folder={model}"]
    if config.data.tokenizer.kind == "hub":
        overrides.append(f"data.tokenizer={{kind: folder, path: {place / 'tokenizer'}}}")
    for part in ("source", "eval_source"):
        if getattr(config.data, part) not in (None, "pydoc"):
            path = place / name / f"{part}.parquet"
            path.parent.mkdir(exist_ok=True, parents=True)
            rows = pairs(3000, seed=len(part))
            rows = [{key: text[-60:] for key, text in row.items()} for row in rows]
            columns = {config.data.source_column: "source", config.data.target_column: "target"}
            pq.write_table(pa.table({column: [row[key] for row in rows] for column, key in columns.items()}), path)
            overrides.append(f"data.{part}={path}")
    return overrides


@pytest.mark.parametrize("name", RUNS)
def test_it_runs_dry(name, place, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (place / name).mkdir(exist_ok=True)
    overrides = stand_ins(load_config(FOLDER / name), place, name)
    assert train.main([str(FOLDER / name), *overrides, "--dry-run"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    config = load_config(FOLDER / name)
    assert f"ZeRO stage {config.deepspeed.zero_stage}, {config.training.precision}" in told
    assert f"{config.scaling.num_workers} worker" in told
    for part in ("# schedule", "# data and batch plan", "# as the model sees it", "padding: "):
        assert part in told


@pytest.mark.parametrize("name", HARDWARE)
def test_it_fits_where_it_says(name, capsys):
    gpu, gpus_per_node, nodes = HARDWARE[name]
    config = load_config(FOLDER / name)
    assert WORDS[gpu] in head(name)["What"]
    assert config.scaling.num_workers == gpus_per_node * nodes
    options = ["--gpu", gpu, "--gpus-per-node", str(gpus_per_node), "--nodes", str(nodes)]
    assert plan.main([str(FOLDER / name), *options]) == 0
    table = capsys.readouterr().out
    [chosen] = [
        line.split() for line in table.splitlines() if re.match(rf"\s+{config.deepspeed.zero_stage}\*\s+{nodes} ", line)
    ]
    assert chosen[5] == "yes"
    # The size its first line tells is the size it has.
    millions = int(re.search(r"model\s+([\d,]+) parameters", table)[1].replace(",", "")) / 1e6
    told = re.search(r"\(([\d.]+) (M|G) parameters\)", head(name)["What"])
    assert millions == pytest.approx(float(told[1]) * (1000 if told[2] == "G" else 1), rel=0.03)


@pytest.mark.parametrize("name", HARDWARE)
def test_hub_names_are_known(name):
    content = apply_overrides(read_yaml(FOLDER / name), [])
    hub = content["model"].get("hub")
    assert hub is None or hub in CHECKPOINTS
    assert content["training"]["precision"] == "bf16"
    assert torch.get_default_dtype() == torch.float32
