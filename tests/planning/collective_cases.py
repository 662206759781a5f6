"""Train a tiny model with two processes and print what DeepSpeed's own logger saw of the last update's collectives.

    python collective_cases.py CASES

CASES: JSON list of [stage, settings of zero_optimization]. Prints for each {operation: [calls, bytes as the logger
counts them]}, with two micro-batches per rank.
"""

import json
import sys

from tests.training import ranks

WORLD, UPDATES = 2, 3


def main(cases):
    ranks.start(_rank, WORLD, cases)


def _rank(rank, cases):
    seen = [_collectives(rank, stage, extra) for stage, extra in cases]
    if rank == 0:
        print("RESULT" + json.dumps(seen), flush=True)


def _collectives(rank, stage, extra):
    import deepspeed.comm as ds_comm

    from recipes.config_file import parse_config
    from recipes.training.update import run_update
    from tests.training import test_engine

    content = test_engine.make_config(stage=stage).model_dump(mode="json")
    logger = {"enabled": True, "verbose": False, "prof_all": True, "debug": False}
    content["deepspeed"]["extra"] = {"zero_optimization": extra, "comms_logger": logger}
    engine, _ = test_engine.make_engine(parse_config(content))
    for k in range(UPDATES):
        ds_comm.comm.comms_logger.comms_dict.clear()
        batches, target_tokens = test_engine.micro_batches(k, ((2, 7, 5), (2, 6, 4), (2, 7, 5), (2, 5, 6)))
        run_update(engine, batches[rank::WORLD], target_tokens)
    seen = {}
    for name, by_size in ds_comm.comm.comms_logger.comms_dict.items():
        calls = sum(record[0] for record in by_size.values())
        seen[name] = [calls, sum(size * record[0] for size, record in by_size.items())]
    return seen


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
