"""train.sbatch with stand-ins for Slurm's srun: what it asks for, what it passes on, how it ends."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.alone import alone
from tests.cluster.files import CLUSTER, REPOSITORY
from tests.conftest import write_pairs

SCRIPT = CLUSTER / "slurm" / "train.sbatch"

# Writes down what it was asked, then does what symmetric-run does on the head: runs what stands after the "--".
SRUN = """#!{python}
import json, os, pathlib, subprocess, sys
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
pathlib.Path({asked!r}).write_text(json.dumps({{
    "arguments": sys.argv[1:],
    "mode": oct(token.stat().st_mode & 0o777),
    "token": token.read_text(),
    "env": dict(os.environ),
}}))
{body}
"""
RUNS = 'sys.exit(subprocess.run(sys.argv[sys.argv.index("--") + 1:]).returncode)'
# Stands where the project's Python is: the training program, and the one line that makes the token.
TRAINS = """#!/bin/bash
if [ "$1" = -c ]; then exec {python} "$@"; fi
{body}
"""


class Site:
    """A checkout folder, a storage folder, and a copy of the script whose site lines name them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.storage = folder / "runs"
        self.asked = folder / "asked.json"
        (folder / "bin").mkdir()
        self.script = folder / "train.sbatch"

    def write(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def prepare(self, *, srun: str = RUNS, trains: str = "exit 0", python: Path | None = None, gpus: int = 4) -> None:
        self.write("srun", SRUN.format(python=sys.executable, asked=str(self.asked), body=srun))
        python = python or self.write("python", TRAINS.format(python=sys.executable, body=trains))
        text = SCRIPT.read_text(encoding="utf-8")
        lines = {"gpus_per_node": gpus, "project": REPOSITORY, "python": python, "storage": self.storage}
        for name, value in lines.items():
            text, count = re.subn(rf"^{name}=\S*", f"{name}={value}", text, flags=re.MULTILINE)
            assert count == 1
        self.script.write_text(text, encoding="utf-8")

    def start(self, *arguments: str, **env: str) -> subprocess.Popen:
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "32"}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(self.script), *arguments],
            env={"PATH": path, "HOME": str(self.folder), **slurm, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        process = self.start(*arguments, **env)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def left_over(self) -> list[str]:
        return sorted(path.name for path in self.storage.glob(".*"))


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


def test_site_lines_are_at_the_top_and_agree():
    head, site_lines, program = re.split(r"^# -{3,}.*\n", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", site_lines, re.MULTILINE))
    assert "#SBATCH" not in head + program
    assert {"exclusive", "time", "output"} <= set(directives)
    assert directives["ntasks-per-node"] == "1"
    assert directives["gpus-per-node"] == re.search(r"^gpus_per_node=(\d+)", site_lines, re.MULTILINE)[1]
    # To the script alone (B:), with more time than the driver's last checkpoint gets (scaling.stop_grace_s, 60 s).
    assert re.fullmatch(r"B:TERM@\d+", directives["signal"])
    assert int(directives["signal"].split("@")[1]) >= 120


def test_what_is_asked_of_srun(site):
    site.prepare(trains='printf "%s\\n" "$@" > "$HOME/trained"')
    code, errors = site.run("recipes/configs/local.yaml", "run.name=first")
    assert code == 0, errors
    asked = json.loads(site.asked.read_text())
    arguments = asked["arguments"]
    ray = arguments.index("ray")
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=32"} <= set(arguments[:ray])
    assert arguments[ray : ray + 3] == ["ray", "symmetric-run", "--address"]
    address = arguments[ray + 3]
    host, port = address.split(":")
    assert host == subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()[0]
    assert port == str(20000 + 4711)
    assert arguments[ray + 4 : arguments.index("--")] == ["--min-nodes", "2", "--num-cpus=32", "--num-gpus=4"]
    assert f"RAY_ADDRESS={address}" in arguments
    trained = (site.folder / "trained").read_text().split("\n")[:-1]
    assert trained == [
        *("-u", "-m", "recipes.train", "recipes/configs/local.yaml"),
        *(f"run.storage_path={site.storage}", "run.resume=auto"),
        *("scaling.num_workers=8", "scaling.use_gpu=true", "run.name=first"),
    ]


def test_token_is_the_jobs_own_and_gone_afterwards(site):
    site.prepare()
    tokens = set()
    for job in ("1", "2"):
        assert site.run("c.yaml", SLURM_JOB_ID=job)[0] == 0
        asked = json.loads(site.asked.read_text())
        assert asked["env"]["RAY_AUTH_MODE"] == "token"
        assert asked["mode"] == oct(stat.S_IRUSR | stat.S_IWUSR)
        assert re.fullmatch(r"[0-9a-f]{64}", asked["token"])
        assert asked["token"] not in " ".join(asked["arguments"])
        tokens.add(asked["token"])
    assert len(tokens) == 2
    assert site.left_over() == []


def test_on_cpus_one_worker_per_node(site):
    site.prepare(gpus=0)
    assert site.run("c.yaml")[0] == 0
    arguments = json.loads(site.asked.read_text())["arguments"]
    assert {"scaling.num_workers=2", "scaling.use_gpu=false", "--num-gpus=0"} <= set(arguments)


@pytest.mark.parametrize("code", [1, 2, 143])
def test_the_trainings_exit_code_is_the_jobs(site, code):
    site.prepare(trains=f"exit {code}")
    assert site.run("c.yaml")[0] == code
    assert site.left_over() == []


def test_ray_that_never_started_is_a_failure(site):
    # symmetric-run ends with 0 when `ray start` fails.
    site.prepare(srun="sys.exit(0)")
    code, errors = site.run("c.yaml")
    assert code == 1
    assert errors.count("\n") == 1
    assert "training never started" in errors


def test_sigterm_reaches_the_training_alone_and_is_waited_for(site):
    # The stand-in for training writes its checkpoint for a second after the signal, as recipes.train does.
    trains = f"""exec {sys.executable} -c '
import pathlib, signal, sys, time
def stop(signum, frame):
    time.sleep(1)
    pathlib.Path("{site.folder}/checkpoint").write_text("whole")
    sys.exit(99)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("{site.folder}/ready").write_text("")
time.sleep(60)
'"""
    site.prepare(trains=trains)
    process = site.start("c.yaml")
    limit = time.monotonic() + 30
    while not (site.folder / "ready").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    # Not 143, which the script's own wait gives when the signal ends it early.
    assert process.wait(timeout=30) == 99
    assert (site.folder / "checkpoint").read_text() == "whole"
    process.communicate(timeout=30)
    assert site.left_over() == []


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ((), {}, "no config given"),
        (("c.yaml",), {"SLURM_JOB_ID": ""}, "not inside a Slurm job"),
    ],
)
def test_wrong_use_is_one_line(site, arguments, env, message):
    site.prepare()
    code, errors = site.run(*arguments, **env)
    assert code == 2
    assert errors.count("\n") == 1
    assert message in errors
    assert not site.asked.exists()


