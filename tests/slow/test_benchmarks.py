"""Benchmarks that nothing else runs still run."""

import json
import os
import subprocess
import sys

import pytest

from tests.cluster.files import REPOSITORY
from tests.launching.ray_head import free_port

pytestmark = pytest.mark.slow


def test_the_update_between_hosts_is_measured_at_every_stage(tmp_path):
    start = tmp_path / "start"
    start.touch()
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "host_update.py", start],
        env=os.environ | alone | {"MASTER_PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["hosts"] == 1
    assert sorted(found["update_s"]) == ["1", "2", "3"]
    assert 0 < found["step_s"] < found["update_s"]["1"]
    assert 0 < found["fixed_s"] < found["update_s"]["1"]
