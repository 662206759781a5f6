"""Texts tokenised by tasks of a real Ray: the same cache, a killed task, a stopped command, refusals."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from recipes.config_file import load_config
from recipes.data.cache import prepare_data
from recipes.data.tokenizer import train_unigram
from recipes.storage import Storage
from tests.conftest import WORDS, small_run
from tests.launching.conftest import ray_head, train, wait_until

# More than 16,384 texts are more than one window.
NUM_ROWS = 150_000


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of nine windows, a tokenizer, and the cache that one process makes of them."""
    place = tmp_path_factory.mktemp("texts")
    words = [f"{a}{b}" for a in WORDS for b in WORDS]
    rows = [[words[(i * (j + 3) + j * j) % len(words)] for j in range(2 + i % 9)] for i in range(NUM_ROWS)]
    pairs = [{"source": " ".join([*row, str(i)]), "target": " ".join(reversed(row))} for i, row in enumerate(rows)]
    (place / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    train_unigram([pair["source"] for pair in pairs[:2000]], 600).save(place / "tokenizer")
    arguments = in_tasks(place, place / "alone", 0)
    prepare_data(load_config(arguments[0], arguments[1:]).data, Storage(place / "alone"), lambda text: None)
    return place


def in_tasks(texts: Path, storage: Path, num: int, *overrides: str) -> list[str]:
    tokenizer = f"data.tokenizer={{kind: folder, path: {texts / 'tokenizer'}}}"
    tasks = f"scaling.num_tokenizing_tasks={num}"
    return small_run(texts / "pairs.jsonl", storage, tokenizer, "data.held_out_ratio=0.01", tasks, *overrides)


def cached(storage: Path) -> dict[str, bytes]:
    [meta] = storage.glob("token_cache/*/meta.json")
    files = {path.relative_to(meta.parent): path for path in meta.parent.rglob("*") if path.is_file() and path != meta}
    return {str(name): path.read_bytes() for name, path in files.items()}


def test_tasks_make_the_cache_that_one_process_makes(cluster, texts, tmp_path):
    result = train(in_tasks(texts, tmp_path, 3), cluster)
    assert result.returncode == 0, result.stderr
    assert f"data: tokenising in 3 tasks on the cluster at {cluster['RAY_ADDRESS']}" in result.stderr
    assert (tmp_path / "small" / "report.html").exists()
    assert cached(tmp_path) == cached(texts / "alone")
    # What is tokenised is found again, and no task is started for it.
    arguments = in_tasks(texts, tmp_path, 3)
    prepare_data(load_config(arguments[0], arguments[1:]).data, Storage(tmp_path), lambda text: None, no_pool)


def no_pool(tokenizer):
    raise AssertionError("a pool was asked for")


def test_a_killed_task_is_done_again_and_a_stopped_start_gone_on_with(cluster, texts, tmp_path):
    arguments = in_tasks(texts, tmp_path, 1)
    command = [sys.executable, "-m", "recipes.train", *arguments]
    process = subprocess.Popen(command, env=cluster, stderr=subprocess.PIPE, text=True)

    def parts():
        return list(tmp_path.glob("token_cache/.*.part/ids/*.arrow"))

    with process.stderr:
        wait_until(lambda: tasks_at_work(cluster), 60)
        tasks_at_work(cluster)[0].kill()
        wait_until(lambda: len(parts()) >= 2, 60)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert said[-1] == "stopped; the same command goes on with what is tokenised"
    assert 2 <= len(parts()) < 9
    wait_until(lambda: not tasks_at_work(cluster), 20)

    result = train(arguments, cluster)
    assert result.returncode == 0, result.stderr
    assert "parts were there already, from a start that was stopped" in result.stderr
    assert cached(tmp_path) == cached(texts / "alone")


def tasks_at_work(environment: dict[str, str]) -> list[psutil.Process]:
    family = psutil.Process(int(environment["TEST_HEAD_PID"])).children(recursive=True)
    return [each for each in family if "ray::_encoded" in " ".join(each.cmdline())]


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
