"""What a training process loads, looked at in a process of its own."""

import json
import subprocess

LOOK = """
import json, os, sys
from recipes.training.libraries import load_libraries
load_libraries()
from deepspeed.runtime.zero.muon import original_muon
import torch
# Asked again after the block: both are as they were.
import mlflow
compiled = torch.compile(lambda x: x + 1)
print(json.dumps({
    "loaded": [name for name in ("deepspeed", "transformers.models.t5.modeling_t5") if name in sys.modules],
    "unwanted": [name for name in UNWANTED if name in loaded],
    "left in the environment": [name for name in os.environ if name.startswith("TORCHDYNAMO")],
    "mlflow": mlflow.__name__,
    "muon is as written": not hasattr(original_muon.zeropower_via_newtonschulz5, "_torchdynamo_orig_callable"),
    "torch.compile compiles": hasattr(compiled, "_torchdynamo_orig_callable"),
}))
"""


def test_libraries_are_loaded_without_what_they_would_load_for_others(python):
    names = '("mlflow", "torch._inductor.compile_fx")'
    program = LOOK.replace("UNWANTED", names).replace("import torch\n", "import torch\nloaded = set(sys.modules)\n", 1)
    answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == {
        "loaded": ["deepspeed", "transformers.models.t5.modeling_t5"],
        "unwanted": [],
        "left in the environment": [],
        "mlflow": "mlflow",
        "muon is as written": True,
        "torch.compile compiles": True,
    }
