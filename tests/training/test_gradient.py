"""An update's gradient does not depend on the number of workers, the micro-batch budget or the ZeRO stage."""

import pytest

from tests.training.gradient_cases import BUDGETS, STAGES
from tests.training.programs import result_of


@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_gradient_is_that_of_the_whole_batch_in_fp64(pairs, tmp_path, world):
    results = result_of("gradient_cases.py", world, tmp_path)
    assert [(one["stage"], one["budget"]) for one in results] == [(s, b) for s in STAGES for b in BUDGETS]
    assert results[0]["micro_batches"] > results[2]["micro_batches"], "or the budget would not have been tested"
    assert any(one["apart"] for one in results), "or groups of unlike lengths would not have been tested"
    for one in results:
        assert one["off"] < 1e-6, one
        assert one["loss"] == pytest.approx(one["loss_fp64"], rel=1e-6, abs=0)
