"""A study's grid, its two keys, and its refusals."""

import contextlib
import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench import installed, source, study
from dmlbench.losses import list_losses
from dmlbench.problems import StudyError
from dmlbench.run import _file_digest
from dmlbench.workflow import look_for_images

ROOT = Path(__file__).parent.parent
STUDY = {
    "study": "made",
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


def changed(path, value, base=STUDY):
    made = copy.deepcopy(base)
    *parents, last = path.split(".")
    place = made
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return made


def keys(settings, which="train_key"):
    return {path: getattr(run, which) for path, run in study.check(settings, "made").runs.items()}


def moved(before, after):
    """Runs whose key differs, of those in both."""
    return {path for path in before.keys() & after.keys() if before[path] != after[path]}


def test_the_grid_is_every_combination_and_a_control_once():
    paths = list(study.check(STUDY, "made").runs)
    controls = [f"letters/tiny/control_{name}/seed0" for name in ("random", "untrained", "oracle")]
    trained = [f"letters/tiny/{loss}/seed{k}" for loss in ("softtriple", "st1") for k in (0, 1)]
    assert sorted(paths) == sorted(controls + trained)


def test_a_seed_more_adds_its_runs_and_moves_no_key():
    after = keys(changed("plan.seeds", [0, 1, 2]))
    assert moved(keys(STUDY), after) == set()
    assert after.keys() - keys(STUDY).keys() == {
        "letters/tiny/softtriple/seed2",
        "letters/tiny/st1/seed2",
    }


def test_one_loss_s_parameter_moves_its_runs_alone():
    after = keys(changed("losses.st1.gamma", 0.2))
    assert moved(keys(STUDY), after) == {f"letters/tiny/st1/seed{k}" for k in (0, 1)}


def test_a_default_that_is_written_out_moves_nothing():
    assert moved(keys(STUDY), keys(changed("losses.softtriple", {"gamma": 0.1}))) == set()
    assert moved(keys(STUDY), keys(changed("recipe.momentum", 0.9))) == set()


def test_the_recipe_moves_every_training_and_no_control():
    after = moved(keys(STUDY), keys(changed("recipe.lr", 0.5)))
    assert after == {path for path in keys(STUDY) if "control" not in path}


def test_a_metric_s_setting_moves_evaluations_and_no_training():
    after = changed("evaluation.recall_at", [1, 5])
    assert moved(keys(STUDY), keys(after)) == set()
    evaluated = keys(STUDY, "eval_key")
    assert moved(evaluated, keys(after, "eval_key")) == evaluated.keys()


@pytest.mark.parametrize(
    ("file", "which", "expected"),
    [
        ("losses/softtriple.py", "train_key", lambda path: "softtriple" in path or "st1" in path),
        ("losses/rll.py", "train_key", lambda path: False),
        ("losses/base.py", "train_key", lambda path: "control" not in path),
        ("training/train.py", "train_key", lambda path: True),
        ("training/batches.py", "train_key", lambda path: True),
        ("datasets/glyphs.py", "train_key", lambda path: False),
        ("settings.py", "train_key", lambda path: False),
        ("study.py", "train_key", lambda path: False),
        ("cli.py", "train_key", lambda path: False),
        ("training/job.py", "train_key", lambda path: False),
        ("training/progress.py", "train_key", lambda path: False),
        ("training/state.py", "train_key", lambda path: False),
        ("installed.py", "train_key", lambda path: False),
        ("source.py", "train_key", lambda path: False),
        ("files.py", "eval_key", lambda path: False),
        ("imports.py", "train_key", lambda path: False),
        ("gpus.py", "train_key", lambda path: False),
        ("training/jitter.py", "train_key", lambda path: True),
        ("backbones/folding.py", "train_key", lambda path: True),
        ("evaluation/torch_kmeans.py", "eval_key", lambda path: True),
        ("losses/__init__.py", "train_key", lambda path: False),
        ("datasets/store.py", "train_key", lambda path: True),
        ("datasets/images.py", "train_key", lambda path: True),
        ("backbones/timm.py", "train_key", lambda path: True),
        ("backbones/heads.py", "train_key", lambda path: True),
        ("backbones/bn_inception.py", "train_key", lambda path: False),
        ("training/controls.py", "train_key", lambda path: "control" in path),
        ("evaluation/__init__.py", "eval_key", lambda path: True),
        ("evaluation/retrieval.py", "train_key", lambda path: False),
        ("evaluation/retrieval.py", "eval_key", lambda path: True),
        ("evaluation/job.py", "eval_key", lambda path: False),
        ("leaderboard/table.py", "eval_key", lambda path: False),
    ],
)
def test_code_moves_the_keys_of_the_numbers_it_makes(tmp_path, monkeypatch, file, which, expected):
    package = tmp_path / "dmlbench"
    shutil.copytree(source.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    caches = (source.digest, source.code, source._normalised, source.declarations)
    monkeypatch.setattr(source, "PACKAGE", package)

    def fresh():
        for cached in caches:
            cached.cache_clear()
        return keys(STUDY, which)

    before = fresh()
    text = (package / file).read_text()
    (package / file).write_text(text + "\n# a comment\n")
    assert moved(before, fresh()) == set()
    (package / file).write_text(text + "\nNEW = 1\n")
    after = fresh()
    monkeypatch.undo()
    fresh()
    assert moved(before, after) == {path for path in before if expected(path)}


WRONG = {
    "unknown key": (
        "recipe.batchsize",
        3,
        r"recipe\.batchsize: unknown key\. Did you mean 'batch_size'\?",
    ),
    "nested": (
        "recipe.augmentation",
        {"flips": True},
        r"recipe\.augmentation\.flips: unknown key\. Did you mean 'flip'\?",
    ),
    "wrong type": ("recipe.epochs", "many", r"recipe\.epochs: found 'many'\. .*integer"),
    "no mapping": (
        "recipe.augmentation.jitter",
        0.4,
        r"augmentation\.jitter: found 0\.4, not a mapping\. Allowed: brightness, contrast, hue",
    ),
    "not finite": ("recipe.augmentation.jitter", {"hue": float("nan")}, r"jitter\.hue: .*finite"),
    "no count": ("runs_per_gpu", True, r"runs_per_gpu: found True\. .*integer"),
    "out of range": ("recipe.lr", -1, r"recipe\.lr: found -1\. .*greater than 0"),
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
    "no backbone": ("backbones.tiny.type", "heads", r"timm has no model 'heads'"),
    "P x K": ("recipe.images_per_class", 3, r"recipe: batch_size: 80 is not a multiple of"),
    "override": (
        "datasets.letters.recipe",
        {"lrr": 1},
        r"datasets\.letters\.recipe\.lrr: unknown key\. Did you mean 'lr'\?",
    ),
    "twice": ("plan.seeds", [1, 1], r"plan: seeds: 1 stands there twice"),
    "name": ("study", "../x", r"study: found '\.\./x'"),
    "own name": (
        "plan.losses",
        ["st2"],
        r"losses\.st2: no loss 'st2'\. Did you mean 'st1'\?",
    ),
    "not selected": ("losses.later", {"type": "htll"}, r"losses\.later: no loss 'htll'"),
    "too few": ("losses.st1.centers_per_class", 0, r"centers_per_class: found 0\. .*equal to 1"),
    "no number": ("losses.st1.gamma", float("nan"), r"losses\.st1\.gamma: found nan"),
    "zero": ("losses.st1.gamma", 0, r"losses\.st1\.gamma: found 0\. .*greater than 0"),
    "seed": ("plan.seeds", [2**70], r"plan\.seeds\.0: found 1180591620717411303424"),
    "tag": ("backbones.tiny.type", "resnet18.nonsense", r"timm has no model 'resnet18\.nonsense'"),
    "steps": ("recipe.schedule", "step", r"recipe: schedule: step needs step_epochs"),
    "checksum": (
        "datasets.letters.checksums",
        {"a.zip": "md55:1"},
        r"datasets\.letters\.checksums\.a\.zip: found 'md55:1'",
    ),
    "control": ("plan.losses", ["control_mine"], r"names that begin with control_"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_is_refused_with_file_key_and_fix(case):
    path, value, message = WRONG[case]
    with pytest.raises(StudyError, match=message) as caught:
        study.check(changed(path, value), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")


def test_a_batch_that_htl_cannot_fill_is_refused():
    wrong = changed("losses.htl7", {"type": "htl", "neighbours": 7})
    wrong["plan"]["losses"] = ["htl7"]
    message = r"losses\.htl7: neighbours 7 x images_per_class 4 does not divide .*batch_size 80"
    with pytest.raises(StudyError, match=message):
        study.check(wrong, "my.yaml")


def test_an_embedding_that_is_no_whole_number_of_blocks_is_refused():
    wrong = changed("losses.rll3", {"type": "rll", "blocks": 3})
    wrong["plan"]["losses"] = ["rll3"]
    message = r"losses\.rll3: blocks 3 does not divide the dim of backbones\.\w+ \d+\."
    with pytest.raises(StudyError, match=message):
        study.check(wrong, "my.yaml")


def test_all_that_is_wrong_is_said_at_once():
    wrong = changed("losses.st1.gama", 1, changed("datasets.letters.type", "glyph"))
    with pytest.raises(StudyError) as caught:
        study.check(wrong, "my.yaml")
    assert "gama" in str(caught.value)
    assert "glyph'" in str(caught.value)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3))
@settings(max_examples=60, deadline=None)
def test_any_value_at_any_top_key_is_accepted_or_refused_in_words(value):
    for key in ("plan", "recipe", "losses", "backbones", "datasets", "evaluation", "study"):
        with contextlib.suppress(StudyError):  # any other exception is a bug
            study.check(changed(key, value), "my.yaml")


def test_overrides_reach_every_loss_of_their_backbone_and_data_set():
    made = changed("backbones.tiny.recipe", {"lr": 0.25})
    made = changed("datasets.letters.recipe", {"epochs": 5}, made)
    runs = study.check(made, "made").runs.values()
    assert {(run.recipe.lr, run.recipe.epochs, run.recipe.batch_size) for run in runs} == {
        (0.25, 5, 80)
    }


def test_yaml_s_scientific_notation_without_a_dot_is_a_number():
    made = yaml.safe_load("lr: 1e-3")
    assert isinstance(made["lr"], str)  # YAML 1.1
    found = study.check(changed("recipe.lr", made["lr"]), "made")
    assert next(iter(found.runs.values())).recipe.lr == 1e-3


def test_a_weights_file_counts_by_its_content_and_not_by_its_path(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, content in zip(files, ["x", "x", "y"], strict=True):
        file.write_text(content)
    first, same, other = (keys(changed("backbones.tiny.pretrained", str(f))) for f in files)
    assert moved(first, same) == set()
    assert moved(first, other) == first.keys()


def test_timm_s_own_weights_count_by_their_tag_whether_they_are_staged_or_not(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    made = changed("backbones.tiny.pretrained", True)
    before = study.check(made, "made").runs
    assert {run.weights for run in before.values()} == {"test_resnet.r160_in1k"}
    settings = next(iter(before.values())).settings
    assert settings["backbone"]["pretrained"] == "timm:test_resnet.r160_in1k"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/test_resnet.r160_in1k.safetensors").write_bytes(b"x")
    assert moved(keys(made), {path: run.train_key for path, run in before.items()}) == set()
    others = dict(installed.timm_weights()) | {"test_resnet": "test_resnet.better"}
    monkeypatch.setattr(installed, "timm_weights", lambda: others)
    assert moved(keys(made), {path: run.train_key for path, run in before.items()}) == before.keys()
    monkeypatch.setattr(installed, "timm_weights", dict)
    with pytest.raises(StudyError, match=r"tiny\.pretrained: timm has no weights of test_resnet"):
        study.check(made, "made")


def test_the_weights_of_a_backbone_with_a_file_here_count_by_their_tag():
    made = changed("backbones.tiny", {"type": "bn_inception", "pretrained": True})
    run = next(iter(study.check(made, "made").runs.values()))
    assert run.weights == "bn_inception.caffe_in1k"
    assert run.settings["backbone"]["pretrained"] == "timm:bn_inception.caffe_in1k"
    assert "dmlbench.backbones.bn_inception" in source.code(*run.modules)
    tagged = changed("backbones.tiny.type", "bn_inception.caffe_in1k", made)
    assert next(iter(study.check(tagged, "made").runs.values())).weights == run.weights


def test_a_jpeg_store_is_another_folder_and_another_key():
    made = changed("datasets.letters.store", "jpeg")
    jpeg, pixels = (next(iter(study.check(s, "made").runs.values())) for s in (made, STUDY))
    assert jpeg.store.startswith("glyphs-32-jpeg-")
    assert jpeg.train_key != pixels.train_key
    assert "store" not in pixels.settings["dataset"]
    with pytest.raises(StudyError, match=r"datasets\.letters\.store: found 'png'"):
        study.check(changed("datasets.letters.store", "png"), "made")


def test_another_format_of_stores_is_another_folder(monkeypatch):
    before = set(study.check(STUDY, "made").stores)
    monkeypatch.setattr("dmlbench.run.FORMAT", -1)
    assert not before & set(study.check(STUDY, "made").stores)


def test_the_resolved_study_means_the_same(tmp_path):
    found = study.check(STUDY, "made")
    (tmp_path / "study.json").write_text(found.settings.model_dump_json())
    again = study.read(tmp_path / "study.json")
    assert {p: (r.train_key, r.eval_key) for p, r in again.runs.items()} == {
        p: (r.train_key, r.eval_key) for p, r in found.runs.items()
    }


CSV = """path,label,split
a.png,x,train
b.png,x,train
c.png,y,test
d.png,y,test
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A study of two entries with options beside the letters, their CSVs, and embeddings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(CSV.replace("x", name))
    Path("own.npz").write_text("vectors")
    made = copy.deepcopy(STUDY)
    made["datasets"] |= {name: {"type": "csv", "file": f"{name}.csv"} for name in ("a", "b")}
    made["embeddings"] = {"own": {"dataset": "letters", "file": "own.npz"}}
    made["plan"] |= {"datasets": ["letters", "a", "b"], "embeddings": ["own"]}
    return made


def test_entries_with_options_have_stores_of_their_own(own):
    Path("b.csv").write_text(Path("a.csv").read_text())  # equal, and yet two
    stores = study.check(own, "made").stores
    by_entry = {name.partition("-")[0]: run for name, run in stores.items()}
    assert set(by_entry) == {"glyphs", "a", "b"}
    assert len(stores) == 3
    assert by_entry["a"].facts["splits"] == {"train": [1, 2], "test": [1, 2]}


def test_another_row_is_another_store(own):
    before = set(study.check(own, "made").stores)
    Path("a.csv").write_text(CSV.replace("x", "z"))
    after = set(study.check(own, "made").stores)
    assert {name.partition("-")[0] for name in after - before} == {"a"}


def test_a_csv_counts_by_its_rows_and_not_by_its_path(own):
    before = keys(own)
    Path("elsewhere.csv").write_text(Path("a.csv").read_text().replace("\n", "\r\n"))
    own["datasets"]["a"]["file"] = "elsewhere.csv"
    assert moved(before, keys(own)) == set()
    Path("elsewhere.csv").write_text(CSV.replace("x", "z"))
    assert moved(before, keys(own)) == {path for path in before if path.startswith("a/")}


def test_channels_of_a_csv_move_its_runs_alone(own):
    before = keys(own)
    own["datasets"]["b"]["channels"] = 1
    assert moved(before, keys(own)) == {path for path in before if path.startswith("b/")}


def test_a_data_set_s_recall_at_moves_its_evaluations_and_no_training(own):
    before, scored = keys(own), keys(own, "eval_key")
    own["datasets"]["a"]["recall_at"] = [5]
    assert moved(before, keys(own)) == set()
    after = keys(own, "eval_key")
    assert moved(scored, after) == {path for path in before if path.startswith("a/")}
    own["evaluation"] = {"recall_at": [1]}
    runs = study.check(own, "made").runs.values()
    assert all(run.metric_settings["recall_at"] == [1] for run in runs)


def test_embeddings_are_a_row_of_their_data_set_once(own):
    given = {path: run for path, run in study.check(own, "made").runs.items() if run.embeddings}
    assert set(given) == {"letters/tiny/embeddings_own/seed0"}
    (run,) = given.values()
    assert not run.uses_model
    assert run.store.startswith("glyphs-32-")


def test_embeddings_count_by_their_content_and_data_and_nothing_else(own):
    path = "letters/tiny/embeddings_own/seed0"
    before = keys(own)
    Path("copy.npz").write_text("vectors")
    own["embeddings"]["own"]["file"] = "copy.npz"
    own["recipe"]["lr"] = 0.5
    own["backbones"]["tiny"]["dim"] = 32
    assert path not in moved(before, keys(own))
    _file_digest.cache_clear()  # once a process: a study is checked once
    Path("copy.npz").write_text("others")
    assert path in moved(before, keys(own))
    Path("copy.npz").write_text("vectors")
    _file_digest.cache_clear()
    own["datasets"]["letters"]["class_fraction"] = 0.25
    assert path in moved(before, keys(own))


WRONG_OWN = {
    "no file": ("datasets.a.file", None, r"datasets\.a\.file: found None"),
    "file is missing": ("datasets.a", {"type": "csv"}, r"datasets\.a: file: is missing"),
    "no such file": ("datasets.a.file", "no.csv", r"datasets\.a: file: cannot read no\.csv"),
    "option": ("datasets.a.chanels", 1, r"datasets\.a\.chanels: .*Did you mean 'channels'"),
    "common key": ("datasets.a.recipee", {}, r"datasets\.a\.recipee: .*Did you mean 'recipe'"),
    "channels": ("datasets.a.channels", 2, r"datasets\.a\.channels: found 2\..* 1 or 3"),
    "levels": ("datasets.a.levels", "top", r"datasets\.a\.levels: found 'top'"),
    "options of none": (
        "datasets.letters.file",
        "a.csv",
        r"datasets\.letters\.file: unknown key",
    ),
    "unknown embeddings": (
        "plan.embeddings",
        ["owl"],
        r"there is no embeddings\.owl\. Did you mean 'own'",
    ),
    "their data set": (
        "embeddings.own.dataset",
        "letter",
        r"embeddings\.own\.dataset: 'letter' is not in plan\.datasets\. Did you mean 'letters'",
    ),
    "their file": ("embeddings.own.file", "no.npz", r"embeddings\.own\.file: there is no file"),
    "their keys": ("embeddings.own.dim", 3, r"embeddings\.own\.dim: unknown key"),
    "their name": ("plan.losses", ["embeddings_own"], r"names that begin with embeddings_"),
}


@pytest.mark.parametrize("case", WRONG_OWN)
def test_wrong_data_and_embeddings_of_one_s_own_are_refused(own, case):
    path, value, message = WRONG_OWN[case]
    own["plan"]["datasets"] += ["omniglot"]
    with pytest.raises(StudyError, match=message):
        study.check(changed(path, value, own), "my.yaml")


def test_the_lines_of_a_wrong_csv_are_in_the_study_s_one_message(own):
    Path("a.csv").write_text(CSV.replace("b.png,x", "b.png,"))
    Path("b.csv").write_text(CSV.replace("train\nc", "test\nc"))
    with pytest.raises(StudyError) as caught:
        study.check(own, "my.yaml")
    assert "datasets.a: a.csv: 2 of its rows are wrong:\n    line 2: class 'x'" in str(caught.value)
    assert "line 3: label is empty" in str(caught.value)
    assert "line 3: split of class 'x' is 'test', and 'train' on line 2" in str(caught.value)


def test_images_that_are_missing_are_said_before_any_job_while_they_are_to_be_packed(own, tmp_path):
    found = study.check(own, "my.yaml")
    with pytest.raises(StudyError) as caught:
        look_for_images(found, tmp_path / "stores")
    assert "datasets.a: 4 images are not in .:\n    a.csv, line 2: no file a.png" in str(
        caught.value
    )
    assert "datasets.b: " in str(caught.value)
    for name in found.stores:
        (tmp_path / "stores" / name).mkdir(parents=True)
        manifest = {"settings": {"place": str(tmp_path.resolve() / "moved since")}}
        (tmp_path / "stores" / name / "manifest.json").write_text(json.dumps(manifest))
    look_for_images(found, tmp_path / "stores")


def test_mlflow_s_own_experiment_is_no_study_unless_it_is_not_told():
    with pytest.raises(StudyError, match="Default is MLflow's own experiment"):
        study.check(STUDY | {"study": "Default"}, "my.yaml")
    assert study.check(STUDY | {"study": "Default", "tracking": False}, "my.yaml").runs


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_a_file_that_is_no_study_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"broken\.yaml"):
        study.read(path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        study.read(tmp_path)


def test_batch_norm_is_frozen_where_the_backbone_is_pretrained_unless_said(tmp_path):
    (tmp_path / "weights").write_text("x")
    pretrained = changed("backbones.tiny.pretrained", str(tmp_path / "weights"))
    thawed = changed("recipe.freeze_bn", False, pretrained)
    frozen = [
        {run.recipe.freeze_bn for run in study.check(made, "made").runs.values()}
        for made in (STUDY, pretrained, thawed)
    ]
    assert frozen == [{False}, {True}, {False}]


def test_a_missing_file_is_refused_by_its_name():
    with pytest.raises(StudyError, match=r"nowhere\.yaml: .*\n.*no such file"):
        study.read("nowhere.yaml")


SHIPPED = {path.name: path for path in sorted((ROOT / "config").glob("*.yaml"))}
NEEDS_FILES = {"finetune.yaml": ["datasets.grocery: file", "backbones.mobilenet.pretrained"]}


@pytest.mark.parametrize("name", sorted(SHIPPED.keys() - NEEDS_FILES))
def test_the_studies_that_we_ship_are_right(name):
    assert study.read(SHIPPED[name]).runs


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_a_study_that_we_ship_without_its_files_asks_for_them_and_for_nothing_else(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused:
        study.read(SHIPPED[name])
    _, *problems = str(refused.value).splitlines()
    assert len(problems) == len(NEEDS_FILES[name])
    for path in NEEDS_FILES[name]:
        assert any(path in problem for problem in problems)


def test_the_schema_that_editors_read_is_the_models_own(tmp_path):
    from dmlbench.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["schema", "--output", str(tmp_path / "schema.json")])
    assert not ended.value.code
    written = (tmp_path / "schema.json").read_text()
    assert (ROOT / "config/schema.json").read_text() == written, "run: dmlbench schema"


def test_the_omniglot_study_has_every_loss_of_the_zoo():
    found = study.read(ROOT / "config/omniglot.yaml")
    assert {run.loss_type for run in found.runs.values()} >= {*list_losses()}


@pytest.fixture
def tested_elsewhere():
    """STUDY, tested on a smaller part of the glyphs."""
    made = changed("datasets.part", {"type": "glyphs", "class_fraction": 0.25})
    return changed("datasets.letters.test_on", "part", made)


def test_a_run_that_is_tested_elsewhere_has_both_data_sets_in_its_keys(tested_elsewhere):
    before, after = keys(STUDY), keys(tested_elsewhere)
    assert moved(before, after) == set(before)
    smaller = changed("datasets.part.class_fraction", 0.1, tested_elsewhere)
    assert moved(after, keys(smaller)) == set(after)
    other = changed("datasets.part.recall_at", [1, 3], tested_elsewhere)
    assert not moved(after, keys(other))
    assert moved(keys(tested_elsewhere, "eval_key"), keys(other, "eval_key")) == set(after)
    run = study.check(other, "made").runs["letters/tiny/softtriple/seed0"]
    assert run.metric_settings["recall_at"] == [1, 3]
    assert (run.data.class_fraction, run.tested.data.class_fraction) == (0.5, 0.25)
    assert run.settings["test"]["class_fraction"] == 0.25


def test_only_trainings_need_the_images_of_both_data_sets():
    made = changed("datasets.letters", {"type": "cub200", "test_on": "lfw"})
    found = study.check(made, "made")
    trained, control = (
        found.runs[f"letters/tiny/{name}/seed0"] for name in ("softtriple", "control_untrained")
    )
    assert [name.split("-")[0] for name in trained.stores] == ["cub200", "lfw"]
    assert [name.split("-")[0] for name in control.stores] == ["lfw"]
    assert {name.split("-")[0] for name in found.stores} == {"cub200", "lfw"}
    assert {run.tested.dataset for run in found.runs.values()} == {"lfw"}
    plain = study.check(STUDY, "made").runs["letters/tiny/softtriple/seed0"]
    assert plain.tested is plain
    assert plain.stores == [plain.store]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("datasets.letters.test_on", "lwf", r"letters\.test_on: no other .* 'lwf'.*mean 'lfw'"),
        ("datasets.letters.test_on", "letters", r"letters\.test_on: no other data set 'letters'"),
        ("datasets.letters.test_on", "lfw", r"lfw has 3 channels, and letters has 1\."),
        ("datasets.letters", {"type": "lfw"}, r"letters: it has no training split\. .*test_on"),
    ],
)
def test_a_test_that_cannot_be_is_refused(path, value, message):
    with pytest.raises(StudyError, match=message):
        study.check(changed(path, value), "made")


def test_a_data_set_without_training_split_may_be_defined(tested_elsewhere):
    made = changed("datasets.faces", {"type": "lfw"}, tested_elsewhere)
    assert study.check(made, "made").runs


def test_the_ablation_varies_the_two_parameters_that_it_says_and_nothing_else():
    found = study.read(ROOT / "config/ablation.yaml")
    runs = [run for run in found.runs.values() if run.trains]
    assert {run.loss_type for run in runs} == {"softtriple"}
    cells = {(run.loss_options["centers_per_class"], run.loss_options["tau"]) for run in runs}
    assert cells == {(1, 0.2), (2, 0.2), (5, 0.2), (10, 0.2), (2, 0), (5, 0), (10, 0)}
    assert len(runs) == 3 * len(cells)
    varied = ("centers_per_class", "tau")
    others = [{k: v for k, v in run.loss_options.items() if k not in varied} for run in runs]
    assert all(options == others[0] for options in others)
    assert len({run.recipe.model_dump_json() for run in runs}) == 1


def test_a_cell_has_a_tree_where_the_loss_s_file_says_that_it_gives_one(tiny):
    tiny["plan"] |= {"losses": ["htl", "flat", "rll", "average"], "seeds": [0, 1]}
    tiny["losses"] = {
        "flat": {"type": "normalized_softmax"},
        "average": {"type": "htl", "tree_linkage": "average"},
    }
    found = study.check(tiny, "tiny")
    assert found.trees == ["trees/letters/tiny/htl", "trees/letters/tiny/average"]
    trees = {row["loss"]: row["tree"] for row in found.rows}
    assert trees["htl"] == "trees/letters/tiny/htl"
    assert trees["rll"] is trees["flat"] is trees["control_random"] is None
