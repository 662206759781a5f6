"""The registry is complete, every row holds, and a row that does not hold is seen."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from lrsched import Schedule
from lrsched.decays import DECAYS
from lrsched.proof.report import verify
from lrsched.proof.row import PEAK, TOLERANCE, Row
from lrsched.proof.run import LIBRARIES, Result, all_rows, run, updates_of
from lrsched.shapes import DIALECTS, dialect_shapes

ROWS = all_rows()


def test_every_shape_has_a_row() -> None:
    proven = {library: {row.shape for row in ROWS if row.library == library} for library in LIBRARIES}
    for library in DIALECTS:
        assert set(dialect_shapes(library)) <= proven[library], "a dialect's shape is proven in its own library"
    assert set(DECAYS) <= proven["torch"]
    assert set(DECAYS) <= proven["deepspeed"]
    assert {row.shape for row in ROWS} <= set(DECAYS).union(*map(dialect_shapes, DIALECTS)), (
        "no row proves a shape that is gone"
    )


def test_names_are_unique() -> None:
    names = [(row.library, row.name) for row in ROWS]
    assert sorted(names) == sorted(set(names))


def test_rows_go_past_the_end() -> None:
    for row in ROWS:
        total = row.schedule().total_steps
        # Only where a native schedule and transformers part at the end, which Trainer never passes.
        within = row.library == "transformers" and row.shape in DECAYS and row.name.endswith(" (within the run)")
        assert updates_of(row) >= (total if within else total * 1.2), row.name
    assert sum(row.name.endswith(" (within the run)") for row in ROWS) == 6


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return run(ROWS)


def test_every_row_holds(results: list[Result]) -> None:
    assert [(one.row.name, one.deviation, one.k, one.problem) for one in results if not one.good] == []
    assert all(one.updates == updates_of(one.row) for one in results)
    assert max(one.deviation for one in results) <= TOLERANCE


def _cosine(gamma: float) -> Schedule:
    return Schedule.from_dict({"peak_lr": PEAK, "total_steps": 20, "decay": {"shape": "exponential", "gamma": gamma}})


def test_a_deviation_is_seen() -> None:
    import torch

    right = Row("right", "exponential", "torch", functools.partial(_cosine, 0.9), functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9))  # fmt: skip
    wrong = dataclasses.replace(right, schedule=functools.partial(_cosine, 0.9 + 1e-11))
    broken = dataclasses.replace(right, scheduler=functools.partial(torch.optim.lr_scheduler.ExponentialLR, gama=0.9))
    good, bad, failed = run([right, wrong, broken])
    assert good.good
    assert not bad.good
    assert bad.deviation > TOLERANCE
    assert bad.k > 0
    assert not failed.good
    assert "gama" in failed.problem


def test_a_changed_deepspeed_is_seen() -> None:
    """The engine of another block stands for a DeepSpeed whose scheduler has changed."""
    row = next(row for row in ROWS if row.name == "WarmupCosineLR, linear")
    changed = dataclasses.replace(row, block={**row.block, "params": {**row.block["params"], "warmup_num_steps": 11}})
    unknown = dataclasses.replace(row, block={"type": "WarmupLR", "params": {"no_such": 1}})
    assert [result.good for result in run([row, changed])] == [True, False]
    (failed,) = run([unknown])
    assert "DeepSpeed's engine failed: " in failed.problem
    assert "no_such" in failed.problem


def test_the_table_of_one_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    schedule = Schedule.from_dict(
        {"peak_lr": 0.3, "total_steps": 30, "warmup": {"steps": 5}, "decay": {"shape": "cosine", "eta_min": 0.03}}
    )
    assert verify(schedule) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["schedule", "library", "updates", "deviation", "verdict"]
    rows = lines[1:4]
    assert [line.split("  ")[0] for line in rows] == [
        "torch form",
        "torch form in DeepSpeed's engine",
        "DeepSpeed's WarmupCosineLR",
    ]
    assert all(line.endswith("  equal") for line in rows)
    assert lines[4].startswith("transformers: no scheduler of transformers applies this schedule: at update k=")
    assert lines[-1].startswith("0 of 3 differ.")
