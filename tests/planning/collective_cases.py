"""Train a tiny model with two processes and print what the last update sent, passed over and launched.

    python collective_cases.py CASES

CASES: JSON list of [stage, precision, settings of zero_optimization]. Prints for each {"sent": {operation: [calls, bytes, as
DeepSpeed's own logger counts them]}, "operations", "bytes": of the whole update, "step_operations", "step_bytes": of
`engine.step`, both as torch dispatches them}, with two micro-batches per rank.
"""

import json
import sys

from tests.training import ranks

WORLD, UPDATES = 2, 3


def main(cases):
    ranks.start(_rank, WORLD, cases)


def _rank(rank, cases):
    seen = [_update(rank, *case) for case in cases]
    if rank == 0:
        print("RESULT" + json.dumps(seen), flush=True)


def _update(rank, stage, precision, extra):
    import deepspeed.comm as ds_comm

    from recipes.config_file import parse_config
    from recipes.training.update import run_update
    from tests.planning.operations import Operations
    from tests.training import test_engine

    content = test_engine.make_config(stage, precision).model_dump(mode="json")
    logger = {"enabled": True, "verbose": False, "prof_all": True, "debug": False}
    content["deepspeed"]["extra"] = {"zero_optimization": extra, "comms_logger": logger}
    engine, _ = test_engine.make_engine(parse_config(content))
    step = engine.step
    for k in range(UPDATES):
        ds_comm.comm.comms_logger.comms_dict.clear()
        batches, target_tokens = test_engine.micro_batches(k, ((2, 7, 5), (2, 6, 4), (2, 7, 5), (2, 5, 6)))
        whole, stepping = Operations(), Operations()

        def counted_step(stepping=stepping):
            with stepping:
                step()

        engine.step = counted_step
        with whole:
            run_update(engine, batches[rank::WORLD], target_tokens)
    sent = {}
    for name, by_size in ds_comm.comm.comms_logger.comms_dict.items():
        calls = sum(record[0] for record in by_size.values())
        sent[name] = [calls, sum(size * record[0] for size, record in by_size.items())]
    return {
        "sent": sent,
        "operations": whole.num,
        "bytes": whole.bytes,
        "step_operations": stepping.num,
        "step_bytes": stepping.bytes,
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
