"""A small model that says readable things, by itself and as the export of a run."""

import shutil

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from recipes.config_file import load_config, to_yaml
from recipes.data.tokenizer import bytes_tokenizer
from tests.conftest import small_run
from tests.prediction.tiny import readable_model


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """The models here are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A `save_pretrained` folder."""
    place = tmp_path_factory.mktemp("saved") / "model"
    readable_model().save_pretrained(place)
    bytes_tokenizer().save(place)
    return place


@pytest.fixture(scope="package")
def run(folder, tmp_path_factory):
    """A finished run with prefix "say: " and limits of 40 and 12 tokens."""
    storage = tmp_path_factory.mktemp("runs")
    arguments = small_run(
        storage / "absent.jsonl",
        storage,
        "data.prefix='say: '",
        "data.max_source_tokens=40",
        "data.max_target_tokens=12",
        "data.source_column=question",
        "training.micro_batch_tokens=100",
    )
    place = storage / "small"
    shutil.copytree(folder, place / "export")
    (place / "config.yaml").write_text(to_yaml(load_config(arguments[0], arguments[1:])))
    return place


@pytest.fixture(scope="package")
def alone(folder):
    """What the model says to a text by itself, through transformers only."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def answer(text, max_new_tokens=12, **settings):
        ids = model.generate(
            **tokenizer(text, return_tensors="pt"), do_sample=False, max_new_tokens=max_new_tokens, **settings
        )
        return tokenizer.decode(ids[0], skip_special_tokens=True)

    return answer
