"""A run's numbers in a real MLflow store and in W&B's files, as the launcher sends them."""

import dataclasses
import json
import math
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from recipes.config_file import load_config
from recipes.errors import UserError
from recipes.launching.environment import environment_json
from recipes.launching.followers import Followers
from recipes.launching.preflight import prepare, write_description
from recipes.reporting.metrics import MetricsWriter
from recipes.storage import Storage
from recipes.tracking.mlflow_tracker import MlflowTracker
from recipes.tracking.pump import Pump
from recipes.tracking.tracker import Memory
from recipes.tracking.trackers import mlflow_place
from recipes.training.manifest import Manifest, folder_name
from tests.conftest import small_run
from tests.tracking.read_back import mlflow_points, mlflow_run, points_of, wandb_points, wandb_records


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for all: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def mlflow(store, request):
    """Overrides for a run in an experiment of the test's own."""
    return [
        "report.to=[mlflow]",
        f"report.mlflow.tracking_uri={store}",
        f"report.mlflow.experiment={request.node.name}",
    ]


@pytest.fixture
def made(pairs, tmp_path):
    def make(*overrides):
        config = load_config(*_split(small_run(pairs, tmp_path / "runs", "report.every_s=0", *overrides)))
        job, _, _ = prepare(config, lambda text: None, started_at=time.time())
        write_description(job, environment_json())
        return job

    return make


@pytest.fixture
def plain_page(monkeypatch):
    """The last page without its pictures, which take longer than all that is tested here."""

    def write(folder, why):
        folder.write_text("report.html", why)

    monkeypatch.setattr("recipes.launching.followers.write_report", write)


def _split(arguments):
    return arguments[0], arguments[1:]


class Command:
    """One command's part of a run: what rank 0 writes, and what the launcher hears of it."""

    def __init__(self, job, step=0):
        self.job, self.said = job, []
        self.followers = Followers(job, self.said.append)
        self._begin(step)
        self.followers.hear({"started": step})

    def _begin(self, step):
        self.writer = MetricsWriter(self.job.run_folder, step, tensorboard=False)

    def write(self, record):
        self.writer.write(record)
        self.followers.hear({"metrics": record})

    def train(self, first, last, shift=0.0):
        for step in range(first, last + 1):
            self.write({"step": step, "loss": 5 - step / 10 + shift, "lr": 1e-3, "tokens": step, "tokens_per_s": 9.5})
            if step % 4 == 0:
                self.write({"step": step, "eval_loss": 4.5 + shift, "eval_loss/de": 4.0 + step, "eval_s": 1.0})

    def rewind(self, step, last):
        self.writer.close()
        self._begin(step)
        self.write({"step": step, "rewound_from": last, "next_batch": last + 1, "reason": "spike"})

    def end(self, exit_code, why=""):
        self.writer.close()
        self.followers.end(exit_code, why)


def points_in_mlflow(job):
    options = job.config.report.mlflow
    return mlflow_points(options.tracking_uri, "small", options.experiment)


def test_mlflow_has_settings_numbers_files_and_the_end(made, mlflow, store):
    job = made(*mlflow)
    job = dataclasses.replace(job, config=job.config.model_copy(update={"data": _with_secret(job.config.data)}))
    command = Command(job)
    command.train(1, 8)
    command.write({"step": 9, "loss": math.nan, "lr": 1e-3})
    command.end(0)
    client, run = mlflow_run(store, "small", job.config.report.mlflow.experiment)
    assert (command.said, run.info.status) == ([], "FINISHED")
    assert {"train/loss", "eval/loss", "eval/loss/de", "train/lr", "train/tokens_per_s"} <= set(run.data.metrics)
    history = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "train/loss")]
    assert history == points_of(job.run_folder.local)["train/loss"][:8] == [(k, 5 - k / 10) for k in range(1, 9)]
    assert run.data.params["schedule.peak_lr"] == "0.01"
    assert run.data.params["data.source"] == "s3://…@bucket/x"
    environment = json.loads(job.run_folder.read_text("environment.json"))
    assert run.data.tags["packages.torch"] == environment["packages"]["torch"]
    assert run.data.tags.get("mlflow.source.git.commit") == environment["git_commit"]
    artifacts = Path(store.removeprefix("sqlite:///")).parent / "artifacts" / run.info.run_id / "artifacts"
    assert sorted(path.name for path in artifacts.iterdir()) == ["config.yaml", "report.html"]
    assert "Not finished" in (artifacts / "report.html").read_text()


def _with_secret(data):
    return data.model_copy(update={"source": "s3://key:secret@bucket/x"})


@pytest.mark.usefixtures("plain_page")
def test_mlflow_goes_on_with_a_killed_run_and_has_no_point_twice(made, mlflow):
    job = made(*mlflow, "run.resume=auto")
    command = Command(job)
    command.train(1, 7)
    command.end(143, "stopped by SIGTERM")
    assert points_in_mlflow(job)[1] == "KILLED"
    again = Command(job, step=4)
    again.train(5, 10)
    again.end(0)
    assert points_in_mlflow(job) == (points_of(job.run_folder.local), "FINISHED")


@pytest.mark.usefixtures("plain_page")
def test_a_tracker_asked_for_on_resume_gets_the_whole_run(made, mlflow):
    command = Command(made("report.to=[]"))
    command.train(1, 7)
    command.end(1, "a fault")
    job = made(*mlflow, "run.resume=auto")
    again = Command(job, step=4)
    again.train(5, 6)
    again.end(1, "a fault")
    assert points_in_mlflow(job) == (points_of(job.run_folder.local), "FAILED")


