"""training.label_smoothing in a whole run: in the training loss, not in the held-out one."""

import pytest
import torch
import torch.nn.functional as F

from recipes.config_file import load_config
from recipes.data.batches import pad
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.reporting.metrics import read_metrics
from recipes.storage import Storage
from recipes.training.export import load_export
from recipes.training.model import build_model
from recipes.training.update import target_logits
from tests.conftest import small_run
from tests.training.alone import train_alone


def mean_loss(model, split, examples, pad_id, **smoothing):
    batch = pad(split, examples, pad_id)
    with torch.no_grad():
        logits = target_logits(model, batch).flatten(0, 1)
    return float(F.cross_entropy(logits, batch.labels.flatten(), **smoothing))


def test_it_is_in_the_training_loss_alone(process_group, pairs, tmp_path):
    arguments = small_run(
        pairs, tmp_path, "scaling.num_workers=1", "model.shape.dropout_rate=0", "training.label_smoothing=0.2"
    )
    job, _, _ = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)
    summary, _ = train_alone(job)
    data = open_data(job.data_folder)
    first = batch_plan(job.config, data.train, 1).examples(0)
    model = build_model(job.config.model, data.vocab_size, job.config.run.seed)
    trained = read_metrics(job.run_folder).train
    assert trained[0]["loss"] == pytest.approx(
        mean_loss(model, data.train, first, data.pad_id, label_smoothing=0.2), rel=1e-5
    )
    assert trained[0]["loss"] != pytest.approx(mean_loss(model, data.train, first, data.pad_id), rel=1e-3)
    exported = load_export(Storage(tmp_path / "small"))
    held_out = mean_loss(exported, data.held_out, range(len(data.held_out)), data.pad_id)
    assert summary["evaluation"]["eval_loss"] == pytest.approx(held_out, rel=1e-5)
