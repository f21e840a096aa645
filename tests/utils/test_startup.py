"""Each process imports what it needs and no more: a run's jobs start thousands of times."""

import gc
import json
import os
import re
import subprocess
import sys

import pytest

from dmlbench.utils.startup import heavy_imports

PATH = "letters/tiny/control_oracle/seed0"
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "pytorch_metric_learning",
    "sklearn",
    "faiss",
    "scipy",
    "numpy",
    "pyarrow",
    "pandas",
    "matplotlib",
    "mlflow",
    "sqlalchemy",
    "snakemake",
}


@pytest.fixture
def imported(tiny, tmp_path, data_folder):
    """Which heavy packages a call of `dmlbench` imports."""
    tiny["plan"]["controls"] = ["oracle"]
    (tmp_path / "study.json").write_text(json.dumps(tiny))
    environment = {**os.environ, "DMLBENCH_DATA": str(data_folder)}

    def call(*arguments):
        command = [sys.executable, "-X", "importtime", "-m", "dmlbench", *arguments]
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(command, check=True, **options)
        return HEAVY & set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))

    return call


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "study.json"],
        ["status", "study.json"],
        ["list", "losses"],
        ["list", "datasets"],
    ],
)
def test_what_people_wait_for_imports_nothing_heavy(imported, arguments):
    if "plan" in arguments:
        imported(*arguments)  # the first plan counts the classes of each data set once
    assert imported(*arguments) == set()


def test_jobs_of_a_run_import_no_tables(imported):
    assert imported("train", "study.json", PATH) <= {"torch", "numpy", "pyarrow"}
    assert imported("evaluate", "study.json", PATH) <= {"numpy", "pyarrow", "faiss"}


def test_garbage_is_collected_again_after_an_import():
    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            collected.append(self)

    collected = []
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), heavy_imports():
        raise ImportError
    assert gc.isenabled()
    Cycle()
    gc.collect()
    assert collected
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_job_s_imports_are_no_garbage_to_look_through_and_others_are():
    code = (
        "import gc; from dmlbench.utils.startup import freeze_imports, heavy_imports\n"
        "with heavy_imports(): import fractions\n"
        "print(gc.get_freeze_count()); freeze_imports()\n"
        "with heavy_imports(): import fractions\n"
        "print(gc.get_freeze_count())\n"
        "with heavy_imports(): import difflib\n"
        "print(gc.get_freeze_count() > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "True"]


def test_a_process_that_leaves_has_said_all_and_has_its_code():
    code = "from dmlbench.utils.startup import exit_now; print('said', end=''); exit_now(75)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("said", 75)


def test_a_process_that_ends_by_itself_complains_of_nothing():
    code = (
        "from dmlbench.utils.startup import freeze_imports, heavy_imports\nfreeze_imports()\n"
        "with heavy_imports(): import torch._dynamo"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_study_is_loaded_without_torch_and_numpy():
    code = (
        "import sys, dmlbench.study.study, dmlbench.cli.main\n"
        "heavy = {'torch', 'numpy', 'pandas', 'timm', 'faiss', 'matplotlib'}\n"
        "print(heavy & sys.modules.keys())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
