"""Which GPUs a process may use: as CUDA reads CUDA_VISIBLE_DEVICES, by names that mean the same in
every process."""

import platform
from types import SimpleNamespace

import pytest

from dmlbench.utils import gpus
from dmlbench.utils.cuda_devices import CudaDevice
from dmlbench.utils.errors import UnusableGpu, UserError
from dmlbench.utils.gpus import Gpu, find_gpus

A, B = "GPU-aaaa0000-1", "GPU-aabb0000-2"
TWO = (f"{A}, Default, Disabled, NVIDIA H200", f"{B}, Default, Disabled, NVIDIA H200")
MIXED = (f"{A}, Default, [N/A], NVIDIA T4", f"{B}, Default, Disabled, NVIDIA H200")
CUT = (f"{A}, Default, Enabled, NVIDIA A100-SXM4-40GB", f"{B}, Default, Disabled, NVIDIA H200")
SLICES = {
    A: [
        "  MIG 3g.20gb     Device  0: (UUID: MIG-c1)",
        "  MIG 1c.3g.20gb  Device  1: (UUID: MIG-c2)",
    ]
}
OLD_SLICES = {
    A: [
        f"  MIG 1g.5gb Device 0: (UUID: MIG-{A}/1/0)",
        f"  MIG 1g.5gb Device 1: (UUID: MIG-{A}/10/0)",
    ]
}


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """What CUDA itself answers, by the value of CUDA_VISIBLE_DEVICES, and how often it is asked."""

    cuda = SimpleNamespace(answers={}, asked=[])

    def ask(environ):
        cuda.asked.append(environ.get("CUDA_VISIBLE_DEVICES"))
        return cuda.answers.get(environ.get("CUDA_VISIBLE_DEVICES"), [])

    monkeypatch.setattr(gpus, "ask_cuda", ask)
    return cuda


def uuids(visible=None, **variables):
    """The UUIDs of the GPUs that a process may use."""
    variables |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [gpu.uuid for gpu in find_gpus(variables).usable]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B]),
        ("1", [B]),
        ("1,0", [B, A]),
        (" 1 , 0", [B, A]),
        (B, [B]),
        (f"{B},{A}", [B, A]),
        ("GPU-aab", [B]),
        # an abbreviation that fits two cards, and one that fits none
        ("GPU-aa", []),
        (f"{B},GPU-c,{A}", [B]),
        # the first entry that means nothing ends the list
        ("0,-1,1", [A]),
        ("0,2,1", [A]),
        ("0,,1", [A]),
        ("0,all,1", [A]),
        (f"0,{B}", [A]),
        (f"{B},0", [B]),
        ("1gpu2,0", [B, A]),
        # one that comes twice leaves nothing
        ("0,0", []),
        (f"{A},{B},GPU-aaa", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("7", []),
    ],
)
def test_the_variable_chooses_gpus_as_cuda_reads_it(nvidia_smi, visible, expected):
    nvidia_smi(*TWO)
    assert uuids(visible) == expected


@pytest.mark.parametrize("variables", [{"visible": ""}, {"DMLBENCH_DEVICE": "cpu"}])
def test_where_the_cpu_is_chosen_nobody_is_asked(nvidia_smi, cuda, variables):
    calls = nvidia_smi(*TWO)
    assert (uuids(**variables), calls(), cuda.asked) == ([], [], [])


def test_a_gpu_has_the_name_and_the_compute_mode_of_nvidia_smi(nvidia_smi):
    calls = nvidia_smi(TWO[0], f"{B}, Exclusive_Process, [N/A], NVIDIA Odd, Model")
    assert find_gpus({}).usable == (
        Gpu(A, "NVIDIA H200", "Default"),
        Gpu(B, "NVIDIA Odd, Model", "Exclusive_Process"),
    )
    assert len(calls()) == 1


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-c1", "MIG-c2", B]),
        ("0", ["MIG-c1", "MIG-c2"]),
        (A, ["MIG-c1", "MIG-c2"]),
        ("MIG-c2", ["MIG-c2"]),
        (f"MIG-c2,{B},MIG-c1", ["MIG-c2", B, "MIG-c1"]),
        ("MIG-c", []),
        ("MIG-c1,MIG-c1", []),
        (f"MIG-c1,{A}", []),
    ],
)
def test_a_card_that_is_cut_up_counts_by_its_slices(nvidia_smi, visible, expected):
    nvidia_smi(*CUT, slices=SLICES)
    assert uuids(visible, CUDA_DEVICE_ORDER="PCI_BUS_ID") == expected


def test_a_slice_has_the_name_that_torch_gives_it(nvidia_smi):
    nvidia_smi(*CUT, slices=SLICES)
    names = [gpu.name for gpu in find_gpus({}).usable]
    assert names[:2] == [
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb",
    ]


def test_a_card_in_mig_mode_without_slices_is_no_gpu(nvidia_smi):
    nvidia_smi(*CUT)
    assert uuids() == [B]


def test_slices_with_names_of_old_drivers_are_told_apart(nvidia_smi):
    nvidia_smi(*CUT, slices=OLD_SLICES)
    assert uuids(f"MIG-{A}/1/0") == [f"MIG-{A}/1/0"]
    assert uuids(f"MIG-{A}/10") == [f"MIG-{A}/10/0"]
    assert uuids(f"MIG-{A}") == []


