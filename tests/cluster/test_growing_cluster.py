"""A run on a cluster whose autoscaler has to bring the nodes first."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import small_run

NAMESPACE = ["unshare", "--net", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def run_there(tmp_path):
    """Run a command of the recipe beside a growing cluster, both gone at the end with their process namespace."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("needs root: a network and process namespace")
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    script = Path(__file__).parent / "growing_cluster.py"

    def run(words):
        command = [*NAMESPACE, sys.executable, str(script), str(tmp_path), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)

    return run


@pytest.mark.slow
def test_nodes_come_when_they_are_waited_for_and_not_otherwise(run_there, pairs, tmp_path):
    words = ["recipes.train", *small_run(pairs, tmp_path / "runs")]
    refused = run_there(words)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "scaling.num_workers is 2, each with 1 CPU: 2 CPU needed, but the cluster has 0; lower scaling.num_workers or "
        "scaling.cpus_per_worker; or, where the cluster grows by itself, set scaling.wait_for_nodes=true"
    )
    waited = run_there([*words, "scaling.wait_for_nodes=true", "scaling.node_wait_s=300"])
    assert waited.returncode == 0, waited.stderr
    assert "waiting for nodes (at most 300 s, scaling.node_wait_s)" in waited.stderr
    assert (tmp_path / "runs" / "small" / "summary.json").is_file()
