"""`recipes.export`: the model of a checkpoint is what training exports at that update, bit for bit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from recipes import export
from recipes.config_file import load_config
from recipes.launching.preflight import prepare, write_description
from recipes.reporting.run_files import read_run
from recipes.storage import Storage
from tests.conftest import small_run, write_pairs
from tests.training.alone import train_alone

MODEL_FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def trained(storage, name, *overrides, after_update=None):
    """Folder of a finished run of 8 updates, checkpoints at 4 and 8."""
    arguments = small_run(
        write_pairs(storage / "pairs.jsonl"), storage, f"run.name={name}", "scaling.num_workers=1", *overrides
    )
    job = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]
    write_description(
        job, json.dumps({"python": "3.11", "packages": {"torch": "2"}, "command": ["/secret/place/python"]})
    )
    train_alone(job, after_update)
    return storage / name


def exported(capsys, *arguments):
    capsys.readouterr()
    assert export.main(list(map(str, arguments))) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def refused(capsys, *arguments):
    capsys.readouterr()
    assert export.main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def same_model(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in MODEL_FILES)


CASES = {
    "stage 0, tied": (0, "fp32", True),
    "stage 0, bf16": (0, "bf16", False),
    "stage 1, bf16": (1, "bf16", False),
    "stage 2, tied, bf16": (2, "bf16", True),
    "stage 3": (3, "fp32", False),
    "stage 3, tied, bf16": (3, "bf16", True),
}
SHORT = ("stage 2, tied, bf16", "stage 3")


@pytest.mark.parametrize(
    "case", [*SHORT, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES if case not in SHORT)]
)
def test_a_checkpoint_gives_the_export_of_its_update(process_group, capsys, tmp_path, case):
    stage, precision, tied = CASES[case]
    at_4 = {}

    def keep(training):
        if training.step == 4 and stage < 3:
            at_4.update({name: p.detach().clone() for name, p in training.engine.module.named_parameters()})

    run = trained(
        tmp_path,
        "a",
        f"deepspeed.zero_stage={stage}",
        f"training.precision={precision}",
        f"model.shape.tie_word_embeddings={str(tied).lower()}",
        after_update=keep,
    )
    said = exported(capsys, run, "--to", tmp_path / "again")
    assert said[-1] == f"model of update 8 in {precision}: {tmp_path / 'again'}"
    assert same_model(tmp_path / "again", run / "export")
    weights = load_file(run / "export" / "model.safetensors")
    assert ("lm_head.weight" in weights) == (not tied)
    # Nothing is left beside it.
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted([*MODEL_FILES, "README.md"])

    exported(capsys, run, "--to", tmp_path / "earlier", "--checkpoint", "4")
    earlier = load_file(tmp_path / "earlier" / "model.safetensors")
    assert not torch.equal(earlier["shared.weight"], weights["shared.weight"])
    if stage < 3:
        assert earlier.keys() == at_4.keys()
        assert all(torch.equal(earlier[name], weight) for name, weight in at_4.items())

    if precision == "bf16" and stage > 0:
        exported(capsys, run, "--to", tmp_path / "whole", "--precision", "fp32")
        whole = load_file(tmp_path / "whole" / "model.safetensors")
        assert all(tensor.dtype == torch.float32 for tensor in whole.values())
        # Rounded they are the ones computed with; before that they have more digits.
        assert all(torch.equal(whole[name].bfloat16(), weights[name]) for name in weights)
        assert any(not torch.equal(whole[name], weights[name].float()) for name in weights)
    elif precision == "bf16":
        assert "at ZeRO stage 0 a run in bf16 keeps no whole fp32 weights" in refused(
            capsys, run, "--to", tmp_path / "whole", "--precision", "fp32"
        )
        assert not (tmp_path / "whole").exists()


@pytest.fixture(scope="module")
def run(process_group, tmp_path_factory):
    """A run that exports its first evaluation."""
    settings = (
        "evaluation.best={metric: eval_loss, mode: max}",
        "evaluation.export=best",
        "evaluation.metrics=[bleu, token_accuracy]",
        "evaluation.generation={num_beams: 2}",
        "data.prefix='a `task`: '",
    )
    return trained(tmp_path_factory.mktemp("reexport"), "kept", *settings)


def test_last_best_and_what_the_run_exports(run, capsys, tmp_path):
    for which, step in ((None, 4), ("best", 4), ("last", 8), ("8", 8)):
        flags = [] if which is None else ["--checkpoint", which]
        said = exported(capsys, run, "--to", tmp_path / str(which), *flags)
        assert said[-1].startswith(f"model of update {step} in fp32: ")
    assert same_model(tmp_path / "None", run / "export")
    assert same_model(tmp_path / "best", run / "export")
    assert same_model(tmp_path / "last", tmp_path / "8")
    assert not same_model(tmp_path / "last", run / "export")


def test_a_run_without_export_and_data_gets_one(run, capsys, tmp_path):
    shutil.copytree(run.parent, tmp_path / "storage")
    copy = tmp_path / "storage" / "kept"
    shutil.rmtree(copy / "export")
    (tmp_path / "storage" / "pairs.jsonl").unlink()
    exported(capsys, copy)
    assert same_model(copy / "export", run / "export")
    assert (copy / "export" / "README.md").read_text() == (run / "export" / "README.md").read_text()


def test_an_export_is_replaced_only_when_asked(run, capsys, tmp_path):
    shutil.copytree(run.parent, tmp_path / "storage")
    copy = tmp_path / "storage" / "kept"
    (copy / "export" / "mine.txt").write_text("precious")
    assert refused(capsys, copy, "--checkpoint", "last").endswith(
        "is there already: give another folder with --to, or --overwrite"
    )
    assert same_model(copy / "export", run / "export")
    exported(capsys, copy, "--checkpoint", "last", "--overwrite")
    assert not same_model(copy / "export", run / "export")
    assert not (copy / "export" / "mine.txt").exists()


def test_damage_is_found_before_it_is_exported(run, capsys, tmp_path):
    shutil.copytree(run.parent, tmp_path / "storage")
    copy = tmp_path / "storage" / "kept"
    shard = copy / "checkpoints" / "step_00000008" / "deepspeed" / "mp_rank_00_model_states.pt"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    line = refused(capsys, copy, "--to", tmp_path / "x", "--checkpoint", "8")
    assert "the checkpoint at update 8 is damaged (deepspeed/mp_rank_00_model_states.pt has another checksum)" in line
    said = exported(capsys, copy, "--to", tmp_path / "x", "--checkpoint", "last")
    assert said[0].endswith("has another checksum): not used")
    assert said[-1].startswith("model of update 4 ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "5"], "has no checkpoint at update 5, only at 4, 8"),
        (["--checkpoint", "newest"], "--checkpoint is 'newest': give last, best, or a number of updates (4, 8)"),
        (["--precision", "bf17"], "--precision is 'bf17', did you mean 'bf16'?"),
    ],
)
def test_wrong_arguments(run, capsys, tmp_path, arguments, words):
    assert words in refused(capsys, run, "--to", tmp_path / "x", *arguments)
    assert not (tmp_path / "x").exists()


def test_wrong_runs(run, capsys, tmp_path):
    assert refused(capsys, tmp_path / "absent").endswith("there is no such folder")
    assert refused(capsys, tmp_path).endswith("holds no run (config.yaml)")
    shutil.copy(run / "config.yaml", tmp_path)
    assert refused(capsys, tmp_path).endswith("has no checkpoint")


def test_plain_generate_says_what_the_run_measured(run):
    """The run's settings of generation are the model's own."""
    model, tokenizer = (kind.from_pretrained(run / "export") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    own = GenerationConfig.from_pretrained(run / "export")
    assert (own.eos_token_id, own.pad_token_id, own.decoder_start_token_id) == (1, 0, 0)
    assert (own.max_new_tokens, own.num_beams, own.do_sample) == (64, 2, False)
    for sample in json.loads((run / "samples.json").read_text()):
        ids = model.generate(**tokenizer(sample["source"], return_tensors="pt"))
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == sample["prediction"]


def test_the_card_is_the_hubs_and_says_what_is_true(run, monkeypatch):
    from huggingface_hub import ModelCard

    content = (run / "export" / "README.md").read_text()
    card = ModelCard(content)
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.base_model) == ("transformers", "text2text-generation", None)
    evaluated = next(record for record in read_run(Storage(run)).metrics.eval if record["step"] == 4)
    # model-index, as the Hub's own library reads it.
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "bleu": round(evaluated["eval_bleu"], 4)
    }
    for words in (
        "trained from scratch for 4 updates",
        f"| loss (nats per target token) | {evaluated['eval_loss']:.4f} |",
        f"| token accuracy | {evaluated['eval_token_accuracy']:.4f} |",
        "beam search with 2 beams",
        "- updates: 4 of 8\n",
        "- source: `pairs.jsonl`\n",
        '- task prefix: `` "a `task`: " ``\n',
        "Rises linearly",
        "bleu: `nrefs:1",
        "torch 2",
    ):
        assert words in content
    assert str(run.parent) not in content
    assert "/secret" not in content
    # Its example runs.
    monkeypatch.chdir(run / "export")
    example = content.split("```python\n")[1].split("```")[0]
    exec(example, {})
    assert '"a `task`: your text"' in example


def test_a_card_of_a_model_with_a_base(tmp_path):
    from recipes.reporting.model_card import model_card

    (tmp_path / "config.yaml").write_text(
        "run: {name: x}\nmodel: {hub: google/t5-v1_1-small}\n"
        "data: {source: 's3://KEY:SECRET@bucket/deep/train', source_column: a, target_column: b, prefix: ''}\n"
    )
    card = model_card(read_run(Storage(tmp_path)), 7)
    assert "base_model: google/t5-v1_1-small\n" in card
    assert "fine-tuned from `google/t5-v1_1-small` for 7 updates" in card
    assert "- source: `train`" in card
    assert "SECRET" not in card
    assert "Not evaluated at update 7." in card
