"""Processes of a Ray session are ended, and no others."""

import subprocess
import sys
import time

import pytest

from recipes.launching.leftovers import end_leftovers


@pytest.fixture
def start(tmp_path):
    started = []

    def start_one(code, folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        with (tmp_path / folder / "worker.out").open("w") as output:
            started.append(subprocess.Popen([sys.executable, "-c", code], stdout=output))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def test_one_that_hangs_is_killed_after_the_wait(start, tmp_path):
    mine, others = start("import time; time.sleep(60)", "session_1"), start("import time; time.sleep(60)", "session_12")
    began = time.monotonic()
    assert end_leftovers(str(tmp_path / "session_1"), wait_s=0.5) == [mine.pid]
    assert 0.5 <= time.monotonic() - began < 5
    assert mine.wait(timeout=10) == -9
    assert others.poll() is None


def test_one_that_ends_by_itself_is_waited_for(start, tmp_path):
    process = start("import time; time.sleep(0.5)", "session_1")
    assert end_leftovers(str(tmp_path / "session_1"), wait_s=60) == []
    assert process.wait(timeout=10) == 0


def test_nothing_is_left(tmp_path):
    assert end_leftovers(str(tmp_path), wait_s=60) == []
