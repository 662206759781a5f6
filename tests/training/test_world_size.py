"""A checkpoint of some number of workers, resumed by another: the run that never changed."""

from itertools import pairwise

import pytest

from tests.training.programs import result_of


def train(world, stage, precision, folder, first, last, resume=False, frozen=(), name="adamw", sub_group=None):
    arguments = [world, stage, precision, folder, first, last, f"optimizer={name}"]
    arguments += [f"freeze={','.join(frozen)}"] if frozen else []
    arguments += [f"sub_group={sub_group}"] if sub_group else []
    arguments += ["resume"] if resume else []
    return result_of("world_size_cases.py", *arguments)


def _slow(name, stage, worlds):
    return pytest.param(name, stage, worlds, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "stage", "worlds"),
    [
        ("adamw", 3, [2, 1, 2]),
        *(_slow("adamw", stage, [2, 1, 4, 2]) for stage in range(4)),
        *(_slow(name, stage, [2, 1, 4]) for name in ("adamw_rms", "adafactor") for stage in range(4)),
    ],
    ids=str,
)
def test_the_number_of_workers_changes(name, stage, worlds, tmp_path):
    whole = train(2, stage, "fp32", tmp_path / "whole", 0, 6, name=name)
    folder = tmp_path / "changing"
    first, parts = 0, []
    for i, world in enumerate(worlds):
        last = 6 if i + 1 == len(worlds) else first + (2 if i == 0 else 1)
        parts.append(train(world, stage, "fp32", folder, first, last, resume=i > 0, name=name))
        first = last
    losses = [loss for part in parts for loss in part["losses"]]
    assert losses == pytest.approx(whole["losses"], rel=1e-5, abs=0)
    assert losses[:2] == whole["losses"][:2]
    assert [lr for part in parts for lr in part["lrs"]] == [pytest.approx(lrs, rel=1e-14) for lrs in whole["lrs"]]
    for part in parts:
        assert part["decays"] == whole["decays"]
    assert not (folder / "checkpoints" / "merged").exists()
    merged = [text for part in parts for text in part["said"]]
    changes = [] if stage == 0 else pairwise(worlds)
    assert merged == [f"merging the shards of {before} workers for {after}" for before, after in changes]


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_the_number_of_workers_changes_with_frozen_parts(stage, tmp_path):
    frozen = ("embedding", "encoder")
    whole = train(2, stage, "fp32", tmp_path / "whole", 0, 6, frozen=frozen)
    first = train(2, stage, "fp32", tmp_path / "changing", 0, 3, frozen=frozen)
    rest = train(1, stage, "fp32", tmp_path / "changing", 3, 6, resume=True, frozen=frozen)
    assert first["losses"] + rest["losses"] == pytest.approx(whole["losses"], rel=1e-5, abs=0)
    assert rest["decays"] == whole["decays"]


@pytest.mark.slow
def test_the_number_of_flat_tensors_changes_with_the_workers(tmp_path):
    """Stage 3 steps parameters in groups of so many elements of a rank's part: seven with two workers, ten with one."""
    settings = {"name": "adafactor", "sub_group": 700}
    whole = train(2, 3, "fp32", tmp_path / "whole", 0, 4, **settings)
    first = train(2, 3, "fp32", tmp_path / "changing", 0, 2, **settings)
    rest = train(1, 3, "fp32", tmp_path / "changing", 2, 4, resume=True, **settings)
    assert first["losses"] + rest["losses"] == pytest.approx(whole["losses"], rel=1e-5, abs=0)
