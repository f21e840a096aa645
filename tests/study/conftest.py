import copy
from pathlib import Path

import pytest

from dmlbench.backbones import trial as backbone_trial
from dmlbench.losses import _trial as loss_trial
from dmlbench.study.preflight import check_before_jobs
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

LETTERS = {
    "study": "my_study",
    "plan": {
        "datasets": ["letters"],
        "backbones": ["tiny"],
        "losses": ["softtriple", "st1"],
        "seeds": [0, 1],
    },
    "datasets": {"letters": {"type": "glyphs", "class_fraction": 0.5}},
    "backbones": {"tiny": {"type": "test_resnet", "dim": 64, "image_size": 32}},
    "losses": {"st1": {"type": "softtriple", "centers_per_class": 1}},
    "recipe": {"batch_size": 80, "epochs": 2},
}
CSV = """path,label,split
a.png,x,train
b.png,x,train
c.png,y,test
d.png,y,test
"""


@pytest.fixture
def letters():
    """A study of two losses with two seeds, and three controls."""
    return copy.deepcopy(LETTERS)


@pytest.fixture
def changed():
    """A copy of settings with another value at a dotted path, by default of those of `letters`."""

    def change(path, value, settings=LETTERS):
        settings = copy.deepcopy(settings)
        *parents, last = path.split(".")
        section = settings
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
        return settings

    return change


@pytest.fixture
def keys():
    """Path -> key of all runs of a study."""

    def read(settings, name="train_key"):
        runs = check_study(settings, "my.yaml").runs
        return {path: getattr(run, name) for path, run in runs.items()}

    return read


@pytest.fixture
def moved():
    """The paths whose keys differ, among those that are in both."""

    def compare(before, after):
        return {path for path in before.keys() & after.keys() if before[path] != after[path]}

    return compare


@pytest.fixture
def own_data(letters, tmp_path, monkeypatch):
    """`letters` with the CSV data sets a and b, and with external embeddings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(CSV.replace("x", name))
    Path("own.npz").write_text("vectors")
    letters["datasets"] |= {name: {"type": "csv", "file": f"{name}.csv"} for name in ("a", "b")}
    letters["embeddings"] = {"own": {"dataset": "letters", "file": "own.npz"}}
    letters["plan"] |= {"datasets": ["letters", "a", "b"], "embeddings": ["own"]}
    return letters


@pytest.fixture(scope="session")
def rows_of_csv():
    """The text of a CSV of four images in two classes, named x and y."""
    return CSV


@pytest.fixture
def in_this_process(monkeypatch):
    """Other processes would import torch again."""
    for module in (backbone_trial, loss_trial):
        monkeypatch.setattr(
            module,
            "find_problems",
            lambda name, path, questions, facts, module=module: [*map(module._problem, questions)],
        )


@pytest.fixture
def write_csv(tmp_path, monkeypatch):
    """Write a CSV of classes, each (name, split, role, number of images), and its images."""
    monkeypatch.chdir(tmp_path)

    def write(*classes):
        lines = ["path,label,split,role"]
        for name, split, role, count in classes:
            for number in range(count):
                Path(f"{name}{role}{number}.png").touch()
                lines.append(f"{name}{role}{number}.png,{name},{split},{role}")
        Path("my.csv").write_text("\n".join(lines))

    return write


@pytest.fixture
def problems(tmp_path):
    """What is wrong with a study before any job, a line for each."""

    def find(settings):
        try:
            check_before_jobs(check_study(settings, "my.yaml"), tmp_path / "stores")
        except StudyError as error:
            title, *lines = str(error).splitlines()
            assert title == "my_study: the study cannot be run:"
            return [line.strip() for line in lines]
        return []

    return find


@pytest.fixture
def own(letters):
    """A study of one loss on a CSV."""
    letters["plan"] |= {"datasets": ["own"], "losses": ["triplet"], "seeds": [0]}
    letters["datasets"] = {"own": {"type": "csv", "file": "my.csv"}}
    letters["recipe"] = {"batch_size": 8, "images_per_class": 4}
    return letters
