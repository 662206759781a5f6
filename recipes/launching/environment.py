"""What a run was made with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

# Where Ray unpacks what `ray job submit --working-dir` brought.
OF_A_JOB = "/runtime_resources/working_dir_files/"
_PACKAGES = ("torch", "deepspeed", "transformers", "ray", "tokenizers", "pyarrow", "numpy", "pydantic")


def environment_json() -> str:
    """Versions, machine, git commit of the recipe, command and time, as JSON text."""
    content = {
        "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_commit": git_commit(),
        "job_package": job_package(),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in _PACKAGES},
        "machine": {
            "system": platform.platform(),
            "cpu": _cpu_name(),
            "num_cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
    }
    return json.dumps(content, indent=2) + "\n"


def installed_version(package: str) -> str | None:
    """None where the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the checkout this recipe runs from, with "-dirty" for uncommitted changes.

    Where there is no checkout, as in a Ray job (``.git`` is not uploaded) or an image: the environment variable
    GIT_COMMIT, or None.
    """
    here = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        found = result.stdout.strip() if result.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    return found or os.environ.get("GIT_COMMIT") or None


def job_package() -> str | None:
    """In a Ray job the name of the uploaded code, which has a hash of its content in it; None elsewhere."""
    here = Path(__file__).resolve().parents[2]
    return here.name if OF_A_JOB in f"{here}/" else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
