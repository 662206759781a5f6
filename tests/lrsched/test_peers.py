"""The other libraries' formulas against numbers that their own code gave.

Every table is the learning rate of the optimizer updates 0 to 12, peak 1: first floor 0, then floor
0.1. "Run" means that the library's file, at that commit, was executed in the order of its training
loop and the learning rate read before each update.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrsched.peers import peers
from lrsched.schedule import Schedule

K = np.arange(13)
FLOORS = (0.0, 0.1)
nan = float("nan")

# W = 4, T = 10.
# fmt: off
COSINE = {
    # optax 2edbcbe, run: optax/schedules/_schedule.py and _join.py under jax 0.10 in float64 (end_value is the
    # floor). scale_by_schedule asks for the value at its count, then counts: update k uses f(k).
    ("optax", "warmup_cosine_decay_schedule"): (
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 0.0, 0.0, 0.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.9397114317, 0.775,
         0.55, 0.325, 0.1602885683, 0.1, 0.1, 0.1],
    ),
    # Megatron-LM d98e8a6, run: OptimizerParamScheduler with lengths times a batch of 8, as training.py multiplies
    # them; train_step: optimizer.step(), then step(increment=samples). The constructor sets f(0).
    ("Megatron-LM", "cosine"): (
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 0.0, 0.0, 0.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.9397114317, 0.775,
         0.55, 0.325, 0.1602885683, 0.1, 0.1, 0.1],
    ),
    # NeMo 8cfedd7 (0165f08 gives the same), run: class CosineAnnealing on torch 2.13 without a constant tail;
    # Lightning steps the scheduler after the optimizer.
    ("NeMo", "CosineAnnealing"): (
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 0.0, 0.0, 0.0],
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.9397114317, 0.775,
         0.55, 0.325, 0.1602885683, 0.1, 0.1, 0.1],
    ),
    # torchtitan b5bcd76, run: LRSchedulersContainer.Config.build with min_lr_factor; trainer.py: optimizers.step(),
    # then lr_schedulers.step().
    ("torchtitan", "decay_type cosine"): (
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 0.0, 0.06698729811, 0.25],
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.9397114317, 0.775,
         0.55, 0.325, 0.1602885683, 0.1, 0.1602885683, 0.325],
    ),
    # composer 6405188, the schedule run with its own Time and Timestamp, the order derived from trainer.py: train the
    # batch, scheduler.step(), only then timestamp.to_next_batch(). alpha_f is floor / peak.
    ("composer", "CosineAnnealingWithWarmup"): (
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.93301270189,
         0.75, 0.5, 0.25, 0.06698729811, 0.0, 0.0],
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.9397114317,
         0.775, 0.55, 0.325, 0.1602885683, 0.1, 0.1],
    ),
    # timm aa4b585, run: t_initial=T, warmup_t=W, warmup_lr_init=0, lr_min, t_in_epochs=False; train.py: update,
    # num_updates += 1, step_update(num_updates).
    ("timm", "CosineLRScheduler"): (
        [0.0, 0.25, 0.5, 0.75, 0.65450849719, 0.5, 0.34549150281,
         0.20610737385, 0.09549150281, 0.02447174185, 0.0, 0.0, 0.0],
        [0.0, 0.25, 0.5, 0.75, 0.68905764747, 0.55, 0.41094235253,
         0.28549663647, 0.18594235253, 0.12202456767, 0.1, 0.1, 0.1],
    ),
    # As above with warmup_prefix=True: it ends at T + W.
    ("timm", "CosineLRScheduler, warmup_prefix"): (
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.97552825815, 0.90450849719,
         0.79389262615, 0.65450849719, 0.5, 0.34549150281, 0.20610737385, 0.09549150281],
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.97797543233, 0.91405764747,
         0.81450336353, 0.68905764747, 0.55, 0.41094235253, 0.28549663647, 0.18594235253],
    ),
    # t5x cc342d4, run: create_learning_rate_scheduler under jax 0.10, its float32 read as float64; steps_per_cycle is
    # T - W, min_learning_rate the floor or its default. The trainer asks with train_state.step before the update.
    ("t5x", "linear_warmup * cosine_decay"): (
        [1e-8, 0.25, 0.5, 0.75, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 1.0, 0.93301270189, 0.75],
        [0.1, 0.25, 0.5, 0.75, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.1, 1.0, 0.93301270189, 0.75],
    ),
    # nanoT5 1375b38, run: get_lr_scheduler on torch 2.13 and on lr_scheduler.py of torch 2.0.1, the newest it allows;
    # train(): optimizer.step(), then lr_scheduler.step().
    ("nanoT5", "cosine"): (
        [0.5, 0.625, 0.75, 0.875, 1.0, 0.93301270189, 0.75,
         0.5, 0.25, 0.06698729811, 0.0, 0.06698729811, 0.25],
        [0.5, 0.625, 0.75, 0.875, 1.0, 0.9397114317, 0.775,
         0.55, 0.325, 0.1602885683, 0.1, 0.1602885683, 0.325],
    ),
}
LINEAR = {
    # join_schedules of two linear_schedule, run as above.
    ("optax", "join_schedules of two linear"): (
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.83333333333, 0.66666666667,
         0.5, 0.33333333333, 0.16666666667, 0.0, 0.0, 0.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.85, 0.7,
         0.55, 0.4, 0.25, 0.1, 0.1, 0.1],
    ),
    # Run as above, lr_decay_style="linear".
    ("Megatron-LM", "linear"): (
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.83333333333, 0.66666666667,
         0.5, 0.33333333333, 0.16666666667, 0.0, 0.0, 0.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.85, 0.7,
         0.55, 0.4, 0.25, 0.1, 0.1, 0.1],
    ),
    # Run as above; PolynomialDecayAnnealing with its default power of 1 gives the same.
    ("NeMo", "WarmupAnnealing"): (
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.83333333333, 0.66666666667,
         0.5, 0.33333333333, 0.16666666667, 0.0, 0.0, 0.0],
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.7,
         0.55, 0.4, 0.25, 0.1, 0.1, 0.1],
    ),
    # Run as above: it goes on falling past the end.
    ("torchtitan", "decay_type linear"): (
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.83333333333, 0.66666666667,
         0.5, 0.33333333333, 0.16666666667, 0.0, -0.16666666667, -0.33333333333],
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.85, 0.7,
         0.55, 0.4, 0.25, 0.1, -0.05, -0.2],
    ),
    # Made as above.
    ("composer", "LinearWithWarmup"): (
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.83333333333,
         0.66666666667, 0.5, 0.33333333333, 0.16666666667, 0.0, 0.0],
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.85,
         0.7, 0.55, 0.4, 0.25, 0.1, 0.1],
    ),
    # Run as above; decay_factor=(1 - floor / peak) / (T - W).
    ("t5x", "linear_decay"): (
        [1e-8, 0.25, 0.5, 0.75, 1.0, 0.83333333333, 0.66666666667,
         0.5, 0.33333333333, 0.16666666667, 1e-8, 1e-8, 1e-8],
        [0.1, 0.25, 0.5, 0.75, 1.0, 0.85, 0.7,
         0.55, 0.4, 0.25, 0.1, 0.1, 0.1],
    ),
}
# No warm-up, T = 10, floor 0.1: where the libraries do something of their own.
NO_WARMUP = {
    # Run as above. The torch that nanoT5 allows never leaves half the peak; torch 2.13 begins at the peak.
    ("cosine", "nanoT5", "cosine"):
        [0.5, 0.5, 0.49021130326, 0.46180339887, 0.41755705046, 0.36180339887, 0.3,
         0.23819660113, 0.18244294954, 0.13819660113, 0.10978869674, 0.1, 0.12202456767],
    # Made as above: the peak twice.
    ("cosine", "composer", "CosineAnnealingWithWarmup"):
        [1.0, 1.0, 0.97797543233, 0.91405764747, 0.81450336353, 0.68905764747, 0.55,
         0.41094235253, 0.28549663647, 0.18594235253, 0.12202456767, 0.1, 0.1],
    # Run as above with the factors "constant * cosine_decay": linear_warmup would make update 0 NaN.
    ("cosine", "t5x", "linear_warmup * cosine_decay"):
        [1.0, 0.97552825815, 0.90450849719, 0.79389262615, 0.65450849719, 0.5, 0.34549150281,
         0.20610737385, 0.1, 0.1, 1.0, 0.97552825815, 0.90450849719],
    # Run as above: 0 / 0.
    ("linear", "t5x", "linear_decay"):
        [nan, 0.91, 0.82, 0.73, 0.64, 0.55, 0.46,
         0.37, 0.28, 0.19, 0.1, 0.1, 0.1],
    # Run as above: at the peak from update 0 on.
    ("linear", "NeMo", "WarmupAnnealing"):
        [1.0, 0.91, 0.82, 0.73, 0.64, 0.55, 0.46,
         0.37, 0.28, 0.19, 0.1, 0.1, 0.1],
}
# fmt: on


def curves(shape: str, warm: int, floor: float, peak: float = 1.0) -> dict[tuple[str, str], np.ndarray]:
    decay: dict[str, Any] = {"shape": shape, "eta_min": floor}
    schedule = Schedule.from_dict({"peak_lr": peak, "total_steps": 10, "warmup": {"steps": warm}, "decay": decay})
    known = ("torch", "transformers", "DeepSpeed")  # held against the libraries themselves elsewhere
    return {(one.library, one.call): one.values(K) for one in peers(schedule) if one.library not in known}


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize(("shape", "tables"), [("cosine", COSINE), ("linear", LINEAR)])
def test_every_formula_gives_what_the_library_gave(
    shape: str, tables: dict[tuple[str, str], tuple[list[float], list[float]]], floor: float
) -> None:
    found = curves(shape, 4, floor)
    assert list(found) == list(tables)
    for name, both in tables.items():
        np.testing.assert_allclose(
            found[name], both[FLOORS.index(floor)], rtol=0, atol=1e-9, err_msg=f"{name}, floor {floor}"
        )


@pytest.mark.parametrize(("shape", "library", "call"), NO_WARMUP)
def test_without_a_warmup(shape: str, library: str, call: str) -> None:
    found = curves(shape, 0, 0.1)[library, call]
    np.testing.assert_allclose(found, NO_WARMUP[shape, library, call], rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_peak_and_floor_scale_together(shape: str) -> None:
    # t5x alone has a smallest value of its own, which floor 0.1 hides.
    for name, values in curves(shape, 4, 0.1 * 3e-4, 3e-4).items():
        np.testing.assert_allclose(
            values / 3e-4, curves(shape, 4, 0.1)[name], rtol=1e-12, atol=1e-15, err_msg=str(name)
        )
