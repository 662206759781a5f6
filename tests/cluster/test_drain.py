"""What a pod's SIGTERM does to a node that was started the way KubeRay starts it; Ray is real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.alone import alone

DRAIN_S = 6
# The operator's form of a worker's command, with a port of its own because the head is on the same host.
WORKER = (
    "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; "
    "ray start --address=10.97.0.1:6390 --num-cpus=1 --block --dashboard-agent-listen-port=52399"
)
PROGRAM = f"""
import json, os, signal, subprocess, time, urllib.request
subprocess.run(["ray", "start", "--head", "--node-ip-address=10.97.0.1", "--port=6390", "--num-cpus=0", "--num-gpus=0",
                "--dashboard-host=127.0.0.1"], check=True)
worker = subprocess.Popen(["/bin/bash", "-c", "--", {WORKER!r}])
import ray
from ray._private.state import state
ray.init(address="10.97.0.1:6390", log_to_driver=False)
limit = time.monotonic() + 60
while ray.cluster_resources().get("CPU", 0) < 1 and time.monotonic() < limit:
    time.sleep(0.2)

@ray.remote(num_cpus=1)
class Busy:
    def ready(self):
        return True

busy = Busy.remote()
assert ray.get(busy.ready.remote(), timeout=60)
health = [urllib.request.urlopen(f"http://10.97.0.1:{{port}}/api/healthz").status for port in (52365, 52399)]
before = time.monotonic()
worker.send_signal(signal.SIGTERM)
draining_after_s = None
while worker.poll() is None and time.monotonic() < before + 60:
    if draining_after_s is None and state.get_draining_nodes():
        draining_after_s = time.monotonic() - before
    time.sleep(0.1)
print("RESULT", json.dumps([health, draining_after_s, time.monotonic() - before]))
"""


@pytest.mark.slow
def test_sigterm_drains_the_node_and_ends_within_the_grace_period():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ray = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "t" * 32,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S),
    }
    run = subprocess.run(
        [*alone("10.97.0.1"), sys.executable, "-c", PROGRAM],
        env={"PATH": path, "HOME": "/nonexistent", **ray},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    health, draining_after_s, ended_after_s = json.loads(run.stdout.split("RESULT ")[1].splitlines()[0])
    # The probes' path answers on the pod's address, without the token.
    assert health == [200, 200]
    # Training hears of it at once, keeps the drain time while it is busy, and all is over well before the kill,
    # which comes at least 20 s after the drain's end (test_kuberay.py).
    assert draining_after_s < 3
    assert DRAIN_S - 1 <= ended_after_s < DRAIN_S + 20
