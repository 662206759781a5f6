"""`recipes.evaluate` as users run it: a run's settings, flags over them, what it writes and refuses."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from recipes import evaluate
from recipes.config_file import load_config, to_yaml
from recipes.data.tokenizer import bytes_tokenizer
from tests.conftest import small_run, write_pairs
from tests.prediction.tiny import readable_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with a prefix, 2 beams, and BLEU as its metric."""
    storage = tmp_path_factory.mktemp("runs")
    settings = (
        "data.prefix='turn: '",
        "evaluation={metrics: [bleu], generation: {num_beams: 2, max_new_tokens: 8}}",
        "training.micro_batch_tokens=200",
    )
    arguments = small_run(storage / "absent.jsonl", storage, *settings)
    folder = storage / "small"
    readable_model().save_pretrained(folder / "export")
    bytes_tokenizer().save(folder / "export")
    (folder / "config.yaml").write_text(to_yaml(load_config(arguments[0], arguments[1:])))
    write_pairs(storage / "test.jsonl", 7)
    return folder


def refused(capsys, *arguments):
    assert evaluate.main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_numbers_and_texts_are_those_of_the_model_alone(capsys, run, tmp_path):
    numbers, texts = tmp_path / "numbers.json", tmp_path / "texts.jsonl"
    data = run.parent / "test.jsonl"
    assert evaluate.main([str(run), str(data), "--out", str(numbers), "--predictions", str(texts)]) == 0
    shown = capsys.readouterr().out
    model, tokenizer = (kind.from_pretrained(run / "export") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    loss, num, expected = 0.0, 0, []
    for pair in map(json.loads, data.read_text().splitlines()):
        source = tokenizer(f"turn: {pair['source']}", return_tensors="pt").input_ids
        target = tokenizer(pair["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(input_ids=source, labels=target).logits
        loss += float(F.cross_entropy(logits[0], target[0], reduction="sum"))
        num += target.numel()
        ids = model.generate(source, num_beams=2, max_new_tokens=8, do_sample=False)
        text = tokenizer.decode(ids[0], skip_special_tokens=True)
        expected.append({"source": f"turn: {pair['source']}", "reference": pair["target"], "prediction": text})
    found = json.loads(numbers.read_text())
    assert found["metrics"]["loss"] == pytest.approx(loss / num, rel=1e-5)
    assert found["metrics"].keys() == {"loss", "tokens", "bleu", "generated"}
    assert [json.loads(line) for line in texts.read_text().splitlines()] == expected
    assert f"{found['metrics']['loss']:.4f}" in shown
    assert f"bleu signature {found['signatures']['bleu']}" in " ".join(shown.split())
    assert found["signatures"]["bleu"].startswith("nrefs:1|case:mixed|")


def test_flags_are_laid_over_the_runs_settings(capsys, run, tmp_path):
    numbers = tmp_path / "numbers.json"
    job = [str(run), str(run.parent / "test.jsonl"), "--out", str(numbers)]
    flags = [
        "--metrics",
        "exact_match,chrf",
        "--num-beams",
        "3",
        "--source-column",
        "target",
        "--target-column",
        "source",
    ]
    assert evaluate.main([*job, *flags, "data.prefix=''"]) == 0
    found = json.loads(numbers.read_text())
    assert found["metrics"].keys() >= {"exact_match", "chrf"}
    assert (found["generation"]["num_beams"], found["generation"]["max_new_tokens"], found["prefix"]) == (3, 8, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--num-beams", "0"], "--num-beams is 0: input should be greater than 0"),
        (["--num-beams", "x"], "--num-beams is 'x': input should be a valid integer"),
        (["--metrics", "blue"], "--metrics is ['blue']: unknown metric 'blue', did you mean 'bleu'?"),
        (["data.prefx=a"], "arguments: unknown key 'data.prefx', did you mean 'data.prefix'?"),
        (["training.micro_batch_tokens=0"], "arguments: training.micro_batch_tokens is 0: "),
    ],
)
def test_a_wrong_argument_is_blamed_on_the_arguments(capsys, run, arguments, line):
    [said] = refused(capsys, run, run.parent / "test.jsonl", *arguments)
    assert said.startswith(line)


def test_a_wrong_config_is_blamed_on_the_config(capsys, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("num_beams: 2", "num_beams: none"))
    [said] = refused(capsys, tmp_path / "run", run.parent / "test.jsonl")
    assert said.startswith(f"{config}: evaluation.generation.num_beams is 'none': ")
