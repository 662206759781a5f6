"""Two commands in one folder are kept apart, however the first one ends."""

import subprocess
import sys
import time

import pytest

from recipes.errors import StorageError, UserError
from recipes.launching.claim import claimed
from recipes.storage import Storage
from recipes.sweep import main as sweep_main
from recipes.train import main as train_main
from tests.sweeping.small_sweep import small_sweep

HOLD = """
import sys, time
from recipes.launching.claim import claimed
from recipes.storage import Storage
with claimed(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_and_told_by_whom(holder, tmp_path):
    told = rf"run is in use by process {holder.pid} on \S+: wait until that has ended"
    with pytest.raises(UserError, match=told), claimed(Storage(tmp_path / "run")):
        pass
    holder.kill()
    holder.wait()
    with claimed(Storage(tmp_path / "run")):
        assert (tmp_path / "run").is_dir()


def test_nothing_is_left_of_a_claim_but_what_was_written(tmp_path):
    with claimed(Storage(tmp_path / "empty")):
        pass
    assert not (tmp_path / "empty").exists()
    with claimed(Storage(tmp_path / "full")):
        (tmp_path / "full" / "config.yaml").write_text("x")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["config.yaml"]


def test_many_at_once_never_hold_it_together(tmp_path):
    """Each adds a line while it holds the claim; one that finds another's line half done would show it."""
    program = """
import os, sys, time
from recipes.errors import UserError
from recipes.launching.claim import claimed
from recipes.storage import Storage
done = 0
while done < 20:
    try:
        with claimed(Storage(sys.argv[1])):
            busy = os.open(sys.argv[1] + "_busy", os.O_CREAT | os.O_EXCL)
            os.close(busy)
            os.unlink(sys.argv[1] + "_busy")
            done += 1
    except UserError:
        time.sleep(0.001)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    end = time.monotonic() + 60
    assert [process.wait(timeout=max(1, end - time.monotonic())) for process in processes] == [0, 0, 0]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match="run: cannot be written: "), claimed(Storage(tmp_path / "run")):
        pass


def test_the_commands_refuse_a_folder_in_use(holder, pairs, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    sweep = small_sweep(pairs, tmp_path, "sweep.name=run")
    assert sweep_main(sweep) == 2
    words = capsys.readouterr().err
    assert f"{tmp_path / 'run'} is in use by process {holder.pid}" in words
    path.write_text(
        f"run: {{name: run, storage_path: {tmp_path}}}\n"
        f"model: {{shape: {{d_model: 16, d_kv: 4, d_ff: 32, num_layers: 1, num_heads: 2}}}}\n"
        f"data: {{source: {pairs}, tokenizer: {{kind: bytes}}}}\n"
        "schedule: {peak_lr: 0.01, total_steps: 4}\n"
        "training: {examples_per_update: 8, micro_batch_tokens: 800}\n"
    )
    assert train_main([str(path)]) == 2
    assert f"{tmp_path / 'run'} is in use by process {holder.pid}" in capsys.readouterr().err
