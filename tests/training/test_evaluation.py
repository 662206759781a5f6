"""Evaluations inside the real loop: what they measure, and that training does not notice them."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from recipes.evaluation.metrics import MetricFailed
from recipes.storage import Storage
from tests.training.programs import result_of
from tests.training.test_rung_scores import end_of, train_small

OWN = "tests.evaluation.own_metrics"
TEXT = f"evaluation.metrics=[token_accuracy, perplexity, bleu, chrf, rouge, exact_match, '{OWN}:with_dice']"


def predictions_of(folder):
    return [json.loads(line) for line in (folder / "small" / "predictions.jsonl").read_text().splitlines()]


def summary_of(folder):
    return json.loads((folder / "small" / "summary.json").read_text())


def end_of_training(folder):
    """The last checkpoint but for the numbers of the evaluations: the checksum of each file, the random state."""
    step, files = end_of(folder)
    rank = torch.load(folder / "small" / f"checkpoints/step_{step:08d}/rank_00000.pt", weights_only=False)
    random = rank["random"]
    state = (
        random["torch"].tolist(),
        random["python"],
        [str(part) for part in random["numpy"]],
        random["numpy"][1].tolist(),
    )
    counters = {
        key: value for key, value in rank["counters"].items() if key not in ("evaluated", "signatures", "seconds")
    }
    return {name: entry for name, entry in files.items() if name != "rank_00000.pt"}, state, counters


def alone(export, sources, **settings):
    """What the exported model says to each source by itself, through transformers only."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(export), AutoTokenizer.from_pretrained(export)
    texts = []
    for source in sources:
        with torch.no_grad():
            ids = model.generate(**tokenizer(source, return_tensors="pt"), do_sample=False, **settings)
        texts.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize(
    ("stage", "precision"), [pytest.param(1, "fp32", marks=pytest.mark.slow), (2, "bf16"), (3, "fp32")]
)
def test_a_run_that_generates_is_the_run_that_does_not(process_group, pairs, tmp_path, stage, precision):
    """Weights, optimizer, schedule and random state to the last bit; dropout is on, and a metric draws random numbers."""
    settings = [f"deepspeed.zero_stage={stage}", f"training.precision={precision}", "training.eval_every_steps=2"]
    _, plain = train_small(pairs, tmp_path / "plain", *settings)
    _, lines = train_small(
        pairs, tmp_path / "generating", *settings, TEXT, "evaluation.generation={num_beams: 2, max_new_tokens: 12}"
    )
    assert end_of_training(tmp_path / "generating") == end_of_training(tmp_path / "plain")
    evaluations = [line for line in lines if "eval_loss" in line]
    assert len(evaluations) == 4
    assert set(evaluations[0]) == {
        *("step", "eval_loss", "eval_tokens", "eval_token_accuracy", "eval_perplexity", "eval_generated"),
        *("eval_bleu", "eval_chrf", "eval_rouge1", "eval_rouge2", "eval_rougeL"),
        *("eval_exact_match", "eval_with_dice"),
    }
    common = ("step", "eval_loss", "eval_tokens", "eval_token_accuracy", "eval_perplexity")
    assert [{key: line[key] for key in common} for line in evaluations] == [
        line for line in plain if "eval_loss" in line
    ]


def test_what_a_run_says_about_its_texts(process_group, pairs, tmp_path):
    chosen = ["evaluation.num_generated=5", "evaluation.generate_every_steps=8", "training.eval_every_steps=4"]
    summary, lines = train_small(pairs, tmp_path / "a", "evaluation.metrics=[bleu, exact_match]", *chosen)
    first, last = (line for line in lines if "eval_loss" in line)
    assert "eval_bleu" not in first
    assert (last["eval_generated"], len(predictions_of(tmp_path / "a"))) == (5, 5)
    assert summary["evaluation"] == {key: value for key, value in last.items() if key != "eval_generate_s"}
    assert summary["metric_signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|")
    assert (summary["exported_update"], summary["best"], summary["stopped_early"]) == (8, None, None)
    samples = json.loads((tmp_path / "a" / "small" / "samples.json").read_text())
    assert [samples[0], samples[1]] == [predictions_of(tmp_path / "a")[0], predictions_of(tmp_path / "a")[-1]]


def test_a_metric_of_ones_own_that_fails_ends_the_run(process_group, pairs, tmp_path):
    with pytest.raises(MetricFailed, match="own_metrics:broken raised ZeroDivisionError: division by zero"):
        train_small(pairs, tmp_path / "a", f"evaluation.metrics=['{OWN}:broken']")


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """Runs of two workers at a stage, made on the first question: the folder, and the examples of each rank in it."""
    from tests.conftest import write_pairs

    folder = tmp_path_factory.mktemp("two_workers")
    write_pairs(folder / "pairs.jsonl")
    found = {}

    def run(stage):
        if stage not in found:
            together = (3,) if stage == 3 else (0, 1, 2)
            shares = result_of("evaluation_workers.py", folder / "pairs.jsonl", folder, *together)
            for place, each in enumerate(together):
                # A run has two evaluations.
                found[each] = [shares[0][2 * place], shares[1][2 * place]]
        return folder / str(stage), found[stage]

    return run


@pytest.mark.parametrize("stage", [*(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 1, 2)), 3])
def test_two_workers_say_what_the_exported_model_says_alone(two_workers, stage):
    folder, shares = two_workers(stage)
    records = predictions_of(folder)
    assert len(records) % 2 == 1
    assert sorted(shares[0] + shares[1]) == list(range(len(records)))
    assert min(map(len, shares)) > len(records) / 3
    sources = [record["source"] for record in records]
    expected = alone(folder / "small" / "export", sources, num_beams=2, max_new_tokens=24)
    assert [record["prediction"] for record in records] == expected
    assert len(set(expected)) > 5
    assert Storage(folder / "small").exists("samples.json")
    lines = (folder.parent / "pairs.jsonl").read_text().splitlines()
    held_out = {line["source"]: line["target"] for line in map(json.loads, lines)}
    assert all(held_out[record["source"]] == record["reference"] for record in records)


@pytest.mark.parametrize("stage", [*(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 1, 2)), 3])
def test_two_workers_shards_give_their_export(two_workers, stage, tmp_path):
    from recipes import export

    run = two_workers(stage)[0] / "small"
    assert export.main([str(run), "--to", str(tmp_path / "again")]) == 0
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / "export" / name).read_bytes()
