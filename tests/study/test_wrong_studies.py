"""A wrong study is refused before any job, with the file, the key, what is allowed, and the fix."""

import contextlib

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import MAX_PROBLEMS, StudyError

WRONG = {
    "unknown key": (
        "recipe.batchsize",
        3,
        r"recipe\.batchsize: unknown key\. Did you mean 'batch_size'\?",
    ),
    "unknown key inside": (
        "recipe.augmentation",
        {"flips": True},
        r"recipe\.augmentation\.flips: unknown key\. Did you mean 'flip'\?",
    ),
    "wrong type": (
        "recipe.epochs",
        "many",
        r"recipe\.epochs: found 'many'\. Allowed: a whole number",
    ),
    "no mapping": (
        "recipe.augmentation.jitter",
        0.4,
        r"augmentation\.jitter: found 0\.4, not a mapping\. Allowed: brightness, contrast, hue",
    ),
    "not finite": (
        "recipe.augmentation.jitter",
        {"hue": float("nan")},
        r"jitter\.hue: found nan\. Allowed: a number of at least 0",
    ),
    "no count": ("runs_per_gpu", True, r"runs_per_gpu: found true\. .*a whole number of"),
    "out of range": (
        "recipe.lr",
        -1,
        r"recipe\.lr: found -1\. .*a number above 0 and at most 1,000\.",
    ),
    "missing": ("plan", {"losses": ["htl"]}, r"plan\.seeds: is missing"),
    "loss": ("plan.losses", ["softripple"], r"losses\.softripple: .*Did you mean 'softtriple'\?"),
    "option": ("losses.st1.gama", 1, r"losses\.st1\.gama: unknown key\. Did you mean 'gamma'\?"),
    "option type": ("losses.st1.gamma", "x", r"losses\.st1\.gamma: found 'x'"),
    "backbone": (
        "backbones.tiny.type",
        "test_resnett",
        r"backbones\.tiny: timm has no model 'test_resnett'\. Did you mean 'test_resnet'\?",
    ),
    "dataset": ("datasets.letters.type", "glyph", r"datasets\.letters: .*Did you mean 'glyphs'\?"),
    "weights": ("backbones.tiny.pretrained", "no.file", r"there is no file no\.file"),
    "resize": ("backbones.tiny.resize", 16, r"backbones\.tiny: resize: 16 is below image_size: 32"),
    "thirds": (
        "backbones.tiny.head",
        "low_mid_high",
        r"backbones\.tiny: dim: 64 is not a multiple of 3, which head: low_mid_high needs \(1536",
    ),
    "a module that is no backbone": (
        "backbones.tiny.type",
        "heads",
        r"timm has no model 'heads'",
    ),
    "classes x images": (
        "recipe.images_per_class",
        3,
        r"recipe: batch_size: 80 is not a multiple of",
    ),
    "override": (
        "datasets.letters.recipe",
        {"lrr": 1},
        r"datasets\.letters\.recipe\.lrr: unknown key\. Did you mean 'lr'\?",
    ),
    "twice": ("plan.seeds", [1, 1], r"plan: seeds: 1 is listed twice"),
    "name": ("study", "../x", r"study: found '\.\./x'"),
    "name of an entry": (
        "plan.losses",
        ["st2"],
        r"losses\.st2: no loss 'st2'\. Did you mean 'st1'\?",
    ),
    "not selected": ("losses.later", {"type": "htll"}, r"losses\.later: no loss 'htll'"),
    "too few": (
        "losses.st1.centers_per_class",
        0,
        r"centers_per_class: found 0\. .*number of at least 1 and at most 1,000\.",
    ),
    "no number": ("losses.st1.gamma", float("nan"), r"losses\.st1\.gamma: found nan"),
    "type of a loss": ("losses.st1.type", None, r"st1\.type: found null\. .*the name of a loss"),
    "type of a data set": (
        "datasets.letters.type",
        False,
        r"letters\.type: found false\. Allowed: the name of a data set",
    ),
    "line break": ("backbones.tiny.pretrained", "a\nb", r"pretrained: found 'a\\nb', with a line"),
    "control character": ("recipe.pooling", "avg\x00", r"pooling: found 'avg\\x00', with a line"),
    "path": (
        "backbones.tiny.pretrained",
        "x" * 256,
        r"pretrained: x+ cannot be read: File name too",
    ),
    "long name": (
        "study",
        "x" * 101,
        r"study: found 'x+\.\.\.\. Allowed: .* at most 100 characters",
    ),
    "zero": (
        "losses.st1.la",
        0,
        r"losses\.st1\.la: found 0\. .*a number above 0 and at most 10,000",
    ),
    "seed": ("plan.seeds", [2**70], r"plan\.seeds\.0: found a whole number of more than 15 digits"),
    "tag": ("backbones.tiny.type", "resnet18.nonsense", r"timm has no model 'resnet18\.nonsense'"),
    "steps": ("recipe.schedule", "step", r"recipe: schedule: step needs step_epochs"),
    "checksum": (
        "datasets.letters.checksums",
        {"a.zip": "md55:1"},
        r"datasets\.letters\.checksums: a\.zip: 'md55' is not one of the algorithms md5, sha1, ",
    ),
    "control": ("plan.losses", ["control_mine"], r"names that begin with control_ are reserved"),
    "test on an unknown data set": (
        "datasets.letters.test_on",
        "lwf",
        r"letters\.test_on: no other .* 'lwf'.*mean 'lfw'",
    ),
    "test on itself": (
        "datasets.letters.test_on",
        "letters",
        r"letters\.test_on: no other data set 'letters'",
    ),
    "test on other channels": (
        "datasets.letters.test_on",
        "lfw",
        r"lfw has 3 channels, and letters has 1\.",
    ),
    "no training split": (
        "datasets.letters",
        {"type": "lfw"},
        r"letters: it has no training split\. .*test_on",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_is_refused_with_file_key_and_fix(case, changed):
    path, value, message = WRONG[case]
    with pytest.raises(StudyError, match=message) as caught:
        check_study(changed(path, value), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")


WRONG_OWN_DATA = {
    "no file": ("datasets.a.file", None, r"datasets\.a\.file: found null\. Allowed: text"),
    "file is missing": ("datasets.a", {"type": "csv"}, r"datasets\.a: file: is missing"),
    "no such file": ("datasets.a.file", "no.csv", r"datasets\.a: file: cannot read no\.csv"),
    "option": ("datasets.a.chanels", 1, r"datasets\.a\.chanels: .*Did you mean 'channels'"),
    "common key": ("datasets.a.recipee", {}, r"datasets\.a\.recipee: .*Did you mean 'recipe'"),
    "channels": ("datasets.a.channels", 2, r"datasets\.a\.channels: found 2\..* 1 or 3"),
    "boolean channels": ("datasets.a.channels", True, r"a\.channels: found true\..* 1 or 3"),
    "octal seed": ("datasets.a.split_seed", "010", r"a\.split_seed: found '010'\. .*whole number"),
    "path": (
        "datasets.a",
        {"type": "folder", "folder": "x" * 256},
        r"datasets\.a: x+ cannot be read: File name too long",
    ),
    "line break": ("datasets.a.levels", ["a\nb"], r"levels: found 'a\\nb', with a line break"),
    "path of the embeddings": (
        "embeddings.own.file",
        "x" * 256,
        r"own\.file: x+ cannot be read: File name too long",
    ),
    "levels": ("datasets.a.levels", "top", r"datasets\.a\.levels: found 'top'"),
    "option of a type without options": (
        "datasets.letters.file",
        "a.csv",
        r"datasets\.letters\.file: unknown key",
    ),
    "unknown embeddings": (
        "plan.embeddings",
        ["owl"],
        r"there is no embeddings\.owl\. Did you mean 'own'",
    ),
    "data set of the embeddings": (
        "embeddings.own.dataset",
        "letter",
        r"embeddings\.own\.dataset: 'letter' is not in plan\.datasets\. Did you mean 'letters'",
    ),
    "file of the embeddings": (
        "embeddings.own.file",
        "no.npz",
        r"embeddings\.own\.file: there is no file",
    ),
    "folder of the embeddings": (
        "embeddings.own.file",
        "/proc",
        r"embeddings\.own\.file: /proc is a folder\.",
    ),
    "unreadable file of the embeddings": (
        "embeddings.own.file",
        "/proc/self/mem",
        r"embeddings\.own\.file: /proc/self/mem cannot be read: Input/output error\.",
    ),
    "key of the embeddings": ("embeddings.own.dim", 3, r"embeddings\.own\.dim: unknown key"),
    "name of the embeddings": (
        "plan.losses",
        ["embeddings_own"],
        r"names that begin with embeddings_ are reserved for external embeddings",
    ),
}


@pytest.mark.parametrize("case", WRONG_OWN_DATA)
def test_wrong_own_data_and_embeddings_are_refused(case, own_data, changed):
    path, value, message = WRONG_OWN_DATA[case]
    own_data["plan"]["datasets"] += ["omniglot"]
    with pytest.raises(StudyError, match=message):
        check_study(changed(path, value, own_data), "my.yaml")


def test_a_batch_that_htl_cannot_fill_is_refused(changed):
    wrong = changed("losses.htl7", {"type": "htl", "neighbours": 7})
    wrong["plan"]["losses"] = ["htl7"]
    message = r"losses\.htl7: neighbours 7 x images_per_class 4 does not divide .*batch_size 80"
    with pytest.raises(StudyError, match=message):
        check_study(wrong, "my.yaml")


def test_an_embedding_that_cannot_be_cut_into_equal_blocks_is_refused(changed):
    wrong = changed("losses.rll3", {"type": "rll", "blocks": 3})
    wrong["plan"]["losses"] = ["rll3"]
    message = r"losses\.rll3: blocks 3 does not divide the dim of backbones\.\w+ \d+\."
    with pytest.raises(StudyError, match=message):
        check_study(wrong, "my.yaml")


def test_one_message_names_everything_that_is_wrong(changed):
    wrong = changed("losses.st1.gama", 1, changed("datasets.letters.type", "glyph"))
    with pytest.raises(StudyError) as caught:
        check_study(wrong, "my.yaml")
    assert "gama" in str(caught.value)
    assert "glyph'" in str(caught.value)


def test_a_problem_that_several_runs_share_is_named_once(changed):
    wrong = changed("plan.losses", ["htl7", "st1"])
    wrong["losses"]["htl7"] = {"type": "htl", "neighbours": 7}
    wrong["backbones"]["other"] = wrong["backbones"]["tiny"]
    wrong["plan"]["backbones"] = ["tiny", "other"]
    with pytest.raises(StudyError) as caught:
        check_study(wrong, "my.yaml")
    assert str(caught.value).count("losses.htl7: ") == 1


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_of_any_top_key_is_accepted_or_refused_in_words(changed, value):
    for key in ("plan", "recipe", "losses", "backbones", "datasets", "evaluation", "study"):
        with contextlib.suppress(StudyError):  # any other exception is a bug
            check_study(changed(key, value), "my.yaml")


def test_scientific_notation_without_a_dot_is_a_number(changed):
    lr = yaml.safe_load("1e-3")
    assert isinstance(lr, str)  # YAML 1.1
    study = check_study(changed("recipe.lr", lr), "my.yaml")
    assert next(iter(study.runs.values())).recipe.lr == 1e-3


def test_the_default_experiment_of_mlflow_is_refused_unless_tracking_is_off(letters):
    with pytest.raises(StudyError, match="study: MLflow has an experiment Default already"):
        check_study(letters | {"study": "Default"}, "my.yaml")
    assert check_study(letters | {"study": "Default", "tracking": False}, "my.yaml").runs


NO_STUDY = {
    "empty": (b"", "it is empty, and a study is a mapping: lines as `study: my_name`."),
    "only comments": (b"# study: a\n", "it is empty, and a study is a mapping"),
    "a list": (b"- study: a", "it holds [{'study': 'a'}], and a study is a mapping"),
    "a word": (b"study", "it holds 'study', and a study is a mapping"),
    "no YAML": (b"study: a\nplan: [", "this is not YAML: line 2: "),
    "a tab": (b"plan:\n\tlosses: []", "this is not YAML: line 2: "),
    "a zero byte": (b"study: \x00", "this is not YAML: line 1 holds the character U+0000. Remove"),
    "no UTF-8": (b"study: a\n# \xe4", "line 2: byte 0xe4 is not UTF-8. Save the file as UTF-8."),
    "UTF-16": ("study: a".encode("utf-16"), "line 1: byte 0xff is not UTF-8."),
    "a key twice": (b"plan: {}\nplan: {}", "the key `plan` is on line 1 and on line 2. Remove one"),
    "an alias inside itself": (b"plan: &a [*a]", "an alias (`*name`) stands inside the value"),
}


@pytest.mark.parametrize("case", NO_STUDY)
def test_a_file_that_is_not_a_study_is_refused_with_its_name(tmp_path, case):
    content, problem = NO_STUDY[case]
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as refused:
        read_study(path)
    assert str(refused.value).startswith(f"{path}: the study cannot be run:\n  {problem}")


def test_a_remark_may_have_several_lines(letters):
    letters["unconfirmed"] = {"recipe.epochs": "from memory\nof the paper"}
    assert check_study(letters, "my.yaml").runs


def test_a_message_shows_the_first_problems_and_counts_the_others(changed):
    with pytest.raises(StudyError) as refused:
        check_study(changed("plan.losses", [f"loss{n}" for n in range(100)]), "my.yaml")
    _, *lines = str(refused.value).splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == f"  ... and {100 - MAX_PROBLEMS} more"


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        read_study(tmp_path)


def test_a_missing_file_is_refused_with_its_name():
    with pytest.raises(StudyError, match=r"nowhere\.yaml: .*\n.*no such file"):
        read_study("nowhere.yaml")


def test_a_missing_run_is_refused_with_the_nearest_one(letters):
    study = check_study(letters, "my.yaml")
    with pytest.raises(StudyError, match=r"no such run in the plan\. Did you mean 'letters/tiny/s"):
        study.run("letters/tiny/softtripel/seed0")
