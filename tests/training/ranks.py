"""What every program beside the tests does that trains with several processes: start them, join them, leave."""

import os
import socket
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def start(work, world, *arguments):
    """Run ``work(rank, *arguments)`` in ``world`` processes of one gloo group, each with one thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_joined, (work, world, port, arguments), nprocs=world)


def _joined(rank, work, world, port, arguments):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(world), DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work(rank, *arguments)
    dist.barrier()
    # gloo's threads may abort a process that takes its group down while another still talks.
    sys.stdout.flush()
    os._exit(0)
