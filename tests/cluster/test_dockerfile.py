"""The image's recipe as text: it is not built by any test."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, REPOSITORY, image_tag, locked

DOCKERFILE = CLUSTER / "Dockerfile"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCKERFILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def instructions(text) -> list[tuple[str, str]]:
    """(keyword, arguments) in order, continued lines joined."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [tuple(line.split(maxsplit=1)) for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def arguments(instructions, keyword: str) -> list[str]:
    return [rest for word, rest in instructions if word == keyword]


def test_bases_are_pinned_and_fit_the_locked_cuda(instructions):
    bases = [rest.split()[0] for rest in arguments(instructions, "FROM")]
    major, minor = locked("cuda-toolkit").split(".")[:2]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(rf"nvidia/cuda:{major}\.{minor}\.\d+-(devel|base)-ubuntu24\.04", base)


def test_every_package_is_locked(instructions):
    installs = [
        part.split("pip install ", 1)[1]
        for rest in arguments(instructions, "RUN")
        for part in rest.split("&&")
        if "pip install " in part
    ]
    assert len(installs) == 5
    for install in installs:
        names = [word for word in install.split() if re.match(r"[a-z]", word) and word != "requirements.lock"]
        if "-c requirements.lock" not in install:
            assert names
            assert all("==" in name for name in names)
            continue
        for name in names:
            assert "==" in name or locked(name), name


def test_deepspeed_is_built_against_the_locked_torch(instructions):
    runs = arguments(instructions, "RUN")
    torch = next(i for i, rest in enumerate(runs) if " torch " in rest)
    deepspeed = next(i for i, rest in enumerate(runs) if "DS_BUILD_FUSED_ADAM=1" in rest)
    project = next(i for i, rest in enumerate(runs) if ".[train]" in rest)
    assert torch < deepspeed < project
    assert "--no-build-isolation" in runs[deepspeed]
    # The build says which ops it made; without the one asked for it must stop.
    assert "grep -q \"'fused_adam': True\"" in runs[deepspeed]


def test_runs_as_a_user_without_rights(instructions):
    last_stage = instructions[max(i for i, (word, _) in enumerate(instructions) if word == "FROM") :]
    assert [rest for word, rest in last_stage if word == "USER"] == ["1000:1000"]
    words = [word for word, _ in last_stage]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    environment = " ".join(rest for word, rest in last_stage if word == "ENV").split()
    # Ray's launcher takes the home folder from here, and file_mounts of the YAMLs name it.
    assert {"HOME=/home/ray", "RAY_AUTH_MODE=token"} <= set(environment)
    assert "-m 700 /home/ray/.ray" in " ".join(rest for word, rest in last_stage if word == "RUN")


def test_no_secret_goes_in(instructions, text):
    assert not re.search(r"TOKEN=|PASSWORD|SECRET|\.netrc|ADD ", text)
    sources = [
        name for rest in arguments(instructions, "COPY") if not rest.startswith("--from") for name in rest.split()[:-1]
    ]
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert "*" in allowed
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert f"!{Path(source).parts[0]}" in allowed


def test_its_name_is_the_one_the_yamls_use(text):
    assert f"t5-on-ray:{image_tag()} " in text


def test_hadolint_has_nothing_to_say():
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    run = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
