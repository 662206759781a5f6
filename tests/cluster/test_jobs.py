"""`ray job submit` against a real head: what is uploaded, what comes back, stop, resume, the token."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import psutil
import pytest

from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.training.manifest import newest_manifest
from tests.conftest import small_run, write_pairs
from tests.launching.conftest import ray_head, wait_until
from tests.sweeping.small_sweep import small_sweep

CHECKOUT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.fixture(scope="module")
def head():
    with ray_head(2, "jobs") as environment:
        # A new head takes jobs some seconds after it says that it does.
        wait_until(lambda: "No available agent" not in submit(environment, ["recipes.train", "--help"])[0].stderr, 60)
        yield environment


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    write_pairs(folder / "pairs.jsonl")
    return folder


def submit(head, words, *options, timeout_s=300, before=()):
    """The command of the README; its result, and the id of the job. before: words in front of python."""
    arguments = ["job", "submit", "--address", head["JOBS_API"], "--runtime-env", "cluster/job.yaml", *options]
    environment = {key: value for key, value in head.items() if key != "RAY_ADDRESS"}
    result = subprocess.run(
        [*RAY, *arguments, "--working-dir", ".", "--", *before, "python", "-m", *words],
        cwd=CHECKOUT,
        env=environment | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    ids = re.findall(r"raysubmit_\w+", result.stdout + result.stderr)
    return result, ids[0] if ids else None


class Jobs:
    """The jobs API over HTTP: Ray's own client reads the token mode once per process."""

    def __init__(self, head):
        self._head = head

    def _ask(self, path, method="GET"):
        request = urllib.request.Request(f"{self._head['JOBS_API']}/api/jobs/{path}", method=method)
        request.add_header("Authorization", f"Bearer {self._head['RAY_AUTH_TOKEN']}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def exit_code(self, job):
        return self._ask(job)["driver_exit_code"]

    def is_over(self, job):
        return self._ask(job)["status"] in ("STOPPED", "SUCCEEDED", "FAILED")

    def logs(self, job):
        return self._ask(f"{job}/logs")["logs"]

    def stop(self, job):
        return self._ask(f"{job}/stop", "POST")["stopped"]


@pytest.fixture(scope="module")
def jobs(head):
    return Jobs(head)


def job_family(head):
    """Processes of jobs: all below the head but Ray's own."""
    found = []
    for process in psutil.Process(int(head["TEST_HEAD_PID"])).children(recursive=True):
        try:
            words = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "recipes." in words or "RayTrainWorker" in words or "TrainController" in words:
            found.append(words)
    return found


def test_only_what_a_run_needs_is_uploaded(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True
    )
    for name in tracked.stdout.splitlines():
        if (CHECKOUT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, checkout / name)
    for name in (".git/HEAD", ".venv/bin/python", "runs/mine/report.html", "build/x", "recipes/__pycache__/x.pyc"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    (checkout / "mine.yaml").write_text("run: {name: mine}")
    create_package(str(checkout), tmp_path / "package.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = [name for name in package.namelist() if not name.endswith("/")]
    parts = {name.split("/")[0] for name in names}
    assert parts >= {"recipes", "lrsched", "cluster", "pyproject.toml", "requirements.lock", "mine.yaml"}
    assert parts.isdisjoint({".git", ".venv", "runs", "build", "tests", "docs", "benchmarks", ".ruff_cache"})
    assert not [name for name in names if "__pycache__" in name or name.endswith(".png")]
    assert (tmp_path / "package.zip").stat().st_size < 2_000_000


def test_a_wrong_key_comes_back_as_one_line_and_exit_code_2(head, place, jobs):
    words = small_run(place / "pairs.jsonl", place / "runs", "training.examples_per_updat=3")
    result, job = submit(head, ["recipes.train", *words])
    assert result.returncode == 1  # Ray's command knows 0 and 1 only
    assert jobs.exit_code(job) == 2
    lines = jobs.logs(job).splitlines()
    assert lines[-1].endswith("unknown key 'training.examples_per_updat', did you mean 'training.examples_per_update'?")
    assert lines[-1] in result.stdout
    assert "Traceback" not in result.stdout


def test_a_relative_storage_path_is_refused(head, place, jobs):
    words = small_run(place / "pairs.jsonl", place / "runs", "run.storage_path=runs")
    _, job = submit(head, ["recipes.train", *words])
    assert jobs.exit_code(job) == 2
    assert "run.storage_path runs: in a Ray job a relative path lies in the job's own copy" in jobs.logs(job)


def test_a_stopped_job_leaves_a_checkpoint_and_no_process_and_goes_on(head, place, jobs):
    words = small_run(
        place / "pairs.jsonl",
        place / "runs",
        *("run.name=stopped", "run.resume=auto", "schedule.total_steps=150", "checkpoint.every_steps=1000"),
        "training.eval_every_steps=150",
    )
    folder = place / "runs" / "stopped"
    _, job = submit(head, ["recipes.train", *words], "--no-wait")
    metrics = folder / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 5, 120)
    assert jobs.stop(job)
    wait_until(lambda: jobs.is_over(job), 100)
    logs = jobs.logs(job)
    assert f"stopped; the same command with run.resume=auto goes on from the last checkpoint in {folder}" in logs
    assert "would kill this command" not in logs
    manifest = newest_manifest(Storage(folder))
    assert 5 <= manifest.step < 150
    assert manifest.step == max(json.loads(line)["step"] for line in metrics.read_text().splitlines())
    wait_until(lambda: job_family(head) == [], 60)
    made_with = json.loads((folder / "environment.json").read_text())
    assert made_with["job_package"].startswith("_ray_pkg_")
    assert made_with["git_commit"] is None
    result, job = submit(head, ["recipes.train", *words], before=["env", "GIT_COMMIT=0123abcd"])
    assert result.returncode == 0, result.stdout
    again = json.loads((folder / "environment.json").read_text())
    assert (again["git_commit"], again["job_package"]) == ("0123abcd", made_with["job_package"])
    assert f"resumed at update {manifest.step} of 150 on 2 workers" in jobs.logs(job)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, 151))