def test_cuda_says_which_of_different_cards_an_index_means(nvidia_smi, cuda):
    """It counts from the fastest card on; nvidia-smi counts in the order of the slots."""
    nvidia_smi(*MIXED)
    cuda.answers = {"0": [CudaDevice(B[4:], "NVIDIA H200", "Default")]}
    assert uuids("0") == [B]
    assert uuids("0", CUDA_DEVICE_ORDER="FASTEST_FIRST") == [B]
    assert cuda.asked == ["0", "0"]
    assert uuids("0", CUDA_DEVICE_ORDER="PCI_BUS_ID") == [A]
    assert uuids(A) == [A]
    assert cuda.asked == ["0", "0"]


def test_cuda_is_not_asked_about_equal_cards_and_is_not_missed_if_it_fails(nvidia_smi, cuda):
    nvidia_smi(*TWO)
    assert (uuids("1"), cuda.asked) == ([B], [])
    nvidia_smi(*MIXED)
    assert (uuids("1"), cuda.asked) == ([B], ["1"])


def test_the_slice_that_cuda_means_by_an_index_is_found(nvidia_smi, cuda):
    nvidia_smi(*CUT, slices=SLICES)
    cuda.answers = {"1": [CudaDevice("c1", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "Default")]}
    assert uuids("1") == ["MIG-c1"]


DEVICES = [
    CudaDevice("1", "NVIDIA H200", "Default"),
    CudaDevice("2", "NVIDIA A100 MIG 1g.5gb", "Exclusive_Process"),
]


@pytest.mark.parametrize("broken", [False, True])
def test_without_an_answer_of_nvidia_smi_cuda_lists_the_gpus(nvidia_smi, cuda, broken, monkeypatch):
    if broken:
        nvidia_smi(*TWO, fails="Failed to initialize NVML")
    else:
        monkeypatch.setenv("PATH", "/nonexistent")
    cuda.answers = {None: DEVICES}
    assert find_gpus({}).usable == (
        Gpu("GPU-1", "NVIDIA H200", "Default"),
        Gpu("MIG-2", "NVIDIA A100 MIG 1g.5gb", "Exclusive_Process"),
    )


def test_a_machine_without_any_has_none_and_may_use_its_cpu(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    for variables in ({}, {"CUDA_VISIBLE_DEVICES": "0"}):
        found = find_gpus(variables)
        found.check()
        assert found.usable == ()


def refused(match, kind=UnusableGpu):
    return pytest.raises(kind, match=match)


def test_a_variable_that_chooses_no_gpu_of_the_machine_is_refused(nvidia_smi, cuda, monkeypatch):
    nvidia_smi(*TWO)
    node = platform.node()
    for value in ("7", "0,0", "-1,0", "GPU-zz"):
        found = find_gpus({"CUDA_VISIBLE_DEVICES": value})
        with refused(
            rf"^{node}: CUDA_VISIBLE_DEVICES={value} chooses no GPU\..*There are {A} \(NVIDIA "
            rf"H200\), {B} .*unset the variable\. To compute on the CPU, set DMLBENCH_DEVICE=cpu\."
        ):
            found.check()
    find_gpus({"CUDA_VISIBLE_DEVICES": "-1"}).check()
    monkeypatch.setenv("PATH", "/nonexistent")
    cuda.answers = {None: DEVICES}
    with refused("CUDA_VISIBLE_DEVICES=5 chooses no GPU.*There are GPU-1"):
        find_gpus({"CUDA_VISIBLE_DEVICES": "5"}).check()


def test_a_gpu_whose_mode_is_prohibited_is_not_used(nvidia_smi):
    closed = f"{A}, Prohibited, Disabled, NVIDIA H200"
    nvidia_smi(closed, TWO[1])
    found = find_gpus({})
    found.check()
    assert [gpu.uuid for gpu in found.usable] == [B]
    with refused(
        rf"the compute mode of {A} \(NVIDIA H200\) is Prohibited: .*nvidia-smi -c DEFAULT"
    ):
        find_gpus({"CUDA_VISIBLE_DEVICES": "0"}).check()


def test_a_driver_that_does_not_answer_is_refused_where_there_is_a_gpu(
    nvidia_smi, tmp_path, monkeypatch
):
    fault = "Failed to initialize NVML: Driver/library version mismatch"
    nvidia_smi(*TWO, fails=fault)
    monkeypatch.setattr(gpus, "DEVICE_FILES", (tmp_path, "nvidia[0-9]*"))
    find_gpus({}).check()
    (tmp_path / "nvidiactl").touch()
    find_gpus({}).check()
    (tmp_path / "nvidia0").touch()
    with refused(f"there is a GPU, and its driver does not answer: {fault}"):
        find_gpus({}).check()
    nvidia_smi(fails="No devices were found")  # those of other jobs of the node
    find_gpus({}).check()


def test_a_gpu_for_one_process_is_not_shared_without_mps(nvidia_smi, monkeypatch):
    nvidia_smi(TWO[0], f"{B}, Exclusive_Process, Disabled, NVIDIA H200")
    monkeypatch.setattr(gpus, "uses_mps", lambda: False)
    found = find_gpus({})
    found.check_sharing(1)
    with refused(
        rf"runs_per_gpu: 2 processes cannot share {B} .*Exclusive_Process.*`runs_per_gpu: 1`.*MPS.*"
        r"nvidia-smi -c DEFAULT",
        UserError,
    ):
        found.check_sharing(2)
    find_gpus({"CUDA_VISIBLE_DEVICES": "0"}).check_sharing(2)
    monkeypatch.setattr(gpus, "uses_mps", lambda: True)
    found.check_sharing(2)
