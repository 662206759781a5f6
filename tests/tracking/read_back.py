"""What trackers hold, read with MLflow's client, and from the file that `wandb sync` would send."""

import struct
import warnings

from recipes.reporting.metrics import read_metrics, scalars
from recipes.storage import Storage


def points_of(folder):
    """tag -> [(step, value)] of metrics.jsonl."""
    metrics = read_metrics(Storage(folder))
    points = {}
    for record in sorted(metrics.train + metrics.eval, key=lambda record: record["step"]):
        for tag, value in scalars(record).items():
            points.setdefault(tag, []).append((record["step"], value))
    return points


def mlflow_run(uri, name, experiment="t5-on-ray"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        (run,) = [run for run in client.search_runs([found.experiment_id]) if run.info.run_name == name]
    return client, run


def mlflow_points(uri, name, experiment="t5-on-ray"):
    client, run = mlflow_run(uri, name, experiment)
    points = {
        tag: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, tag))
        for tag in run.data.metrics
    }
    return points, run.info.status


def wandb_records(folder):
    """Records of every offline part, the parts in the order of their start."""
    from wandb.proto import wandb_internal_pb2

    parts = []
    for path in sorted(folder.glob("offline-run-*/run-*.wandb")):
        records = []
        for content in _chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            records.append(record)
        parts.append(records)
    return parts


def wandb_points(folder):
    """(tag -> [(step, value)] over all parts, state of each part). All parts must be of one run."""
    import json

    points, states, ids = {}, [], set()
    for records in wandb_records(folder):
        state = None
        for record in records:
            if record.HasField("run"):
                ids.add(record.run.run_id)
            for item in record.history.item:
                tag = item.key or "/".join(item.nested_key)
                if not tag.startswith("_"):
                    points.setdefault(tag, []).append((record.history.step.num, json.loads(item.value_json)))
            for item in record.summary.update:
                if (item.key or item.nested_key[0]) == "state":
                    state = json.loads(item.value_json)
        states.append(state)
    assert len(ids) == 1
    return points, states


def _chunks(content):
    """LevelDB's log format after a header of seven bytes: blocks of 32 KiB; checksum, length, type of each chunk."""
    offset, whole = 7, b""
    while offset + 7 <= len(content):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        if kind == 0:
            offset += left
            continue
        whole += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""
