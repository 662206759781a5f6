"""A run's numbers on the endpoint that Prometheus scrapes of a real Ray node."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from recipes.reporting.metrics import read_metrics
from recipes.storage import Storage
from tests.cluster.test_grafana import asked_for
from tests.conftest import small_run, write_pairs
from tests.launching.conftest import ray_head

pytestmark = pytest.mark.slow
# What only a GPU has.
OF_GPUS = {"ray_t5_mfu", "ray_node_gpus_utilization", "ray_node_gram_used"}


@pytest.fixture(scope="module")
def cluster():
    """One that exports every 2 s: Ray's own 10 s are as long as a whole run here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "RAY_metrics_report_interval_ms", "2000")
        with ray_head(2) as environment:
            yield environment


def scrape(environment):
    """name -> {(labels): value} of the metrics that begin with ray_."""
    with urllib.request.urlopen(environment["METRICS"], timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^(ray_\w+)\{(.*)\} (\S+)$", text, re.M):
        found.setdefault(name, {})[tuple(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found


def of_run(found, name, run):
    """Value by the labels ``metric`` or none, of one run."""
    values = {}
    for labels, value in found.get(name, {}).items():
        labels = dict(labels)
        if labels.get("run") == run:
            assert labels["trial"] == ""
            values[labels.get("metric")] = value
    return values


@pytest.fixture(scope="module")
def running(cluster, tmp_path_factory):
    """(its folder, a scrape while it ran, the names in all scrapes)."""
    storage = tmp_path_factory.mktemp("metrics")
    pairs = write_pairs(storage / "pairs.jsonl")
    endless = ("schedule.total_steps=1000000", "checkpoint.every_steps=20", "training.log_every_steps=10")
    arguments = small_run(pairs, storage / "runs", *endless, "training.eval_every_steps=20", "scaling.num_workers=1")
    command = [sys.executable, "-m", "recipes.train", *arguments]
    process = subprocess.Popen(command, env=cluster, stderr=subprocess.PIPE, text=True)
    names, found = set(), {}
    try:
        end = time.monotonic() + 120
        # Ray's own gauges come and go when the export is that frequent.
        while not (asked_for() - OF_GPUS <= names and of_run(found, "ray_t5_eval_loss", "small")):
            assert time.monotonic() < end, f"not exported: {asked_for() - OF_GPUS - names}"
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.3)
            found = scrape(cluster)
            names |= set(found)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    return storage / "runs" / "small", found, names


def test_the_numbers_are_those_of_metrics_jsonl(running):
    folder, found, names = running
    metrics = read_metrics(Storage(folder))
    update = of_run(found, "ray_t5_update", "small")[None]
    gauges = {"loss": "t5_loss", "lr": "t5_lr", "tokens_per_s": "t5_tokens_per_s", "skipped": "t5_skipped_batches"}
    (line,) = [line for line in metrics.train if line["step"] == update]
    assert {name: of_run(found, f"ray_{name}", "small")[None] for name in gauges.values()} == {
        name: line[field] for field, name in gauges.items()
    }
    eval_loss = of_run(found, "ray_t5_eval_loss", "small")[None]
    (evaluation,) = [line for line in metrics.eval if line["eval_loss"] == eval_loss]
    # The one of this very update may just have been at work.
    assert update - 20 <= evaluation["step"] <= update
    assert of_run(found, "ray_t5_eval_metric", "small") == {
        name: evaluation[f"eval_{name}"] for name in ("token_accuracy", "perplexity")
    }
    stalls = [line["checkpoint_stall_s"] for line in metrics.train if line["step"] <= update]
    assert of_run(found, "ray_t5_checkpoint_stall_seconds_total", "small")[None] == pytest.approx(sum(stalls))
    # No CPU's peak is published.
    assert "ray_t5_mfu" not in names


def test_they_vanish_when_the_run_has_ended(running, cluster):
    end = time.monotonic() + 60
    while of_run(scrape(cluster), "ray_t5_loss", "small"):
        assert time.monotonic() < end, "a run that has ended is still there"
        time.sleep(1)
