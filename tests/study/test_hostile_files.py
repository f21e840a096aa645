"""A file that is made to harm is refused in a second, in one message, without filling memory."""

import json
import os
import resource
import time

import pytest

from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number + 1}: &a{number + 1} [{', '.join([f'*a{number}'] * 9)}]\n" for number in range(9)
)
"""Ten lines of 9^10 values."""
MERGES = "a: &a {x: 1}\nb0: &b0 {<<: *a}\n" + "".join(
    f"b{n + 1}: &b{n + 1} {{<<: [{', '.join([f'*b{n}'] * 9)}], y{n}: 1}}\n" for n in range(12)
)
HOSTILE = {
    "a list in itself": ("plan: &a [*a]", "an alias (`*name`) stands inside the value"),
    "a mapping in itself": ("plan: &a {x: *a}", "an alias (`*name`) stands inside the value"),
    "lists in lists": (f"plan: {'[' * 100_000}", "it is nested deeper than 50 levels"),
    "mappings in mappings": (f"plan: {'{a: ' * 100_000}", "it is nested deeper than 50 levels"),
    "lines in lines": ("- " * 100_000 + "a", "it is nested deeper than 50 levels"),
    "many aliases": (BOMB, "it holds more than 100,000 values, counting those that aliases"),
    "many aliases in a list": (f"- {{{BOMB[:-1].replace(chr(10), ', ')}}}", "it holds [{'a0': ["),
    "many merged keys": (MERGES, "study: is missing"),
    "a number of a million digits": ("study: " + "1" * 900_000, "cannot be read as a number"),
    "a long text": ("study: " + "x" * 900_000, "study: found 'xxxx"),
    "a text that is nearly a number": (
        "{study: a, recipe: {lr: '" + "1" * 500_000 + "x'}}",
        "recipe.lr: found '1111",
    ),
    "colons that are nearly a number": (
        "{study: a, recipe: {lr: '" + ":" * 900 + "x'}}",
        "recipe.lr: found '::::",
    ),
    "Python objects": (
        "study: !!python/object/apply:os.system [exit]",
        "the tag tag:yaml.org,2002:python/object/apply:os.system is not known",
    ),
    "a zero byte": ("study: a\0", "line 1 holds the character U+0000"),
    "many names": (
        f"{{study: a, plan: {{losses: [{', '.join(f'l{n}' for n in range(30_000))}]}}}}",
        "plan.losses: found 30,000 values. Allowed: at most 1,000.",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_words(case, tmp_path):
    text, problem = HOSTILE[case]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(StudyError) as refused:
        read_study(path)
    assert time.process_time() - started < 15  # 1 on a quiet machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 10_000


def test_a_file_that_is_too_large_is_refused_with_the_limit(tmp_path):
    path = tmp_path / "large.yaml"
    path.touch()
    os.truncate(path, 10**9)
    with pytest.raises(StudyError, match="it has 1 GB, and 1 MB are the most that is read"):
        read_study(path)


def test_the_settings_of_a_run_study_may_be_larger_than_a_study_file(tmp_path, letters):
    text = json.dumps(letters | {"unconfirmed": {"recipe.epochs": "a" * 1_500_000}})
    for name in ("study.json", "study.yaml"):
        (tmp_path / name).write_text(text)
    assert read_study(tmp_path / "study.json").name == "my_study"
    with pytest.raises(StudyError, match=r"it has 1\.5 MB, and 1 MB are the most"):
        read_study(tmp_path / "study.yaml")


def test_a_pipe_or_a_device_is_no_study(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(StudyError, match="it cannot be read: it is a pipe, and not a file"):
        read_study(tmp_path / "pipe.yaml")
    with pytest.raises(StudyError, match="it cannot be read: it is a device, and not a file"):
        read_study("/dev/zero")


def test_anchors_are_allowed(changed, tmp_path):
    path = tmp_path / "anchors.yaml"
    path.write_text(
        "study: anchors\n"
        "backbones:\n"
        "  a: &base {type: test_resnet, dim: 16, image_size: 32}\n"
        "  b: {<<: *base, dim: 8}\n"
        "plan: {datasets: [glyphs], backbones: [a, b], losses: [rll], seeds: [0]}\n"
    )
    assert {run.model.dim for run in read_study(path).runs.values()} == {16, 8}


FILES = {
    "weights": ("backbones.tiny.pretrained", r"backbones\.tiny\.pretrained: {} cannot be read: it"),
    "a CSV": ("datasets.letters", r"datasets\.letters: file: cannot read {}: it"),
    "embeddings": ("embeddings.own", r"embeddings\.own\.file: {} cannot be read: it"),
}


@pytest.mark.parametrize("kind", FILES)
def test_pipes_and_devices_are_no_files_of_a_study(kind, tmp_path, changed):
    path, problem = FILES[kind]
    os.mkfifo(tmp_path / "pipe")
    for file, words in (("/dev/zero", "is a device"), (str(tmp_path / "pipe"), "is a pipe")):
        value = {"a CSV": {"type": "csv", "file": file}, "weights": file}.get(
            kind, {"dataset": "letters", "file": file}
        )
        study = changed(path, value)
        if kind == "embeddings":
            study["plan"]["embeddings"] = ["own"]
        with pytest.raises(StudyError, match=f"{problem.format(file)} {words}"):
            check_study(study, "my.yaml")


@pytest.mark.parametrize(
    "entry", [{"type": "folder", "folder": "/"}, {"type": "parquet", "files": "/proc"}]
)
def test_folders_of_the_system_hold_no_images(entry, changed):
    with pytest.raises(StudyError, match=r"datasets\.letters: .* belongs to the system\. Name the"):
        check_study(changed("datasets.letters", entry), "my.yaml")
