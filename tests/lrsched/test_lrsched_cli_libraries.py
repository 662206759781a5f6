"""compare, verify, convert and import, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from schedule_cases import make
from test_lrsched_cli import lrsched

from lrsched import Schedule, from_transformers

COSINE = "{peak_lr: 1e-3, total_steps: 100, warmup: {steps: 10}, decay: {shape: cosine, eta_min: 1e-5}}"
LINEAR = "{peak_lr: 1e-3, total_steps: 100, warmup: {steps: 10}, decay: {shape: linear, ends_at_min: false}}"


def test_compare_shows_each_library_and_marks_differences() -> None:
    done = lrsched("compare", "-", stdin=COSINE)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Rises linearly from 0.0 towards 0.001 over 10 updates")
    assert lines[2].split()[7:15] == ["0", "1", "9", "10", "55", "99", "100", "110"]
    for library in ("torch", "transformers", "DeepSpeed", "optax", "Megatron-LM", "NeMo", "torchtitan", "composer", "timm", "t5x", "nanoT5"):  # fmt: skip
        assert any(line.startswith(f"{library} ") for line in lines), library
    deepspeed = next(line for line in lines if line.startswith("DeepSpeed WarmupCosineLR, linear"))
    assert deepspeed.split()[3:6] == ["0", "0*", "0.8*"], "two updates at zero, then one behind"
    assert "equal" in next(line for line in lines if line.startswith("this schedule"))
    assert max(map(len, lines[2:])) < 150


def test_compare_finds_the_equal_one() -> None:
    lines = lrsched("compare", "-", stdin=LINEAR).stdout.splitlines()
    equal = [line.split("  ")[0] for line in lines if line.endswith("  equal")]
    assert equal[0] == "this schedule"
    assert "transformers linear" in equal
    assert "DeepSpeed OneCycle" in equal
    assert "optax join_schedules of two linear" in equal


@pytest.mark.parametrize("decay", ["constant", "step", "multistep", "exponential", "polynomial", "inverse-sqrt", "wsd", "cosine-restart", "cosine-cycles", "one-cycle", "piecewise"])  # fmt: skip
def test_compare_takes_every_shape(decay: str) -> None:
    from lrsched.comparison import comparison

    assert "this schedule" in comparison(make(decay))


def test_compare_says_what_it_does_not_ask_for() -> None:
    spec = "{peak_lr: 1, total_steps: 20, warmup: {steps: 5, shape: log, start_ratio: 0.2}, decay: {shape: cosine, t_max: 8}}"
    last = lrsched("compare", "-", stdin=spec).stdout.splitlines()[-1]
    assert last == (
        "The other libraries are not asked for warm-up shape log, start_ratio 0.2, a decay of 8 updates, "
        "which their schedulers have no word for."
    )
    restart = "{peak_lr: 1, total_steps: 20, decay: {shape: cosine, t_max: 5, after: restart}}"
    shown = lrsched("compare", "-", stdin=restart).stdout
    assert "CosineAnnealingWarmRestarts" in shown
    assert "optax" not in shown


@pytest.mark.parametrize("total", [10**8, 2**53])
def test_the_longest_runs_are_compared_and_converted_in_time(total: int) -> None:
    spec = f"{{peak_lr: 1, total_steps: {total}, warmup: {{steps: 5}}, decay: {{shape: cosine}}}}"
    assert "updates of k=0 to" in lrsched("compare", "-", stdin=spec).stdout
    if total > 2**27:
        done = lrsched("convert", "-", "--to", "deepspeed", stdin=spec)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_convert_to_deepspeed() -> None:
    done = lrsched("convert", "-", "--to", "deepspeed", stdin=COSINE)
    assert json.loads(done.stdout) == {"scheduler": Schedule.from_yaml(COSINE).to_deepspeed()}


def test_convert_to_transformers() -> None:
    done = lrsched("convert", "-", "--to", "transformers", stdin=LINEAR)
    assert json.loads(done.stdout) == Schedule.from_yaml(LINEAR).to_transformers()


def used_by(code: str, peak: float, updates: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    names: dict[str, Any] = {"optimizer": optimizer}
    exec(code, names)
    used = []
    for _ in range(updates):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        names["scheduler"].step()
    return used


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        ("{peak_lr: 0.1, total_steps: 60, decay: {shape: step, step_size: 20}}", "StepLR"),
        ("{peak_lr: 0.1, total_steps: 60, decay: {shape: cosine, after: rise, eta_min: 0.01}}", "CosineAnnealingLR"),
        ("{peak_lr: 0.1, total_steps: 60, warmup: {steps: 5, start_ratio: 0.2}, decay: {shape: multistep, milestones: [9, 20]}}", "SequentialLR"),
        ("{peak_lr: 0.1, total_steps: 60, warmup: {steps: 5, start_ratio: 0.2}, decay: {shape: cosine, after: restart, t_max: 10}}", "CosineAnnealingWarmRestarts"),
        ("{peak_lr: 0.1, total_steps: 60, warmup: {steps: 5}, decay: {shape: cosine}}", ""),
        ("{peak_lr: 0.1, total_steps: 60, decay: {shape: wsd, decay_steps: 10}}", ""),
    ],
)  # fmt: skip
def test_convert_to_torch_is_code_that_applies_it(spec: str, own: str) -> None:
    code = lrsched("convert", "-", "--to", "torch", stdin=spec).stdout
    schedule = Schedule.from_yaml(spec)
    assert (own in code) if own else code.startswith("# torch's own classes do not apply this schedule.")
    assert used_by(code, 0.1, 60) == pytest.approx([schedule.lr(k) for k in range(60)], rel=0, abs=1e-13)


def test_convert_to_what_cannot_apply_it_is_one_line_and_exit_code_2() -> None:
    for library in ("deepspeed", "transformers"):
        done = lrsched(
            "convert", "-", "--to", library, stdin="{peak_lr: 1, total_steps: 9, decay: {shape: step, step_size: 4}}"
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert "applies this schedule: at update k=" in done.stderr


def test_import_from_deepspeed(tmp_path: Path) -> None:
    schedule = Schedule.from_yaml(COSINE)
    config = tmp_path / "ds_config.json"
    config.write_text(
        json.dumps(
            {"scheduler": schedule.to_deepspeed(), "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}, "bf16": {}}
        )
    )
    done = lrsched("import", "--from", "deepspeed", str(config), "--total-steps", "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Rises linearly from 0.0 towards 0.001 over 10 updates")
    assert Schedule.from_yaml(done.stdout) == schedule


def test_import_from_transformers(tmp_path: Path) -> None:
    arguments = tmp_path / "training_args.json"
    arguments.write_text(
        json.dumps({"learning_rate": 5e-4, "max_steps": 205, "lr_scheduler_type": "cosine", "warmup_steps": 0.1})
    )
    done = lrsched("import", "--from", "transformers", str(arguments))
    wanted = from_transformers("cosine", peak_lr=5e-4, num_warmup_steps=21, num_training_steps=205)
    assert Schedule.from_yaml(done.stdout) == wanted, "a ratio is rounded up, as TrainingArguments does"


BAD = [
    ("deepspeed", {"bf16": {}}, "{path}: scheduler: is missing; a config without one trains at the optimizer's constant lr"),
    ("deepspeed", {"scheduler": {"type": "WarmupLRR"}}, "{path}: scheduler.type: unknown DeepSpeed scheduler 'WarmupLRR'; did you mean 'WarmupLR'? known: WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest"),
    ("deepspeed", {"scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 9}}}, "{path}: optimizer.params.lr: is missing: WarmupCosineLR multiplies the optimizer's learning rate; write it there, or pass --peak-lr"),
    ("deepspeed", {"scheduler": {"type": "WarmupLR"}, "optimizer": {"params": {"lr": "auto"}}}, "{path}: optimizer.params.lr: 'auto' is filled in by transformers' Trainer; pass --peak-lr"),
    ("transformers", {"learning_rate": 1e-4}, "{path}: max_steps: -1 does not say how many updates the run has; pass --total-steps"),
    ("transformers", {"max_steps": 9, "warmup_steps": "x"}, "{path}: warmup_steps: 'x' is not a number of updates; write one such as 500 or 0.1"),
    ("deepspeed", {"scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 9}}, "optimizer": {"params": [1]}}, "{path}: optimizer.params.lr: is missing: WarmupCosineLR multiplies the optimizer's learning rate; write it there, or pass --peak-lr"),
    ("transformers", {"max_steps": 9, "lr_scheduler_kwargs": {"total_steps": 2}}, "{path}: lr_scheduler_kwargs: 'total_steps' is none of linear's keywords; leave it out"),
    ("transformers", {"max_steps": 9, "lr_scheduler_type": ["cosine"]}, "{path}: lr_scheduler_type: ['cosine'] is not a name; write one such as cosine"),
    ("transformers", [1], "{path} holds no mapping; give a config of key: value pairs"),
]  # fmt: skip


@pytest.mark.parametrize(("library", "content", "says"), BAD)
def test_bad_files(tmp_path: Path, library: str, content: Any, says: str) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    done = lrsched("import", "--from", library, str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lrsched: {says.format(path=path)}\n"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    done = lrsched("import", "--from", "deepspeed", str(tmp_path / "none.json"))
    assert (done.returncode, done.stderr) == (
        2, f"lrsched: cannot read {tmp_path}/none.json: No such file or directory\n"
    )  # fmt: skip
    (tmp_path / "torn.json").write_text('{"scheduler": {')
    done = lrsched("import", "--from", "deepspeed", str(tmp_path / "torn.json"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"lrsched: {tmp_path}/torn.json is neither JSON nor YAML: ")
    assert done.stderr.count("\n") == 1


def test_verify_a_schedule(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(yaml.safe_dump({"schedule": Schedule.from_yaml(LINEAR).to_dict()}))
    done = subprocess.run(
        [sys.executable, "-m", "lrsched", "verify", str(spec)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "transformers' linear" in done.stdout
    assert "DeepSpeed's OneCycle" in done.stdout
    assert "0 of 4 differ." in done.stdout
