"""Train a small run with two processes and generated text at every evaluation, at one ZeRO stage after the other; prints what rank 0 measured.

    python evaluation_workers.py PAIRS FOLDER STAGE...

The runs lie in FOLDER/STAGE. In each, text is generated for every held-out example; which rank made which is printed too.
"""

import json
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.training import evaluation
from recipes.training.run import train
from tests.conftest import small_run


def main(pairs, folder, *stages):
    jobs = []
    for stage in stages:
        settings = [
            f"deepspeed.zero_stage={stage}",
            "evaluation.metrics=[bleu, exact_match]",
            "evaluation.generation={num_beams: 2, max_new_tokens: 24}",
            "training.eval_every_steps=4",
        ]
        arguments = small_run(Path(pairs), Path(folder) / stage, *settings)
        jobs.append(prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (jobs, port), nprocs=2)


def _rank(rank, jobs, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE="2", DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    shares, own = [], evaluation.predictions

    def noted(model, data, examples, decoding, *place):
        texts = own(model, data, examples, decoding, *place)
        shares.append(sorted(texts))
        return texts

    evaluation.predictions = noted
    for job in jobs:
        train(job, device=torch.device("cpu"), phases={}, publish=lambda message: None, report=lambda metrics: None)
    both = [None, None]
    dist.all_gather_object(both, shares)
    if rank == 0:
        print("RESULT" + json.dumps(both), flush=True)
    dist.barrier()
    # gloo's threads may abort a process that takes its group down while another still talks.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