def test_a_missing_python_is_one_line(site):
    site.prepare(python=site.folder / "nowhere")
    code, errors = site.run("c.yaml")
    assert code == 2
    assert errors == f"train.sbatch: no Python at {site.folder}/nowhere: set python at the top of the script\n"


@pytest.mark.slow
def test_one_node_trains_under_rays_own_symmetric_run(site):
    """Ray, its token check and the training are real; srun is a stand-in that runs the task on this machine."""
    site.prepare(
        srun='tail = sys.argv[sys.argv.index("ray"):]\nsys.exit(subprocess.run(tail).returncode)',
        python=Path(sys.executable),
        gpus=0,
    )
    config = site.folder / "run.yaml"
    config.write_text(
        f"""
run: {{name: small, storage_path: {site.storage}, seed: 3}}
model: {{shape: {{d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4}}}}
data: {{source: {write_pairs(site.folder / "pairs.jsonl")}, tokenizer: {{kind: bytes}}}}
schedule: {{peak_lr: 1.0e-2, total_steps: 4, warmup: {{steps: 2}}, decay: {{shape: cosine}}}}
training: {{examples_per_update: 16, micro_batch_tokens: 2000, precision: fp32}}
""",
        encoding="utf-8",
    )
    path = f"{site.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2"}
    env = {"PATH": path, "HOME": str(site.folder), "DS_ACCELERATOR": "cpu", **slurm}
    run = subprocess.run(
        [*alone("10.99.0.1"), "bash", str(site.script), str(config)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    summary = json.loads((site.storage / "small" / "summary.json").read_text())
    assert summary
    assert "joining the Ray cluster at 10.99.0.1:20012" in run.stderr + run.stdout
    assert site.left_over() == []
