"""What starting a run costs the launcher, and which of Ray Train's helpers it starts; looked at in a process of its own."""

import json
import os
import subprocess

import pytest

from recipes.launching.ray_cluster import only_node_unwatched

LOOK = """
import json, sys
from ray.train import RunConfig
from recipes.config import ScalingBlock
from recipes.launching.process_group import group_config
from recipes.launching.trainer import Trainer

trainer = Trainer(print, backend_config=group_config(ScalingBlock()), run_config=RunConfig(name="a", storage_path="/tmp/a"))
trainer._get_train_func()
print(json.dumps({
    "callbacks": [type(each).__name__ for each in trainer._create_default_callbacks()],
    "torch": "torch" in sys.modules,
}))
"""
CLEANER = "PlacementGroupCleanerCallback"
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_torch_is_not_imported_and_only_what_is_used_is_started(python, address):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_ADDRESS": address} if address else {}
    answer = subprocess.run([python, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])
    assert not found["torch"]
    assert "BackendSetupCallback" in found["callbacks"]
    assert "DatasetsCallback" not in found["callbacks"]
    # In a cluster that others use too, a launcher that is killed must not keep its places.
    assert (CLEANER in found["callbacks"]) == (address is not None)


@pytest.mark.parametrize(
    ("address", "given", "inside"), [(None, None, "0"), (None, "1", "1"), ("10.0.0.1:6379", None, None)]
)
def test_only_a_ray_of_ones_own_is_unwatched_and_only_meanwhile(monkeypatch, address, given, inside):
    for name, value in (("RAY_ADDRESS", address), (WATCHER, given)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with only_node_unwatched():
        assert os.environ.get(WATCHER) == inside
    assert os.environ.get(WATCHER) == given
