import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.reporting.metrics import MetricsWriter
from recipes.storage import Storage


def train_line(step, **changes):
    return {"step": step, "loss": 5.0 - step / 10, "lr": 1e-3 * step, "grad_norm": 0.5} | changes


def points(folder):
    """Scalar name -> [(step, value), ...], as TensorBoard shows them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def event_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_scalars_by_step(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write(train_line(10, tokens_per_s=1000.0))
        writer.write({"step": 10, "eval_loss": 4.25, "eval_tokens": 99})
        writer.write({"step": 20, "loss": 2, "grad_norm": math.nan})
        seen_live = points(tmp_path / "tensorboard")
    assert repr(seen_live) == repr(points(tmp_path / "tensorboard"))
    assert seen_live.pop("train/grad_norm") == [(10, 0.5), (20, pytest.approx(math.nan, nan_ok=True))]
    assert seen_live == {
        "train/loss": [(10, 4.0), (20, 2.0)],
        "train/lr": [(10, pytest.approx(0.01))],
        "train/tokens_per_s": [(10, 1000.0)],
        "eval/loss": [(10, 4.25)],
    }


@pytest.mark.parametrize("on_disk", [True, False])
def test_resume_shows_no_step_twice_and_keeps_times(tmp_path, object_store, on_disk):
    run = Storage(tmp_path) if on_disk else object_store
    folder = tmp_path / "tensorboard"
    with MetricsWriter(run, 0) as writer:
        for step in range(1, 31):
            writer.write(train_line(step))
    (first,) = event_files(folder)
    reader = EventAccumulator(str(folder))
    reader.Reload()
    times = [e.wall_time for e in reader.Scalars("train/loss")]
    for _ in range(2):  # the second resume starts from the files of the first
        with MetricsWriter(run, 20) as writer:
            for step in range(21, 41):
                writer.write(train_line(step, loss=1.0))
        (second,) = event_files(folder)
        assert second > first
    shown = points(folder)["train/loss"]
    assert [step for step, _ in shown] == list(range(1, 41))
    assert [value for _, value in shown[18:22]] == pytest.approx([3.1, 3.0, 1.0, 1.0])
    reader = EventAccumulator(str(folder))
    reader.Reload()
    assert [e.wall_time for e in reader.Scalars("train/loss")][:20] == times[:20]


def test_a_crash_between_new_file_and_removal_of_the_old_one_shows_no_step_twice(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        for step in range(1, 6):
            writer.write(train_line(step))
    (first,) = event_files(tmp_path / "tensorboard")
    old = (tmp_path / "tensorboard" / first).read_bytes()
    with MetricsWriter(Storage(tmp_path), 3) as writer:
        writer.write(train_line(4, loss=1.0))
    (tmp_path / "tensorboard" / first).write_bytes(old)
    assert [step for step, _ in points(tmp_path / "tensorboard")["train/loss"]] == [1, 2, 3, 4]
    MetricsWriter(Storage(tmp_path), 4).close()
    assert len(event_files(tmp_path / "tensorboard")) == 1
    assert points(tmp_path / "tensorboard")["train/loss"][-1] == (4, 1.0)


@pytest.mark.parametrize("cut", [1, 3, 20, 60])
def test_a_cut_event_file_keeps_its_whole_points(tmp_path, cut):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write(train_line(1))
        writer.write(train_line(2))
    (name,) = event_files(tmp_path / "tensorboard")
    path = tmp_path / "tensorboard" / name
    path.write_bytes(path.read_bytes()[:-cut])
    MetricsWriter(Storage(tmp_path), 2).close()
    assert points(tmp_path / "tensorboard")["train/loss"] == [(1, pytest.approx(4.9))]


def test_a_damaged_event_ends_what_is_kept(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write(train_line(1))
        writer.write(train_line(2))
    (name,) = event_files(tmp_path / "tensorboard")
    path = tmp_path / "tensorboard" / name
    content = bytearray(path.read_bytes())
    content[-10] ^= 0xFF
    path.write_bytes(content)
    MetricsWriter(Storage(tmp_path), 2).close()
    assert points(tmp_path / "tensorboard")["train/loss"] == [(1, pytest.approx(4.9))]
