"""Texts tokenised by tasks of a real Ray: the same cache, a killed task, a stopped command, refusals."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.launching.conftest import ray_head, train, wait_until
from tests.many_texts import NUM_WINDOWS, cached, in_tasks, parts, prepare, write_texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    write_texts(place)
    return place


def test_tasks_make_the_cache_that_one_process_makes(cluster, texts, tmp_path):
    result = train(in_tasks(texts, tmp_path, 3), cluster)
    assert result.returncode == 0, result.stderr
    assert f"data: tokenising in 3 tasks on the cluster at {cluster['RAY_ADDRESS']}" in result.stderr
    assert (tmp_path / "small" / "report.html").exists()
    assert cached(tmp_path) == cached(texts / "alone")
    # What is tokenised is found again, and no task is started for it.
    prepare(in_tasks(texts, tmp_path, 3), pool_of=no_pool)


def no_pool(tokenizer):
    raise AssertionError("a pool was asked for")


def test_a_killed_task_is_done_again_and_a_stopped_start_gone_on_with(cluster, texts, tmp_path):
    arguments = in_tasks(texts, tmp_path, 1)
    command = [sys.executable, "-m", "recipes.train", *arguments]
    process = subprocess.Popen(command, env=cluster, stderr=subprocess.PIPE, text=True)
    with process.stderr:
        wait_until(lambda: killed_a_task(cluster), 60)
        wait_until(lambda: len(parts(tmp_path)) >= 2, 60)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, "\n".join(said)
    assert said[-1] == "stopped; the same command goes on with what is tokenised"
    assert 2 <= len(parts(tmp_path)) < NUM_WINDOWS
    wait_until(lambda: not tasks_at_work(cluster), 20)

    result = train(arguments, cluster)
    assert result.returncode == 0, result.stderr
    assert "parts were there already, from a start that was stopped" in result.stderr
    assert cached(tmp_path) == cached(texts / "alone")


def tasks_at_work(environment: dict[str, str]) -> list[psutil.Process]:
    """A process has the name of its task while it is at it."""
    found = []
    for process in psutil.Process(int(environment["TEST_HEAD_PID"])).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process] if "ray::_encoded" in " ".join(process.cmdline()) else []
    return found


def killed_a_task(environment: dict[str, str]) -> bool:
    for process in tasks_at_work(environment):
        process.kill()
        return True
    return False


def test_a_cluster_without_free_cpus_is_not_waited_for_for_ever(texts, tmp_path):
    with ray_head(0) as environment:
        result = train(in_tasks(texts, tmp_path, 2, "scaling.node_wait_s=2"), environment)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "data: no task has tokenised anything for 2 s (scaling.node_wait_s); each needs a CPU, and 0 of the 0 are free"
    )
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        (
            "import tokenizers; mine = tokenizers.__version__; tokenizers.__version__ = '0.1'",
            2,
            "scaling.num_tokenizing_tasks: a node has tokenizers {version}, this machine 0.1: install the same everywhere "
            "(requirements.lock), or set it to 0",
        ),
        (
            "from recipes.data.tokenizer import TextTokenizer; TextTokenizer.files = lambda self: {'tokenizer_config.json': b'{'}",
            1,
            "data: a task that tokenised failed: JSONDecodeError: Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1)",
        ),
    ],
)
def test_what_goes_wrong_in_a_task_is_one_line(cluster, texts, tmp_path, change, code, line):
    import tokenizers

    program = f"import sys; {change}; from recipes.train import main; sys.exit(main(sys.argv[1:]))"
    arguments = in_tasks(texts, tmp_path, 2)
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=cluster, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert result.stderr.splitlines()[-1] == line.format(version=tokenizers.__version__)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "small").exists()
