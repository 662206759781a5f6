import json
import math

import numpy as np
import pytest
import torch

from recipes.errors import StorageError
from recipes.reporting.metrics import Metrics, MetricsWriter, read_metrics
from recipes.storage import Storage


def train_line(step, **changes):
    return {
        "step": step,
        "loss": 5.0 - step / 10,
        "lr": 1e-3 * step,
        "grad_norm": 0.5,
        "tokens": 100 * step,
    } | changes


def lines_of(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_lines_are_in_the_file_as_soon_as_they_are_written(tmp_path):
    writer = MetricsWriter(Storage(tmp_path / "run"), 0)
    writer.write(train_line(10))
    assert lines_of(tmp_path / "run/metrics.jsonl") == [train_line(10)]
    writer.write({"step": 10, "eval_loss": 4.25, "eval_tokens": 99, "eval_s": 0.5})
    metrics = read_metrics(Storage(tmp_path / "run"))
    assert metrics.train == [train_line(10)]
    assert metrics.eval == [{"step": 10, "eval_loss": 4.25, "eval_tokens": 99, "eval_s": 0.5}]
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(train_line(20))


def test_no_metrics_yet(tmp_path):
    assert read_metrics(Storage(tmp_path)) == Metrics([], [])


def test_non_finite_numbers_are_null(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write(train_line(1, loss=math.nan, grad_norm=math.inf, phases={"a": [-math.inf, 1.0]}))
    (line,) = lines_of(tmp_path / "metrics.jsonl")
    assert (line["loss"], line["grad_norm"], line["phases"]) == (None, None, {"a": [None, 1.0]})
    assert read_metrics(Storage(tmp_path)).train == [line]


def test_numbers_of_numpy_and_torch(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write(
            {
                "step": np.int64(3),
                "loss": torch.tensor(2.5),
                "lr": np.float32(0.5),
                "grad_norm": np.float64("nan"),
            }
        )
    assert lines_of(tmp_path / "metrics.jsonl") == [{"step": 3, "loss": 2.5, "lr": 0.5, "grad_norm": None}]


@pytest.mark.parametrize("record", [{"loss": 1.0}, {"step": 1.5, "loss": 1.0}, {"step": True}, {"step": None}])
def test_a_record_needs_a_step(tmp_path, record):
    with MetricsWriter(Storage(tmp_path), 0) as writer, pytest.raises(ValueError, match="integer step"):
        writer.write(record)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("on_disk", [True, False])
def test_resume_has_no_line_twice_and_none_missing(tmp_path, object_store, on_disk):
    run = Storage(tmp_path) if on_disk else object_store
    with MetricsWriter(run, 0) as writer:
        for step in range(1, 31):
            writer.write(train_line(step))
            if step % 10 == 0:
                writer.write({"step": step, "eval_loss": 5 - step / 20})
    with MetricsWriter(run, 20) as writer:
        assert [r["step"] for r in read_metrics(run).train] == list(range(1, 21))
        for step in range(21, 41):
            writer.write(train_line(step, loss=1.0))
            if step % 10 == 0:
                writer.write({"step": step, "eval_loss": 0.5})
    metrics = read_metrics(run)
    assert [r["step"] for r in metrics.train] == list(range(1, 41))
    assert [r["loss"] for r in metrics.train[18:22]] == pytest.approx([3.1, 3.0, 1.0, 1.0])
    assert [(r["step"], r["eval_loss"]) for r in metrics.eval] == [(10, 4.5), (20, 4.0), (30, 0.5), (40, 0.5)]


def test_starting_afresh_forgets_everything_even_a_broken_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('not json\n{"step": 3}\n')
    MetricsWriter(Storage(tmp_path), 0).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


HALF_LINES = [b'{"step": 3, "lo', b'{"step": 3, "loss": "\xc3', b"\x00\x00\x00", b"7", b'{"step": nul']


@pytest.mark.parametrize("tail", HALF_LINES)
def test_a_half_written_last_line_is_dropped(tmp_path, tail):
    whole = b'{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + tail)
    assert [r["step"] for r in read_metrics(Storage(tmp_path)).train] == [1, 2]
    with MetricsWriter(Storage(tmp_path), 5) as writer:
        assert (tmp_path / "metrics.jsonl").read_bytes() == whole
        writer.write({"step": 3, "loss": 1.0})
    assert [r["step"] for r in read_metrics(Storage(tmp_path)).train] == [1, 2, 3]


def test_a_last_line_that_lacks_only_its_line_break_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}')
    with MetricsWriter(Storage(tmp_path), 2) as writer:
        writer.write({"step": 3, "loss": 1.0})
    assert [r["step"] for r in read_metrics(Storage(tmp_path)).train] == [1, 2, 3]


@pytest.mark.parametrize("bad", ["oops", "", "[1]", '{"loss": 1.0}'])
def test_any_other_broken_line_is_an_error_that_names_it(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{bad}\n{{"step": 3}}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl line 2"):
        read_metrics(Storage(tmp_path))
    with pytest.raises(StorageError, match=r"metrics\.jsonl line 2"):
        MetricsWriter(Storage(tmp_path), 3)


def test_a_writer_of_an_earlier_attempt_cannot_touch_the_resumed_file(tmp_path):
    run = Storage(tmp_path)
    zombie = MetricsWriter(run, 0)
    zombie.write(train_line(1))
    with MetricsWriter(run, 1) as writer:
        zombie.write(train_line(2, loss=99.0))
        writer.write(train_line(2))
        zombie.close()
    assert read_metrics(run).train == [train_line(1), train_line(2)]


def test_an_object_store_gets_whole_files_at_flush(object_store):
    run = object_store
    writer = MetricsWriter(run, 0)
    writer.write(train_line(1))
    assert read_metrics(run).train == []
    writer.flush()
    assert read_metrics(run).train == [train_line(1)]
    writer.write(train_line(2))
    writer.close()
    assert read_metrics(run).train == [train_line(1), train_line(2)]
