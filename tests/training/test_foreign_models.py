"""Models from elsewhere: their weights are read, nothing in them is run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from recipes.config import ModelBlock, TokenizerBlock
from recipes.data.tokenizer import saved_tokenizer
from recipes.errors import UserError
from recipes.training.model import build_model


def config() -> T5Config:
    return T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "ran"
    config().save_pretrained(folder)
    torch.save({"shared.weight": Touch(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        build_model(ModelBlock(folder=str(folder)), 64, seed=0)
    assert not mark.exists()
    # The file is what it is meant to be: read without care, it runs.
    with pytest.raises((AttributeError, pickle.UnpicklingError, TypeError, RuntimeError)) as refused:
        torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert mark.exists()
    assert "weights_only" in str(refused.value).lower() or "Unsupported" in str(refused.value)


def test_a_pickle_of_tensors_is_read(tmp_path):
    theirs = T5ForConditionalGeneration(config())
    config().save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = build_model(ModelBlock(folder=str(tmp_path)), 64, seed=0)
    assert torch.equal(ours.shared.weight, theirs.shared.weight)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: build_model(ModelBlock(folder=folder), 64, seed=0),
        lambda folder: saved_tokenizer(TokenizerBlock(kind="folder", path=folder)),
    ],
    ids=["model", "tokenizer"],
)
def test_code_beside_the_weights_is_not_run(tmp_path, read, monkeypatch):
    """A folder that names code of its own (auto_map): neither run nor asked for on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked"))
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()\nclass Own: pass\n")
    content = config().to_dict() | {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"cannot be loaded|no tokenizer could be read"):
        read(str(tmp_path))
    assert not mark.exists()
