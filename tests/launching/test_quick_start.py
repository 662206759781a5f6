"""How long `ray.init` waits for its own node."""

import subprocess
import sys
from pathlib import Path

ASKS = """
import time
import ray
from ray._private import services
from recipes.launching.quick_start import node_asked_for_often

taken, rays = [], services.get_node

def timed(address, node_id):
    began = time.monotonic()
    node = rays(address, node_id)
    taken.append(time.monotonic() - began)
    return node

services.get_node = timed
with node_asked_for_often():
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
assert services.get_node is timed
assert ray.get(ray.remote(lambda: 7).remote()) == 7
ray.shutdown()
print(*taken)
"""


def test_the_node_is_there_when_ray_asks_for_it():
    """Else Ray sleeps for a second before it asks again."""
    result = subprocess.run(
        [sys.executable, "-c", ASKS],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    taken = [float(word) for word in result.stdout.split()]
    assert taken
    assert max(taken) < 0.8
