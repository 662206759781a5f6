"""Wrong inputs: one line, exit code 2, no traceback, nothing started, nothing half-written."""

import json
import os
import subprocess
import sys

import pytest

from recipes import train
from tests.conftest import small_run, write_pairs


def refused(capsys, *arguments: str) -> str:
    """Run the command, expect exit code 2, return what it said last."""
    assert train.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.source=nowhere.jsonl"], "nowhere.jsonl"),
        (["data.source_column=sauce"], "sauce"),
        (["schedule.warmup.steps=8"], "schedule"),
        (["schedule.total_steps=0"], "schedule.total_steps"),
        (["schedule.decay.shape=cosin"], "cosine"),
        (["schedule.peak_lr=-1"], "schedule.peak_lr"),
        (["schedule.decay={shape: step, step_size: 2, gamma: 0.5}", "schedule.backend=deepspeed"], "schedule.backend"),
        (["training.micro_batch_tokens=20"], "training.micro_batch_tokens: 20 is less than"),
        (["data.max_source_tokens=10"], "data.max_source_tokens"),
        (
            ["deepspeed.extra={gradient_clipping: 5}"],
            "deepspeed.extra.gradient_clipping is 5 but the recipe sets it to 1.0",
        ),
        (["deepspeed.extra={zero_optimization: {stage: 3}}"], "change deepspeed.zero_stage instead"),
        (
            ["optimizer={name: adafactor}", "deepspeed.extra={optimizer: {type: Adam}}"],
            "deepspeed.extra.optimizer: the optimizer comes from the optimizer block",
        ),
        (["run.resume=must"], "holds no run"),
        (["model={folder: nowhere}", "data.tokenizer={kind: bytes}"], "nowhere: no config.json there"),
        (["scaling.num_workers=3", "scaling.cpus_per_worker=1000"], "3000 CPU needed, but this machine has"),
    ],
)
def test_refused_in_one_line(capsys, pairs, storage, monkeypatch, overrides, words):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert words in refused(capsys, *small_run(pairs, storage, *overrides))
    assert not (storage / "small").exists()


def test_several_bad_rows_are_counted_and_named(capsys, tmp_path, storage):
    path = tmp_path / "bad.jsonl"
    rows = [{"source": f"s {i}", "target": f"t {i}"} for i in range(50)]
    rows[6]["target"], rows[9]["source"], rows[12]["target"] = None, 5, ""
    path.write_text("\n".join(map(json.dumps, rows)))
    line = refused(capsys, *small_run(path, storage))
    assert "7" in line
    assert "10" in line
    assert "on_bad_row" in line


def test_invalid_utf8_is_named(capsys, tmp_path, storage):
    path = write_pairs(tmp_path / "latin.jsonl", 20)
    path.write_bytes(path.read_bytes() + b'{"source": "caf\xe9", "target": "x"}\n')
    line = refused(capsys, *small_run(path, storage))
    assert "latin.jsonl" in line
    assert "21" in line


def test_an_empty_file_is_refused(capsys, tmp_path, storage):
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in refused(capsys, *small_run(tmp_path / "empty.jsonl", storage))


def test_storage_that_cannot_be_written(capsys, pairs, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(capsys, *small_run(pairs, tmp_path / "x", f"run.storage_path={tmp_path / 'file'}"))
    assert line.startswith(f"{tmp_path / 'file'}: cannot be written")


def test_a_folder_that_holds_a_run_is_not_touched(capsys, pairs, storage):
    arguments = small_run(pairs, storage)
    job = _write_run_description(arguments)
    before = (storage / "small" / "config.yaml").read_text()
    assert "holds a run already: give another run.name, or run.resume=auto" in refused(capsys, *arguments)
    line = refused(capsys, *arguments, "run.resume=auto", "optimizer.weight_decay=0.5", "run.seed=4")
    assert "run.seed (there 3, now 4), optimizer.weight_decay (there 0.01, now 0.5)" in line
    assert "has no whole checkpoint" in refused(capsys, *arguments, "run.resume=must")
    assert (storage / "small" / "config.yaml").read_text() == before
    assert job.run_folder.names() == ["config.yaml", "ds_config.json", "environment.json"]


def test_checkpoints_of_an_unknown_run_are_not_resumed(capsys, pairs, storage):
    (storage / "small" / "checkpoints" / "step_00000004").mkdir(parents=True)
    for mode in ("never", "auto", "must"):
        line = refused(capsys, *small_run(pairs, storage, f"run.resume={mode}"))
        assert line.endswith("small holds checkpoints but no config.yaml that says of what: give another run.name")


def test_a_held_out_example_above_the_budget_is_refused_before_training(capsys, pairs, tmp_path, storage):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"source": "s" * 60, "target": "t" * 60}) + "\n")
    arguments = small_run(pairs, storage, f"data.eval_source={held_out}", "training.micro_batch_tokens=100")
    assert "100 is less than held-out held_out.jsonl row 1 alone needs: 61 source + 61 target" in refused(
        capsys, *arguments
    )


def _write_run_description(arguments):
    from recipes.config_file import load_config
    from recipes.launching.preflight import prepare, write_description

    job, _, _ = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)
    write_description(job, "{}")
    return job


def test_a_dry_run_prints_everything_and_leaves_nothing(pairs, storage):
    arguments = small_run(pairs, storage, "--dry-run")
    probe = (
        "import sys; from recipes.train import main; code = main(sys.argv[1:]); "
        "assert 'ray' not in sys.modules; assert 'deepspeed' not in sys.modules; sys.exit(code)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    result = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    for words in (
        "# resolved config",
        "\n    micro_batch_tokens: 400",
        '"type": "WarmupCosineLR"',
        "first 0 (update 0), highest",
        "last 0.0001 (update 7)",
        "updates per epoch: ",
        "tokens per update: ",
        "padding: ",
        "2 workers, each with 1 CPU; ZeRO stage 2, ",
        f"updates 0 to 8, in {storage}/small",
    ):
        assert words in result.stdout.replace("\n  ", "\n    ")
    assert sorted(path.name for path in storage.iterdir()) == ["small.yaml"]
