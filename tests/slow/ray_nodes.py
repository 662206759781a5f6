"""A Ray cluster of several nodes on this machine, for tests in which nodes leave and come.

    python ray_nodes.py CPUS_PER_NODE

The head has no CPUs for work. Prints its address, then obeys a line of standard input at a time and answers
with one line: ``add`` (answer: the new node's id), ``kill ID``, ``drain ID SECONDS`` (Ray's preemption notice).
Ends, with all nodes, when its standard input closes.
"""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cpus = int(sys.argv[1])
    # A silent node counts as dead after some 3 s, not half a minute.
    quick = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick})
    print(cluster.address, flush=True)
    nodes = {}
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "add":
            node = cluster.add_node(num_cpus=cpus)
            nodes[node.node_id] = node
            answer = node.node_id
        elif command == "kill":
            cluster.remove_node(nodes.pop(arguments[0]), allow_graceful=False)
            answer = "killed"
        else:
            answer = drain(cluster.address, arguments[0], float(arguments[1]))
        print(answer, flush=True)
    cluster.shutdown()


def drain(address: str, node_id: str, seconds: float) -> str:
    """What `ray drain-node` does, and what a cloud's notice of a spot instance's end comes to."""
    import time

    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    deadline_ms = int((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, message = GcsClient(address=address).drain_node(node_id, reason, "a test", deadline_ms)
    return "draining" if accepted else message


if __name__ == "__main__":
    main()
