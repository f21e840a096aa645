"""The code of a file moves the keys of the numbers that it makes, and no others."""

import shutil

import pytest

from dmlbench.utils.modules import PACKAGE


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, for edits."""
    folder = tmp_path_factory.mktemp("copy") / "dmlbench"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def edit(package):
    """Append text to a file of the copy; the file is restored after the test."""
    originals = {}

    def append(file, text):
        path = package / file
        originals.setdefault(path, path.read_bytes())
        path.write_bytes(originals[path] + text.encode())

    yield append
    for path, content in originals.items():
        path.write_bytes(content)


def all_runs(path):
    return True


def no_run(path):
    return False


def trainings(path):
    return "control" not in path


def controls(path):
    return "control" in path


@pytest.mark.parametrize(
    ("file", "key", "expected"),
    [
        ("losses/softtriple.py", "train_key", trainings),
        ("losses/rll.py", "train_key", no_run),
        ("losses/base.py", "train_key", trainings),
        ("losses/__init__.py", "train_key", no_run),
        ("losses/_catalogue.py", "train_key", no_run),
        ("backbones/model.py", "train_key", all_runs),
        ("backbones/timm.py", "train_key", all_runs),
        ("backbones/heads.py", "train_key", all_runs),
        ("backbones/folding.py", "train_key", all_runs),
        ("backbones/bn_inception.py", "train_key", no_run),
        ("backbones/catalogue.py", "train_key", no_run),
        ("backbones/weights.py", "train_key", no_run),
        ("datasets/glyphs.py", "train_key", no_run),
        ("datasets/store/reader.py", "train_key", all_runs),
        ("datasets/store/images.py", "train_key", all_runs),
        ("datasets/store/format.py", "train_key", no_run),
        ("datasets/store/pack.py", "train_key", no_run),
        ("training/train.py", "train_key", all_runs),
        ("training/batches.py", "train_key", all_runs),
        ("training/jitter.py", "train_key", all_runs),
        ("training/controls.py", "train_key", controls),
        ("training/external_embeddings.py", "train_key", no_run),
        ("training/prefetch.py", "train_key", no_run),
        ("training/progress.py", "train_key", no_run),
        ("training/checkpoint.py", "train_key", no_run),
        ("training/run_state.py", "train_key", no_run),
        ("training/job.py", "train_key", no_run),
        ("evaluation/retrieval.py", "train_key", no_run),
        ("evaluation/evaluate.py", "train_key", no_run),
        ("evaluation/evaluate.py", "eval_key", all_runs),
        ("evaluation/retrieval.py", "eval_key", all_runs),
        ("evaluation/points.py", "eval_key", all_runs),
        ("evaluation/relevant.py", "eval_key", all_runs),
        ("evaluation/torch_kmeans.py", "eval_key", all_runs),
        ("evaluation/job.py", "eval_key", no_run),
        ("study/settings.py", "eval_key", no_run),
        ("study/study.py", "eval_key", no_run),
        ("study/row_names.py", "eval_key", no_run),
        ("study/result_files.py", "eval_key", no_run),
        ("leaderboard/table.py", "eval_key", no_run),
        ("planning/pending.py", "eval_key", no_run),
        ("utils/discovery.py", "eval_key", no_run),
        ("utils/errors.py", "eval_key", no_run),
        ("utils/files.py", "eval_key", no_run),
        ("utils/fingerprint.py", "eval_key", no_run),
        ("utils/gpu_lease.py", "eval_key", no_run),
        ("utils/startup.py", "eval_key", no_run),
        ("cli/main.py", "eval_key", no_run),
    ],
)
def test_code_moves_the_keys_of_the_numbers_that_it_makes(
    package, edit, read_package, letters, keys, moved, file, key, expected
):
    def read():
        read_package(package)
        return keys(letters, key)

    before = read()
    edit(file, "\n# a comment\n")
    assert moved(before, read()) == set()
    edit(file, "\nNEW = 1\n")
    assert moved(before, read()) == {path for path in before if expected(path)}


def test_every_file_in_utils_moves_no_key(package, edit, read_package, letters, keys, moved):
    read_package(package)
    before = keys(letters, "eval_key")
    for path in (package / "utils").glob("*.py"):
        edit(path.relative_to(package), "\nNEW = 1\n")
    read_package(package)
    assert moved(before, keys(letters, "eval_key")) == set()