@pytest.mark.usefixtures("plain_page")
def test_a_rewind_leaves_nothing_of_what_it_took_back(made, mlflow, monkeypatch):
    monkeypatch.setattr("recipes.tracking.pump._EVERY_S", 0.05)
    job = made(*mlflow, "training.on_spike=rewind")
    command = Command(job)
    command.train(1, 4)
    manifest = Manifest(step=4, world_size=1, zero_stage=0, schedule_fingerprint="x", files={})
    job.run_folder.write_text(f"{folder_name(4)}/manifest.json", manifest.to_json())
    command.train(5, 7, shift=50.0)
    (pump,) = command.followers._pumps
    end = time.monotonic() + 30
    while pump._memory.sent.get("train/loss") != 4 or not pump._inbox.empty():
        assert time.monotonic() < end, "the safe points were not sent"
        time.sleep(0.02)
    command.rewind(4, 7)
    command.train(5, 8)
    command.end(0)
    expected = points_of(job.run_folder.local)
    assert expected["train/loss"][6] == (7, 4.3)
    assert points_in_mlflow(job) == (expected, "FINISHED")


@pytest.mark.usefixtures("plain_page")
def test_wandb_offline_has_the_run_and_its_resume_and_leaves_no_process(made, monkeypatch, tmp_path):
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    job = made("report.to=[wandb]", "run.resume=auto")
    command = Command(job)
    command.train(1, 7)
    command.end(130, "stopped by SIGINT")
    again = Command(job, step=4)
    again.train(5, 10)
    again.end(0)
    folder = job.run_folder.local / "wandb"
    assert wandb_points(folder) == (points_of(job.run_folder.local), ["killed", "finished"])
    (first, _) = wandb_records(folder)
    (run,) = [record.run for record in first if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name) == ("t5-on-ray", "small")
    assert config["schedule"]["peak_lr"] == 0.01
    assert f"torch {config['environment']['packages']['torch']}" in run.tags
    for part in folder.glob("offline-run-*"):
        assert {path.name for path in (part / "files").iterdir()} == {"config.yaml", "report.html"}
    assert not [each for each in psutil.Process().children(recursive=True) if "wandb" in each.name()]


def refused():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("plain_page")
def test_a_server_that_is_gone_costs_one_line(made, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    command = Command(made("report.to=[mlflow]", f"report.mlflow.tracking_uri={refused()}"))
    began = time.monotonic()
    command.train(1, 100)
    assert time.monotonic() - began < 1.0
    command.end(0)
    (line,) = command.said
    assert line.startswith("mlflow failed (")
    assert line.endswith("; training goes on without it")
    assert command.job.run_folder.exists("report.html")


def test_a_server_that_does_not_answer_is_not_waited_for(made):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        job, said = made(), []
        options = {"artifacts": None, "experiment": "e", "name": "n", "config": {}, "environment": {}}
        memory = Memory(job.run_folder, "mlflow")
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pump = Pump(memory, lambda: MlflowTracker(memory, uri=uri, **options), said.append, finish_s=0.5)
        pump.hear({"started": 0})
        began = time.monotonic()
        pump.finish("finished", {})
        assert time.monotonic() - began < 2.0
        assert said == ["mlflow has not answered for 0.5 s: the end of the run is not in it"]
    for thread in threading.enumerate():
        if thread.name == "to mlflow":
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["report.to=[mlfow]"], "report.to is ['mlfow']: unknown 'mlfow', did you mean 'mlflow'?"),
        (["report.to=[wandb,wandb]"], "report.to is ['wandb', 'wandb']: wandb given twice"),
        (["report.wandb.project=p"], "report: wandb has no effect: add wandb to report.to"),
        (
            ["report.to=[mlflow]", "report.mlflow.tracking_uri=file:///x"],
            "report.mlflow.tracking_uri is file:///x: MLflow 3 takes a server (http://, https://) or a database",
        ),
        (
            ["report.to=[wandb]", "report.wandb.mode=online"],
            "report.wandb.mode is online, but there is no key for api.wandb.ai: set WANDB_API_KEY",
        ),
    ],
)
def test_what_cannot_begin_is_refused_before_the_run(made, capsys, monkeypatch, tmp_path, overrides, words):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refusal(made, *overrides).removeprefix(f"{tmp_path}/runs/small.yaml: ").startswith(words)


def refusal(made, *overrides):
    with pytest.raises(UserError) as caught:
        made(*overrides)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_key_from_netrc_is_found(made, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wandb.example.org login user password x\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    made("report.to=[wandb]", "report.wandb.mode=online")


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(made, monkeypatch, name):
    monkeypatch.setattr("recipes.tracking.trackers.find_spec", lambda package: None)
    expected = f"report.to has {name}, which is not installed: pip install -c requirements.lock '.[{name}]'"
    assert refusal(made, f"report.to=[{name}]") == expected


def test_without_tensorboard_there_are_no_event_files(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0, tensorboard=False) as writer:
        writer.write({"step": 1, "loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_mlflows_own_place_is_beside_the_runs(made, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = made("report.to=[mlflow]").config
    folder = tmp_path / "runs" / "mlflow"
    assert mlflow_place(config) == (f"sqlite:///{folder}/mlflow.db", f"file://{folder}/artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert mlflow_place(config) == ("https://mlflow.example.org", None)


def test_a_broken_memory_is_named(made):
    job = made("report.to=[wandb]")
    job.run_folder.write_text("trackers/wandb.json", '{"where": ')
    with pytest.raises(UserError, match=r"trackers/wandb.json is not what this command writes: remove it"):
        Followers(job, print)
