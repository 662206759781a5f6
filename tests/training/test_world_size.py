"""A checkpoint of some number of workers, resumed by another: the run that never changed."""

import pytest

from tests.training.programs import result_of


def train(world, stage, precision, folder, first, last, resume=False):
    arguments = [world, stage, precision, folder, first, last, *(["resume"] if resume else [])]
    return result_of("world_size_cases.py", *arguments)


@pytest.mark.parametrize(
    "stage", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)  # fmt: skip
def test_two_workers_then_one_then_four_then_two_again(stage, tmp_path):
    whole = train(2, stage, "fp32", tmp_path / "whole", 0, 6)
    folder = tmp_path / "changing"
    parts = [train(2, stage, "fp32", folder, 0, 2)]
    for first, world in ((2, 1), (3, 4), (4, 2)):
        last = 6 if world == 2 else first + 1
        parts.append(train(world, stage, "fp32", folder, first, last, resume=True))
    losses = [loss for part in parts for loss in part["losses"]]
    assert losses == pytest.approx(whole["losses"], rel=1e-5, abs=0)
    assert losses[:2] == whole["losses"][:2]
    assert [lr for part in parts for lr in part["lrs"]] == [pytest.approx(lrs, rel=1e-14) for lrs in whole["lrs"]]
    for part in parts:
        assert part["decays"] == whole["decays"]
    assert not (folder / "checkpoints" / "merged").exists()
    merged = [text for part in parts for text in part["said"]]
    assert merged == ([] if stage == 0 else [
        "merging the shards of 2 workers for 1", "merging the shards of 1 workers for 4", "merging the shards of 4 workers for 2"
    ])  # fmt: skip
