"""`recipes.predict` by workers of a real Ray: equal answers, a killed worker, a stopped command, refusals."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes.config_file import load_config, to_yaml
from recipes.data.tokenizer import bytes_tokenizer
from tests.conftest import WORDS, small_run
from tests.launching.conftest import wait_until
from tests.prediction.tiny import readable_model

pytestmark = pytest.mark.slow

NUM_ROWS = 12_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, an input of two files, and what one process makes of it."""
    place = tmp_path_factory.mktemp("predict")
    arguments = small_run(
        place / "absent.jsonl", place, "data.max_target_tokens=24", "training.micro_batch_tokens=2000"
    )
    run = place / "small"
    readable_model().save_pretrained(run / "export")
    bytes_tokenizer().save(run / "export")
    (run / "config.yaml").write_text(to_yaml(load_config(arguments[0], arguments[1:])))
    texts = [" ".join(WORDS[(i * (j + 3)) % len(WORDS)] for j in range(1 + i % 6)) + f" {i}" for i in range(NUM_ROWS)]
    table = pa.table({"id": range(NUM_ROWS), "source": texts})
    (place / "in").mkdir()
    pq.write_table(table.slice(0, 5000), place / "in" / "a.parquet", row_group_size=1500)
    pq.write_table(table.slice(5000), place / "in" / "b.parquet")
    result = predict(place, "one.parquet", os.environ)
    assert result.returncode == 0, result.stderr
    return place


def command(place, output, *more):
    arguments = [place / "small", "--input", place / "in", "--output", place / output, *more]
    return [sys.executable, "-m", "recipes.predict", *map(str, arguments)]


def predict(place, output, environment, *more):
    return subprocess.run(
        command(place, output, *more), env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def alone_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def same_as_one_process(place, output):
    one, found = pq.read_table(place / "one.parquet"), pq.read_table(place / output)
    assert found["id"].to_pylist() == list(range(NUM_ROWS))
    assert found.equals(one)
    assert len(set(found["prediction"].to_pylist())) > 1000
    assert not (place / f"{output}.partial").exists()
    return True


def workers_of(process):
    children = process.children(recursive=True)
    return [each for each in children if "Answerer" in " ".join(each.cmdline())]


def parts_in(folder):
    return len(list(folder.glob("part-*.parquet")))


def test_a_cluster_gives_what_one_process_gives_and_survives_a_killed_worker(cluster, place):
    process = subprocess.Popen(
        command(place, "killed", "--num-workers", "2"),
        env=cluster,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_until(lambda: parts_in(place / "killed.partial") >= 5, 120)
        assert parts_in(place / "killed.partial") < 50
        workers = workers_of(psutil.Process(int(cluster["TEST_HEAD_PID"])))
        assert len(workers) == 2
        workers[0].kill()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert same_as_one_process(place, "killed")
    lines = [line for line in err.splitlines() if not line.endswith("of 12,000 texts")]
    assert (out, lines) == (
        "",
        [
            f"joining the Ray cluster at {cluster['RAY_ADDRESS']}",
            "looking at 12,000 rows of 2 files",
            f"12,000 predictions in 65 files: {place / 'killed'}",
        ],
    )
    again = predict(place, "killed", cluster, "--num-workers", "2")
    assert (again.returncode, again.stderr) == (
        2,
        f"--output {place / 'killed'}: is there already; give another name, or --overwrite\n",
    )


def test_a_stopped_command_goes_on_and_leaves_no_process(place):
    process = subprocess.Popen(
        command(place, "stopped", "--num-workers", "2"), env=alone_environment(), stderr=subprocess.PIPE, text=True
    )
    with process:
        wait_until(lambda: parts_in(place / "stopped.partial") >= 5, 120)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(timeout=60) == 130
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [each.cmdline() for each in alive] == []
    assert (
        err.splitlines()[-1]
        == f"stopped; the same command goes on with the parts that are in {place / 'stopped.partial'}"
    )
    assert "Traceback" not in err
    assert not (place / "stopped").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (place / "stopped.partial").glob("part-*.parquet")}
    assert 5 <= len(before) < 65
    result = predict(place, "stopped", alone_environment(), "--num-workers", "1")
    assert result.returncode == 0, result.stderr
    assert f"{place / 'stopped'}.partial: going on after {len(before)} of 65 parts" in result.stderr
    assert same_as_one_process(place, "stopped")
    assert all((place / "stopped" / name).stat().st_mtime_ns == when for name, when in before.items())


def test_what_workers_refuse_leaves_nothing(cluster, place, tmp_path):
    pq.write_table(pa.table({"source": ["a", None, "b"]}), tmp_path / "in.parquet")
    shutil.copytree(place / "small", tmp_path / "small")
    (tmp_path / "in").mkdir()
    (tmp_path / "in.parquet").rename(tmp_path / "in" / "in.parquet")
    result = predict(tmp_path, "out", cluster, "--num-workers", "1")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        2,
        "1 of 3 texts cannot be used: in.parquet row 2 (null); mend them, or give --on-bad-row skip, which leaves their "
        "predictions null",
    )
    (tmp_path / "small" / "export" / "model.safetensors").write_bytes(b"broken")
    result = predict(tmp_path, "out", cluster, "--num-workers", "1", "--on-bad-row", "skip")
    assert result.returncode == 2, result.stderr
    assert "export: no model can be loaded: " in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    for flags, words in (
        (
            ["--num-workers", "5"],
            "--num-workers is 5, each with 1 CPU: 5 CPU needed, but the cluster has 4; lower --num-workers",
        ),
        (["--num-workers", "1", "--device", "cuda"], "--device cuda: the cluster has no GPU; give cpu"),
    ):
        result = predict(tmp_path, "out", cluster, *flags)
        assert result.returncode == 2
        assert words in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_workers_that_die_over_and_over_end_the_job_which_can_go_on(cluster, place):
    process = subprocess.Popen(
        command(place, "dying", "--num-workers", "1"), env=cluster, stderr=subprocess.PIPE, text=True
    )
    head = psutil.Process(int(cluster["TEST_HEAD_PID"]))
    with process:
        wait_until(lambda: parts_in(place / "dying.partial") >= 1, 120)
        end = time.monotonic() + 150
        while process.poll() is None:
            assert time.monotonic() < end
            for worker in workers_of(head):
                worker.kill()
            time.sleep(0.2)
        err = process.stderr.read()
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        "a worker died 4 times over: killed, or out of memory (then lower --batch-tokens) (log: "
        f"{place / 'dying.partial'}/logs); the same command goes on with the parts that are written"
    )
    assert not (place / "dying").exists()
    result = predict(place, "dying", cluster, "--num-workers", "2")
    assert result.returncode == 0, result.stderr
    assert same_as_one_process(place, "dying")
