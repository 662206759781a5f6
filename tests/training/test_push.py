"""`recipes.export --push`, as its own process against a small Hub on this machine, and against none."""

import os
import shutil
import subprocess
import sys
import time

import pytest

import recipes.export
from tests.conftest import small_run
from tests.training.hub_server import TOKEN, hub_server
from tests.training.programs import ROOT

CONTENT = {
    "config.json": b"{}",
    "README.md": b"---\nlibrary_name: transformers\n---\n# x\n",
    "model.safetensors": b"w" * 5000,
}


@pytest.fixture
def run(tmp_path):
    """Of a finished run what a push looks at."""
    from recipes.config_file import load_config, to_yaml

    arguments = small_run(tmp_path / "absent.jsonl", tmp_path)
    (tmp_path / "small" / "export").mkdir(parents=True)
    (tmp_path / "small" / "config.yaml").write_text(to_yaml(load_config(arguments[0], arguments[1:])))
    for name, content in CONTENT.items():
        (tmp_path / "small" / "export" / name).write_bytes(content)
    return tmp_path / "small"


def export(run, *arguments, endpoint="http://127.0.0.1:9", token=TOKEN, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(run / "hf_home"),
        # Its own protocol needs a server of its own; the Hub takes plain large files too.
        "HF_HUB_DISABLE_XET": "1",
        **({"HF_TOKEN": token} if token else {}),
        **variables,
    }
    result = subprocess.run(
        [sys.executable, "-m", "recipes.export", str(run), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert TOKEN not in result.stdout + result.stderr
    assert result.stdout == ""
    assert not (run / "hf_home").exists() or not list((run / "hf_home").rglob("*token*"))
    return result.returncode, result.stderr.splitlines()


def test_the_folder_is_pushed(run):
    with hub_server() as hub:
        assert export(run, "--push", "me/my-t5", "--private", endpoint=hub.endpoint) == (
            0,
            [f"pushed: {hub.endpoint}/me/my-t5"],
        )
        assert hub.repositories == {"me/my-t5": {"private": True, "files": CONTENT}}
        assert "/me/my-t5.git/info/lfs/objects/batch" in hub.calls
        assert sum(call.endswith("/commit/main") for call in hub.calls) == 1


def test_no_hub_there_is_one_line_within_seconds(run):
    began = time.monotonic()
    code, [line] = export(run, "--push", "me/my-t5")
    assert code == 1
    assert line.startswith("--push me/my-t5: http://127.0.0.1:9 could not be reached, or failed (ConnectError: ")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, 2, "--push me/my-t5: the Hub does not allow it with this token (403: "),
        pytest.param(400, 2, "--push me/my-t5: the Hub refused it (400: ", marks=pytest.mark.slow),
        pytest.param(501, 1, "--push me/my-t5: http", marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_refuses(run, status, code, words):
    with hub_server(refuse_with=status) as hub:
        found, [line] = export(run, "--push", "me/my-t5", endpoint=hub.endpoint)
    assert found == code
    assert line.startswith(words)
    assert "Bearer …" in line


def test_what_is_refused_before_the_network(run, capsys, monkeypatch):
    from huggingface_hub import constants

    def refused(*arguments):
        assert recipes.export.main([str(run), *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()[-1]

    # Not those of whoever runs the tests.
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(run / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(run / "tokens"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert refused("--push", "me/my-t5") == "--push me/my-t5: no token: log in with `hf auth login`, or set HF_TOKEN"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused("--push", "a/b/c").startswith("--push a/b/c: ")
    assert refused("--private") == "--private needs --push"
    # Nothing to push, and nothing to make it from.
    shutil.rmtree(run / "export")
    assert refused("--push", "me/x") == f"{run}: has no checkpoint"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused("--push", "me/x") == "--push me/x: HF_HUB_OFFLINE is set: nothing can be pushed"
