"""A Ray cluster for a test module: prints its address, lives until its standard input closes.

    python ray_head.py NUM_CPUS [jobs]

Then where its metrics are. With ``jobs`` it has a dashboard, on loopback, that takes jobs, and its address is printed instead.
"""

import socket
import sys

import ray
from ray.cluster_utils import Cluster


def main() -> None:
    num_cpus = int(sys.argv[1])
    if "jobs" in sys.argv[2:]:
        # Ray's usual ports may be another cluster's.
        ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
        node = {"num_cpus": num_cpus, "include_dashboard": True, "dashboard_host": "127.0.0.1", **ports}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        print(cluster.address, flush=True)
        print(f"http://127.0.0.1:{ports['dashboard_port']}", flush=True)
        sys.stdin.read()
        cluster.shutdown()
        return
    context = ray.init(
        address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    print(context.address_info["gcs_address"], flush=True)
    (node,) = ray.nodes()
    print(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", flush=True)
    sys.stdin.read()
    ray.shutdown()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
