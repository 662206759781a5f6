"""Pictures: the curve stands where its numbers say."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from schedule_cases import DECAYS, make

from lrsched import ScheduleError
from lrsched.plot import save_png, text_plot


def _dots(text: str, height: int) -> np.ndarray:
    """The drawn dots as a picture, one row per dot line."""
    lines = [line.split("┤", 1)[1] for line in text.splitlines()[: height - 2]]
    picture = np.zeros((4 * len(lines), 2 * len(lines[0])), bool)
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            bits = ord(character) - 0x2800
            for y, pair in enumerate(((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))):
                for x, bit in enumerate(pair):
                    picture[4 * row + y, 2 * column + x] = bool(bits & bit)
    return picture


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(("width", "height"), [(80, 20), (30, 6), (121, 33)])
def test_every_update_is_drawn_at_its_height(decay: str, width: int, height: int) -> None:
    schedule = make(decay)
    text = text_plot(schedule, width, height)
    assert [len(line) for line in text.splitlines()] == [width] * height
    picture = _dots(text, height)
    rows, columns = picture.shape
    for k in range(50):
        x = round(k * (columns - 1) / 49)
        y = (1 - schedule.lr(k) / 1e-3) * (rows - 1)
        assert picture[max(0, round(y) - 1) : round(y) + 2, x].any(), f"k={k}"
    assert picture.any(axis=0).all(), "no gap"


def test_a_known_picture() -> None:
    schedule = make({"shape": "step", "step_size": 4, "gamma": 0.5}, peak_lr=1.0, total_steps=8, warmup=0)
    picture = _dots(text_plot(schedule, 31, 7), 7)
    assert picture.shape == (20, 40)
    assert picture[0, :22].all()
    assert not picture[0, 24:].any()
    # Half the peak stands half-way down.
    assert picture[[9, 10]].any(axis=0)[24:].all()
    assert not picture[12:].any()


def test_labels() -> None:
    lines = text_plot(make("cosine", peak_lr=0.002)).splitlines()
    assert lines[0].startswith("     0.002┤")
    assert lines[9].startswith("     0.001┤")
    assert lines[17].startswith("         0┤")
    assert lines[19].endswith("update k=49")


def test_several_curves_are_lettered() -> None:
    text = text_plot({"short one": make("cosine"), "long one": make("step", total_steps=90)})
    lines = text.splitlines()
    assert lines[20:] == ["a: short one", "b: long one"]
    assert lines[19].endswith("update k=89")
    drawn = "".join(lines[:18])
    assert drawn.count("a") >= 3
    assert drawn.count("b") >= 3
    last_a = max(line.rfind("a") for line in lines[:18])
    assert last_a < 11 + 69 * 50 / 90 + 1, "the short run ends where it ends"


@pytest.mark.parametrize("shape", ["deepspeed.LRRangeTest", "torch.ExponentialLR"])
def test_a_dialect_may_go_above_its_peak(shape: str, tmp_path: Path) -> None:
    more = {"gamma": 1.1} if shape == "torch.ExponentialLR" else {}
    schedule = make({"shape": shape, **more}, warmup=0)
    top = float(schedule.lr(49))
    assert top > schedule.peak_lr
    assert text_plot(schedule).startswith(f"{top:.4g}".rjust(10))
    save_png(schedule, tmp_path / "above.png")


def test_a_png_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"x\.jpg is not a \.png file"):
        save_png(make("cosine"), tmp_path / "x.jpg")


def test_one_update_can_be_drawn(tmp_path: Path) -> None:
    schedule = make(total_steps=1, warmup=0)
    assert text_plot(schedule).count("\n") == 19
    save_png(schedule, tmp_path / "one.png")


@pytest.mark.parametrize(("width", "height"), [(29, 20), (80, 5)])
def test_too_small(width: int, height: int) -> None:
    with pytest.raises(ScheduleError, match="is too small a plot; at least 30 x 6"):
        text_plot(make("cosine"), width, height)


def test_nothing_to_plot() -> None:
    with pytest.raises(ScheduleError, match="no schedule to plot; give at least one"):
        text_plot([])


def test_png_shows_each_curve(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    save_png(make("cosine"), one)
    save_png([make("cosine"), make("step")], two)
    blue, orange = (31, 119, 180), (255, 127, 14)
    for path, colours in ((one, [blue]), (two, [blue, orange])):
        picture = (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(int)
        assert picture.shape == (540, 960, 3)
        for colour in (blue, orange):
            shown = (np.abs(picture - colour).max(axis=2) < 3).sum() > 200
            assert shown == (colour in colours)


def test_png_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"cannot write .*x\.png: No such file or directory"):
        save_png(make("cosine"), tmp_path / "none" / "x.png")
