"""The Ray Train example of docs/schedules.md, on a real cluster."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"


def test_the_ray_train_example_runs(cluster, tmp_path):
    (example,) = re.findall(r"\n### Ray Train\n.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    environment = cluster | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
