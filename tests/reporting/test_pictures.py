import io
import math
import struct

import numpy as np
import pytest
from PIL import Image

from lrsched import Schedule
from recipes.reporting.metrics import Metrics
from recipes.reporting.pictures import DARK_COLOURS, Look, _some_steps, draw_loss, draw_schedule, short

COSINE = {"peak_lr": 1e-3, "warmup": {"steps": 50}, "decay": {"shape": "cosine", "eta_min": 1e-5}}


def size_of(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def num_pixels_like(png, colour, tolerance=12):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(pixels(png) - wanted).max(axis=2) <= tolerance).sum())


def metrics_of(num_lines, every=10):
    steps = range(every, num_lines * every + 1, every)
    train = [{"step": s, "loss": 2 + 6 * math.exp(-s / 200)} for s in steps]
    held_out = [{"step": s, "eval_loss": 2.1 + 6 * math.exp(-s / 200)} for s in steps if s % (10 * every) == 0]
    return Metrics(train, held_out)


def test_size_of_the_pictures():
    schedule = Schedule.from_dict(COSINE | {"total_steps": 500})
    assert size_of(draw_schedule(schedule, 500)) == (1800, 720)
    assert size_of(draw_loss(metrics_of(50), 5.0)) == (1800, 720)
    assert size_of(draw_loss(metrics_of(50), 5.0, Look(narrow=True))) == (720, 580)


def test_same_input_same_bytes():
    assert draw_loss(metrics_of(30), 5.0) == draw_loss(metrics_of(30), 5.0)


def test_loss_shows_training_held_out_and_unigram_in_their_colours():
    everything = draw_loss(metrics_of(50), 5.0)
    look = Look()
    assert min(num_pixels_like(everything, c) for c in (look.blue, look.orange, look.faint)) > 500
    only_training = draw_loss(Metrics(metrics_of(50).train, []), None)
    assert num_pixels_like(only_training, look.blue) > 500
    assert num_pixels_like(only_training, look.orange) == 0
    dark = draw_loss(metrics_of(50), 5.0, Look(**DARK_COLOURS))
    assert tuple(pixels(dark)[0, 0]) == (0x16, 0x18, 0x1D)


@pytest.mark.parametrize("unigram", [None, math.nan, 5.0])
@pytest.mark.parametrize(
    "metrics",
    [
        Metrics(),
        Metrics([{"step": 1, "loss": 3.0}], []),
        Metrics([{"step": 1, "loss": None}], [{"step": 1, "eval_loss": None}]),
        Metrics([{"step": s, "loss": None if s > 20 else 3.0} for s in range(1, 40)], []),
        Metrics([], [{"step": 7, "eval_loss": 3.0}]),
        Metrics([{"step": 1, "lr": 1e-3}], []),
    ],
)
def test_losses_of_runs_that_are_short_or_went_wrong(metrics, unigram):
    assert size_of(draw_loss(metrics, unigram, Look(narrow=True))) == (720, 580)


def test_one_wild_line_does_not_flatten_the_rest():
    calm = Metrics([{"step": s, "loss": 3.0 + math.sin(s)} for s in range(1, 1001)], [])
    wild = Metrics([*calm.train[:500], {"step": 501, "loss": 1e4}, *calm.train[501:]], [])

    def height_of_curve(png):
        rows = np.flatnonzero((abs(pixels(png) - [0x00, 0x72, 0xB2]).max(axis=2) <= 60).any(axis=1))
        return rows.max() - rows.min()

    assert height_of_curve(draw_loss(wild)) > 0.1 * height_of_curve(draw_loss(calm))


@pytest.mark.parametrize(
    "changes",
    [
        {"total_steps": 1, "warmup": None, "decay": None},
        {"total_steps": 3, "warmup": {"steps": 3}, "decay": None},
        {"total_steps": 100, "warmup": None, "decay": None},
        {"total_steps": 400, "decay": {"shape": "exponential", "gamma": 0.95}},
        {"total_steps": 1_000_000},
    ],
)
def test_schedules_of_many_shapes(changes):
    definition = {key: value for key, value in (COSINE | changes).items() if value is not None}
    schedule = Schedule.from_dict(definition)
    assert size_of(draw_schedule(schedule, schedule.total_steps, look=Look(narrow=True))) == (720, 580)


def test_a_long_run_is_drawn_from_few_points_but_with_its_exact_peak():
    asked = []

    class Spike:
        def lr(self, k):
            asked.append(np.size(k))
            return np.where(np.asarray(k) == 1_234_567, 1.0, 0.001 + 1e-9 * np.minimum(k, 1_234_567))

    steps = _some_steps(Spike(), 2_000_000)
    assert steps[0] == 0
    assert steps[-1] == 1_999_999
    assert 1_234_567 in steps
    assert sum(asked) < 50_000


def test_used_rates_are_circles():
    schedule = Schedule.from_dict(COSINE | {"total_steps": 500})
    used = [(k, schedule.lr(k)) for k in range(9, 500, 10)]
    assert num_pixels_like(draw_schedule(schedule, 500), Look().orange) == 0
    assert num_pixels_like(draw_schedule(schedule, 500, used), Look().orange) > 300


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1e-3, "1e-3"),
        (9.984e-4, "9.98e-4"),
        (0.02, "0.02"),
        (1e-5, "1e-5"),
        (1.5, "1.5"),
        (-1e-4, "-1e-4"),
    ],
)
def test_short(value, shown):
    assert short(value) == shown
