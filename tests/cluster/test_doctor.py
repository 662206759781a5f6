"""The real command on a real cluster of one node, and what keeps two jobs of one cluster apart."""

import subprocess
import sys

import pytest

from tests.conftest import small_run, write_pairs
from tests.launching.conftest import cluster  # noqa: F401


def doctor(words, environment):
    command = [sys.executable, "-m", "recipes.doctor", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    return small_run(write_pairs(folder / "pairs.jsonl"), folder / "runs")[0]


def test_every_check_has_its_line(cluster, config):  # noqa: F811
    result = doctor([config], cluster)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr.startswith("joining the Ray cluster at ")
    lines = result.stdout.splitlines()
    subjects = [
        "room",
        "versions",
        "GPUs",
        "network interface",
        "Ray's ports",
        "clocks",
        "disk for Ray's session",
        "/dev/shm",
    ]
    subjects += ["storage", "all-reduce", "token"]
    checks = [line for line in lines[:-1] if not line.startswith(" ")]
    assert [line[6:30].split("  ")[0].strip() for line in checks] == subjects
    assert {line[:4].strip() for line in checks} <= {"ok", "note"}
    assert lines[-1] == "all 11 checks passed"


def test_too_many_workers_are_a_failed_check_with_a_remedy(cluster, config):  # noqa: F811
    result = doctor([config, "scaling.num_workers=9"], cluster)
    assert result.returncode == 1
    assert "room for 4 workers of 1 CPU" in result.stdout
    assert "9 wanted" in result.stdout
    assert "-> add nodes, or lower scaling.num_workers or scaling.cpus_per_worker" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 of 11 checks failed"


def test_a_wrong_config_is_one_line(cluster, config):  # noqa: F811
    result = doctor([config, "scaling.num_worker=9"], cluster)
    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean 'scaling.num_workers'?" in result.stderr


HOLD = """
import sys, time
import ray
from recipes.errors import UserError
from recipes.launching import ray_cluster
from recipes.launching.channel import Channel
from recipes.storage import Storage
ray.init(logging_level="ERROR", log_to_driver=False)
try:
    held = ray_cluster.start_beside_me(Channel, Storage(sys.argv[1]))
except UserError as error:
    print(error)
    sys.exit(2)
ray.get(held.take.remote())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_two_jobs_in_one_folder_of_an_object_store_are_kept_apart(cluster):  # noqa: F811
    """No lock of a file system there: the cluster itself tells."""

    def hold(folder):
        command = [sys.executable, "-c", HOLD, folder]
        return subprocess.Popen(command, env=cluster, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first = hold("mock://bucket/run")
    assert first.stdout.readline() == "held\n"
    second, other = hold("mock://bucket/run"), hold("mock://bucket/other")
    assert other.stdout.readline() == "held\n"
    other.communicate("", timeout=30)
    said, _ = second.communicate("", timeout=60)
    assert (second.returncode, said.split(":")[0]) == (2, "mock")
    assert "mock://bucket/run is in use by another job of this cluster" in said
    # Killed without a word: the next one need not wait for anybody.
    third = hold("mock://bucket/run")
    first.kill()
    first.communicate(timeout=30)
    assert third.stdout.readline() == "held\n"
    third.communicate("", timeout=30)
