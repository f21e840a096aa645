"""torch computes in IEEE float32, whatever the environment or the process chose before."""

import os

import pytest
import torch
from torch import backends

from dmlbench.study.settings import Recipe
from dmlbench.training.execution import set_up
from dmlbench.utils.arithmetic import float32_precision, use_ieee_float32
from dmlbench.utils.device import choose_device

EARLIER = {
    "nothing": lambda: None,
    # as torch starts with TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 (ATen/Context.h)
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "the old setting of products": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "the old setting of cuDNN": lambda: setattr(backends.cudnn, "allow_tf32", True),
    "the new setting of all": lambda: setattr(backends, "fp32_precision", "tf32"),
    "that of cuDNN": lambda: setattr(backends.cudnn, "fp32_precision", "tf32"),
    "that of convolutions": lambda: setattr(backends.cudnn.conv, "fp32_precision", "tf32"),
    "that of recurrent networks": lambda: setattr(backends.cudnn.rnn, "fp32_precision", "tf32"),
    "that of products": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "bfloat16 on a CPU": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
}
SETTINGS = [
    *(backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn),
    *(backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The variables and torch's settings are as before when a test has ended."""
    for name in ("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)
    yield
    use_ieee_float32({})


def set_up_a_run():
    set_up(Recipe(), torch.device("cpu"))


@pytest.mark.parametrize("start", [set_up_a_run, choose_device])
@pytest.mark.parametrize("earlier", EARLIER)
def test_float32_is_ieee_whatever_was_chosen_before(start, earlier):
    EARLIER[earlier]()
    start()
    assert {settings.fp32_precision for settings in SETTINGS} == {"ieee"}
    # torch reads these before each product on a GPU, and raises if they differ from the new ones
    assert not backends.cuda.matmul.allow_tf32
    assert not backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert float32_precision() == "ieee"


@pytest.mark.parametrize("value", [None, "1", "0", "yes"])
def test_nvidias_libraries_are_told_to_leave_out_tf32(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    use_ieee_float32()
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ":4096:8"),
        (":16:8", ":16:8"),
        (":4096:8", ":4096:8"),
        (":4096:2:16:8", ":4096:8"),  # torch refuses each product with it
        ("", ":4096:8"),
    ],
)
def test_cublas_gets_workspaces_that_give_the_same_bits(value, expected):
    environ = {} if value is None else {"CUBLAS_WORKSPACE_CONFIG": value}
    use_ieee_float32(environ)
    assert environ["CUBLAS_WORKSPACE_CONFIG"] == expected


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ("nothing", "ieee"),
        ("high", "tf32"),
        ("the old setting of products", "tf32"),
        ("the old setting of cuDNN", "tf32"),
        ("the new setting of all", "ieee"),  # each part has its own, which holds
        ("that of convolutions", "mixed"),
        ("that of products", "mixed"),
    ],
)
def test_a_result_records_what_a_loss_of_the_user_changes(later, expected):
    use_ieee_float32()
    EARLIER[later]()
    assert float32_precision() == expected


def test_float32_on_a_cpu_keeps_its_bits():
    generator = torch.Generator().manual_seed(0)
    images, weight = (torch.rand(4, 8, 9, 9, generator=generator) for _ in range(2))
    results = []
    for settings in (backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends):
        settings.fp32_precision = "none"  # as torch starts
    for prepare in (lambda: None, use_ieee_float32):
        prepare()
        results += [[torch.conv2d(images, weight), images.flatten(1) @ weight.flatten(1).T]]
    for before, after in zip(*results, strict=True):
        assert torch.equal(before, after)
