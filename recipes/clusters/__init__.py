"""What a cluster's nodes have, and whether a run can rely on it."""
