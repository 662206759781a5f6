"""A skipped update leaves nothing behind; spikes are skipped or rewound; too many in a row end the run."""

import json
import math

import pytest
import torch

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.reporting.metrics import read_metrics
from recipes.training import loop
from recipes.training.feed import Feed
from recipes.training.spikes import TooManySkipped
from recipes.training.update import run_update
from tests.conftest import small_run
from tests.training.alone import train_alone
from tests.training.test_engine import TOO_SMALL, _weights, make_config, make_engine, micro_batches


@pytest.mark.parametrize("how", ["not finite", "refused"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_training_goes_on_as_if_the_batch_had_not_been_there(process_group, stage, precision, how):
    def weights_after(batches):
        engine, schedule = make_engine(make_config(stage, precision))
        lrs, k = [], 0
        for number in batches:
            if number is None:
                made, num_tokens = micro_batches(99)
                small = TOO_SMALL if how == "not finite" else 1.0
                update = run_update(engine, made, num_tokens * small, lambda loss_sum: how != "refused")
                assert not update.applied
                continue
            update = run_update(engine, *micro_batches(number))
            assert update.applied
            assert math.isfinite(update.grad_norm)
            lrs.append(update.lrs[0])
            assert update.lrs[0] == pytest.approx(schedule.lr(k), rel=1e-14, abs=1e-17)
            k += 1
        return _weights(engine), lrs

    plain, lrs = weights_after([0, 1, 2, 3])
    skipped, skipped_lrs = weights_after([None, 0, 1, None, None, 2, 3])
    assert skipped_lrs == lrs
    assert all(torch.equal(plain[name], skipped[name]) for name in plain)


class Faults:
    """Makes the global batches at chosen positions bad, in the real loop."""

    def __init__(self, monkeypatch, overflow=(), loss_times=None):
        self.overflow, self.loss_times, self.position = set(overflow), dict(loss_times or {}), None
        real_take, real_update = Feed.take, loop.run_update

        def update(engine, batches, target_tokens, accept, label_smoothing):
            factor = self.loss_times.get(self.position, 1.0)
            tokens = target_tokens * TOO_SMALL if self.position in self.overflow else target_tokens
            return real_update(engine, batches, tokens, lambda loss_sum: accept(loss_sum * factor), label_smoothing)

        def take(feed, position):
            self.position = position
            return real_take(feed, position)

        monkeypatch.setattr(loop, "run_update", update)
        monkeypatch.setattr(Feed, "take", take)


def run(pairs, folder, *overrides):
    said = []
    arguments = small_run(pairs, folder, "scaling.num_workers=1", "schedule.total_steps=12", *overrides)
    config = load_config(arguments[0], arguments[1:])
    job, _, _ = prepare(config, said.append, started_at=0.0)
    summary, more = train_alone(job)
    return summary, said + more, job


def test_a_batch_that_overflows_is_left_out(process_group, pairs, tmp_path, monkeypatch):
    Faults(monkeypatch, overflow=[2, 3, 9])
    summary, said, job = run(pairs, tmp_path / "runs")
    assert (summary["updates"], summary["skipped_batches"]) == (12, 3)
    metrics = read_metrics(job.run_folder)
    assert [(line["step"], line["skipped_batch"]) for line in metrics.skips] == [(2, 2), (2, 3), (7, 9)]
    assert [line["step"] for line in metrics.train] == list(range(1, 13))
    assert [line["skipped"] for line in metrics.train] == [0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    for line in metrics.train:
        assert line["lr"] == pytest.approx(job.schedule.lr(line["step"] - 1), rel=1e-14, abs=1e-17)
    assert "update 3 skipped with batch 2 left out: gradient norm is" in "\n".join(said)


def test_too_many_in_a_row_stop_the_run_and_name_the_examples(process_group, pairs, tmp_path, monkeypatch):
    Faults(monkeypatch, overflow=[1, 3, 4, 5])
    with pytest.raises(TooManySkipped) as caught:
        run(pairs, tmp_path / "runs", "training.max_skipped_updates=2")
    text = str(caught.value)
    assert text.startswith("update 3: 3 batches in a row were skipped, more than training.max_skipped_updates 2")
    assert text.count("pairs.jsonl") == 16


SPIKES = ("training.spike_window_steps=3", "training.spike_ratio=3")


def test_a_spike_is_skipped(process_group, pairs, tmp_path, monkeypatch):
    Faults(monkeypatch, loss_times={1: 50.0, 6: 50.0, 7: math.nan})
    summary, said, job = run(pairs, tmp_path / "runs", "training.on_spike=skip", *SPIKES)
    # Batch 1 comes before the window is full.
    assert summary["skipped_batches"] == 2
    assert [line["skipped_batch"] for line in read_metrics(job.run_folder).skips] == [6, 7]
    assert any("batch 6 left out: loss" in text and "is a spike" in text for text in said)


def test_a_spike_is_ignored_unless_asked_for(process_group, pairs, tmp_path, monkeypatch):
    Faults(monkeypatch, loss_times={6: 50.0})
    summary, _, _ = run(pairs, tmp_path / "runs", *SPIKES)
    assert summary["skipped_batches"] == 0


def test_a_spike_rewinds_to_the_checkpoint_and_jumps_over_the_data(process_group, pairs, tmp_path, monkeypatch):
    """After it the run is that of a checkpoint at 4 updates followed by batches 7, 8, ..."""
    Faults(monkeypatch, loss_times={6: 50.0})
    summary, said, job = run(pairs, tmp_path / "runs", "training.on_spike=rewind", *SPIKES)
    assert (summary["updates"], summary["skipped_batches"]) == (12, 3)
    metrics = read_metrics(job.run_folder)
    (rewind,) = metrics.skips
    assert (rewind["step"], rewind["rewound_from"], rewind["next_batch"]) == (4, 6, 7)
    assert [line["step"] for line in metrics.train] == list(range(1, 13)), "no line twice, none missing"
    assert [line["skipped"] for line in metrics.train] == [0] * 4 + [3] * 8
    assert any(text.startswith("rewound from update 6 to 4, batches up to 6 left out: loss") for text in said)
    assert json.loads(job.run_folder.read_text("summary.json"))["state"] == "finished"


def test_without_a_checkpoint_a_rewind_is_a_skip(process_group, pairs, tmp_path, monkeypatch):
    Faults(monkeypatch, loss_times={3: 50.0})
    summary, said, _ = run(pairs, tmp_path / "runs", "training.on_spike=rewind", *SPIKES)
    assert summary["skipped_batches"] == 1
    assert any("is a spike and there is no checkpoint yet" in text for text in said)
