"""Sweeps that make no sense: refused before Ray starts, in one line, with exit code 2."""

from pathlib import Path

import pytest

from lrsched.decays import DECAYS
from recipes.config import ScalingBlock
from recipes.storage import Storage
from recipes.sweep import main
from recipes.sweeping.rungs import rung_steps
from recipes.sweeping.space import parse_space
from recipes.sweeping.sweep_config import load_sweep
from recipes.sweeping.trial import TrialMaker
from recipes.sweeping.tuning import trials_at_a_time
from tests.sweeping.small_sweep import small_sweep

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("sweep_*.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scheduler.grace_steps=20", "scheduler.grace_steps 20 is more than the 16 updates of a trial: give fewer"),
        (
            "scheduler.brackets=3",
            "scheduler.brackets is 3, but below the 16 updates of a trial there are only 2 rungs ([4, 8])",
        ),
        ("scheduler.kind=hyperband", "scheduler.kind is 'hyperband': input should be 'asha' or 'fifo'"),
        ("sweep.num_trails=3", "unknown key 'sweep.num_trails', did you mean 'sweep.num_trials'?"),
        ("sweep.num_trials=null", "num_trials is missing: search random needs to know how many trials to run"),
        ("scoring.branch_ratio=1.5", "scoring.branch_ratio is 1.5: input should be less than or equal to 1"),
        ("base.schedule.decay={shape: cosin}", "unknown shape 'cosin'; did you mean 'cosine'?"),
        ("base.model.shape.d_modl=3", "base: unknown key 'model.shape.d_modl', did you mean 'model.shape.d_model'?"),
        ("base.schedule.warmup.steps=20", "warmup.steps: 20 is more than total_steps 16"),
        ("base.schedule.total_steps=7", "wsd"),
        ("base=nowhere.yaml", "nowhere.yaml: no such config file"),
        ("sweep.search=grid", "num_trials has no use with search: grid"),
        ("space.run.seed={choice: [1, 2]}", "space.run.seed cannot vary: luck is no setting"),
        ("space.optimizer={eps: {choice: [1, 2]}}", "space.optimizer is a block of a run: write its fields with dots"),
        ("base.report.to=[tensorboard,mlflow]", "report.to ['mlflow'] does not go with a sweep, which has a report"),
        ("space.report.every_s={choice: [1, 2]}", "a report. key in the space does not go with a sweep"),
        ("space.optimizer.eps={choice: [-1.0]}", "optimizer.eps is -1.0: input should be greater than 0"),
    ],
)
def test_one_line_before_anything_starts(pairs, tmp_path, capsys, override, message):
    assert main(small_sweep(pairs, tmp_path / "runs", override)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("data: ")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "runs" / "small").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_that_come_along_have_spaces_without_impossible_combinations(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_sweep(path)
    space = parse_space(config.space)
    total = config.base.schedule.total_steps
    assert set(DECAYS) - {family.shape for family in space.families} == {"constant", "polynomial", "piecewise"}
    TrialMaker(space, config.base, 100.0, Storage("unused"), Storage("unused")).check_space()
    assert rung_steps(config.scheduler.grace_steps, config.scheduler.reduction_factor, total)[-1] == total


def test_a_dry_run_shows_every_trial_and_leaves_nothing(pairs, tmp_path, capsys):
    arguments = small_sweep(pairs, tmp_path / "runs", "--dry-run")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert [line[:3] for line in shown.splitlines() if line[:3].isdigit()] == [f"{n:03d}" for n in range(6)]
    assert "updates: 96 exhaustive, about 48 expected" in shown  # 6 * (4 + 4 / 2 + 8 / 4)
    assert "then the best 2 with 2 new seeds: 64 updates more" in shown
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sweep.yaml"]


def test_a_node_holds_whole_workers_only():
    scaling = ScalingBlock(num_workers=2, cpus_per_worker=3)
    assert trials_at_a_time([{"CPU": 8.0}, {"CPU": 4.0}, {"CPU": 5.0}], scaling) == 2  # 2 + 1 + 1 workers
    assert trials_at_a_time([{"CPU": 5.0}], scaling) == 0
    on_gpus = ScalingBlock(num_workers=1, use_gpu=True)
    assert trials_at_a_time([{"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0}], on_gpus) == 3
