"""A cluster that has no worker until one is asked for, and a command on it: ``python growing_cluster.py FOLDER WORDS...``.

Ray's own autoscaler with its `fake_multinode` provider, whose nodes are processes on this machine. Meant to run in a
network namespace of its own, where Ray's ports are nobody else's.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
MEMORY = 200_000_000


def config() -> dict:
    empty_lists = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "rsync_filter",
        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
    )  # fmt: skip
    return {key: [] for key in empty_lists} | {
        "cluster_name": "growing",
        "max_workers": 1,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "provider": {"type": "fake_multinode"},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 2, "object_store_memory": MEMORY}, "node_config": {}, "min_workers": 0, "max_workers": 1,
            },
        },
        "auth": {}, "head_node": {}, "worker_nodes": {}, "docker": {}, "file_mounts": {},
        "file_mounts_sync_continuously": False,
    }  # fmt: skip


def main() -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    (folder / "growing.json").write_text(json.dumps(config()))
    environment = os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    options = [
        "--head", "--block", "--node-ip-address=127.0.0.1", "--port=6379", "--num-cpus=0", "--include-dashboard=false",
        f"--object-store-memory={MEMORY}", f"--autoscaling-config={folder / 'growing.json'}",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen([*RAY, "start", *options], env=environment, stdout=log, stderr=log)
        try:
            while "--block" not in (folder / "head.log").read_text():
                time.sleep(0.5)
            command = [sys.executable, "-m", *words]
            return subprocess.run(command, env=os.environ | {"RAY_ADDRESS": "127.0.0.1:6379"}, check=False).returncode
        finally:
            head.kill()


if __name__ == "__main__":
    sys.exit(main())
