"""Large modules are imported by who uses them; trainings have the same bits without them."""

import subprocess
import sys

STEPS = """
import sys
import torch
from dmlbench.utils.late_imports import leave_out_compiler

torch.manual_seed(0)
if "{mode}" != "plain":
    leave_out_compiler()
    leave_out_compiler()
layer, images = torch.nn.Linear(6, 4), torch.rand(8, 6)
for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop):
    optimizer = kind(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        layer(images).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print(layer.weight.double().sum().item().hex())
if "{mode}" == "left out":
    assert "sympy" not in sys.modules and "torch._dynamo.eval_frame" not in sys.modules
elif "{mode}" == "compiled":
    compiled = torch.compile(layer, backend="eager")
    assert torch.equal(compiled(images), layer(images))
    assert "torch._dynamo.eval_frame" in sys.modules
elif "{mode}" == "imported":
    from torch._dynamo.utils import counters
    import torch._dynamo
    assert torch._dynamo.utils.counters is counters is sys.modules["torch._dynamo.utils"].counters
    torch._dynamo.reset()
"""


def run(mode):
    command = [sys.executable, "-c", STEPS.replace("{mode}", mode)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_steps_have_the_same_bits_and_the_compiler_is_imported_by_who_asks_for_it():
    expected = run("plain")
    for mode in ("left out", "compiled", "imported"):
        assert run(mode) == expected, mode


LATE = """
import sys
from dmlbench.utils.late_imports import import_late

import_late("scipy.stats")
from pytorch_metric_learning import losses
import scipy.stats
assert "scipy.stats._stats_py" not in sys.modules
import_late("scipy.stats")
print(scipy.stats.rankdata([3, 1, 2]).tolist(), scipy.stats.norm.cdf(0))
from scipy.stats import t
import_late("scipy.stats")
assert scipy.stats.t is t is sys.modules["scipy.stats"].t
"""


def test_a_late_module_is_whole_for_who_uses_it():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert done.stdout == "[3.0, 1.0, 2.0] 0.5\n"