@pytest.mark.slow
def test_a_worker_that_fails_is_one_line_with_its_log(head, place, jobs):
    words = small_run(
        place / "pairs.jsonl",
        place / "runs",
        "run.name=killed",
        "schedule.total_steps=2000",
        "training.eval_every_steps=2000",
    )
    _, job = submit(head, ["recipes.train", *words], "--no-wait")
    metrics = place / "runs" / "killed" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2, 120)
    family = psutil.Process(int(head["TEST_HEAD_PID"])).children(recursive=True)
    workers = [each for each in family if "RayTrainWorker" in " ".join(each.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)
    wait_until(lambda: jobs.is_over(job), 100)
    assert jobs.exit_code(job) == 1
    last = jobs.logs(job).splitlines()[-1]
    assert re.fullmatch(
        r"worker [01] died without an error of its own: killed, or out of memory \(logs: \S+/killed/logs\)", last
    )


@pytest.mark.slow
def test_a_sweep_as_a_job_is_stopped_and_goes_on(head, place, jobs):
    words = small_sweep(
        place / "pairs.jsonl",
        place / "runs",
        *("sweep.num_trials=4", "final.top_k=1", "scheduler.rule=promote", "base.schedule.total_steps=60"),
        "base.training.eval_every_steps=60",
    )
    folder = place / "runs" / "small"
    _, job = submit(head, ["recipes.sweep", *words], "--no-wait")
    wait_until(lambda: list(folder.glob("trials/*/metrics.jsonl")) or jobs.is_over(job), 120)
    assert jobs.stop(job)
    wait_until(lambda: jobs.is_over(job), 100)
    assert "stopped; the same command with sweep.resume=auto goes on with" in jobs.logs(job)
    wait_until(lambda: job_family(head) == [], 60)
    assert not all(run.ended_for_good for run in Ledger(Storage(folder)).trials())
    result, job = submit(head, ["recipes.sweep", *words])
    assert result.returncode == 0, result.stdout
    trials = Ledger(Storage(folder)).trials()
    assert len(trials) == 4
    assert all(run.ended_for_good for run in trials)
    assert "winner: trial " in jobs.logs(job)
    assert jobs.exit_code(job) == 0


def test_without_the_token_nothing_is_taken(head, place):
    for token in (None, "0" * 64):
        environment = {key: value for key, value in head.items() if key != "RAY_AUTH_TOKEN"}
        environment |= {"RAY_AUTH_TOKEN": token} if token else {"HOME": str(place)}
        result, job = submit(environment, ["recipes.train", "--help"], timeout_s=60)
        assert result.returncode == 1
        assert job is None
        assert "token" in (result.stdout + result.stderr).lower()
