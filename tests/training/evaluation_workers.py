"""Train a small run with two processes and generated text at every evaluation, at one ZeRO stage after the other; prints what rank 0 measured.

    python evaluation_workers.py PAIRS FOLDER STAGE...

The runs lie in FOLDER/STAGE. In each, text is generated for every held-out example; which rank made which is printed too.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from recipes.config_file import load_config
from recipes.launching.preflight import prepare, write_description
from recipes.training import evaluation
from recipes.training.run import train
from tests.conftest import small_run
from tests.training import ranks


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
        write_description(jobs[-1], "{}")
    ranks.start(_rank, 2, jobs)


def _rank(rank, jobs):
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


if __name__ == "__main__":
    main(*sys.argv[1:])
