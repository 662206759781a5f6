"""Train a small run with two processes, without scores and with them; prints the scores of both ranks as JSON.

    python rung_score_workers.py PAIRS FOLDER STAGE PRECISION METHOD

The runs lie in FOLDER/plain and FOLDER/scored.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.sweeping.scoring import RungScorer, Scoring
from recipes.training.run import train
from tests.conftest import small_run
from tests.training import ranks


def main(pairs, folder, stage, precision, method):
    settings = [f"deepspeed.zero_stage={stage}", f"training.precision={precision}"]
    jobs = []
    for name in ("plain", "scored"):
        arguments = small_run(Path(pairs), Path(folder) / name, *settings)
        jobs.append(prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0])
    ranks.start(_rank, 2, jobs, method)


def _rank(rank, jobs, method):
    scores = []
    scorer = RungScorer(Scoring(method, branch_ratio=0.5, averaged_ratio=0.5), [2, 5, 8], scores.append)
    for job, after_update in zip(jobs, (None, scorer), strict=True):
        train(
            job,
            device=torch.device("cpu"),
            phases={},
            publish=lambda message: None,
            report=lambda metrics: None,
            after_update=after_update,
        )
    both = [None, None]
    dist.all_gather_object(both, [asdict(score) for score in scores])
    if rank == 0:
        print("RESULT" + json.dumps(both), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
