import os
import socket

import pytest
import torch
import torch.distributed as dist


# One for all modules here: DeepSpeed keeps the first group it sees.
@pytest.fixture(scope="package")
def process_group():
    """A gloo group of this process alone."""
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
