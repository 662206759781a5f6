"""A model from a Hub that is not there, or has not what was asked for: one line before anything begins."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers import BertConfig, T5Config

from tests.conftest import small_run, write_pairs


class Handler(BaseHTTPRequestHandler):
    """A Hub with the config.json of a T5 of 300 embeddings and of a BERT."""

    models = {  # noqa: RUF012
        "/me/small/resolve/main/config.json": T5Config(vocab_size=300).to_json_string(),
        "/me/other/resolve/main/config.json": BertConfig().to_json_string(),
    }

    def do_HEAD(self):
        content = self.models.get(self.path)
        self.send_response(200 if content else 404)
        if content:
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content or "")))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.models.get(self.path, "").encode())

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def endpoint():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def refused(tmp_path, name, endpoint, *more):
    """The line, after which nothing must be left."""
    arguments = small_run(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "runs", f"model={{hub: {name}}}", *more)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf_home")}
    command = [sys.executable, "-m", "recipes.train", *arguments]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    left = [path.name for path in (tmp_path / "runs").iterdir()]
    return answer.stderr.splitlines(), left


def test_no_hub_there(tmp_path):
    [line], left = refused(tmp_path, "google/flan-t5-base", "http://127.0.0.1:9")
    assert line.startswith("model.hub google/flan-t5-base: http://127.0.0.1:9 cannot be reached (ConnectError: ")
    assert left == ["small.yaml"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me/none", "model.hub me/none: {} has no such model, or none with a config.json"),
        pytest.param("me/other", "model me/other is a bert, not a T5", marks=pytest.mark.slow),
    ],
)
def test_a_hub_without_such_a_t5(tmp_path, endpoint, name, words):
    [line], left = refused(tmp_path, name, endpoint)
    assert line == words.format(endpoint)
    assert left == ["small.yaml"]


def test_fewer_embeddings_than_token_ids(tmp_path, endpoint):
    lines, left = refused(tmp_path, "me/small", endpoint)
    assert lines[-1].startswith("model me/small has 300 embeddings but the tokenizer has 384 token ids")
    assert left == ["small.yaml", "token_cache"] or left == ["token_cache", "small.yaml"]
