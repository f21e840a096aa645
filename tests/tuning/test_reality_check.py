"""`protocol: reality_check`: four models, each without one block of the training classes."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dmlbench.backbones.concatenated import ConcatenatedModels
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.embed import load_model
from dmlbench.evaluation.job import evaluate_job
from dmlbench.study.study import check_study
from dmlbench.study.tuning import resolve
from dmlbench.training import train as training
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.job import train_job
from dmlbench.training.train import train
from dmlbench.tuning import reality_check
from dmlbench.tuning.models_job import train_models_job
from dmlbench.tuning.reality_check import BestModel
from dmlbench.utils.errors import StudyError

CLASSES, IMAGES, EPOCHS, STEPS = 16, 3, 2, 2
RATES = EPOCHS * (3 * STEPS + 1)
"""How often the training of a model asks for a rate: of three groups in each step, and once for
each row of the history."""
PATH = "small/tiny/normalized_softmax/seed0"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """16 classes to train on and 4 to test on, three images of 32 pixels each."""
    folder = tmp_path_factory.mktemp("small")
    random, rows = np.random.default_rng(0), ["path,label,split"]
    for number in range(CLASSES + 4):
        pattern = random.integers(0, 256, (4, 4, 3))
        for view in range(IMAGES):
            noise = random.integers(-60, 60, pattern.shape)
            pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            name = f"{number:02}_{view}.png"
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(folder / name)
            rows.append(f"{name},class{number:02},{'train' if number < CLASSES else 'test'}")
    (folder / "small.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    return {
        "study": "check",
        "protocol": "reality_check",
        "plan": {
            "datasets": ["small"],
            "backbones": ["tiny"],
            "losses": ["normalized_softmax"],
            "seeds": [0],
            "controls": ["untrained"],
        },
        "datasets": {"small": {"type": "csv", "file": str(folder / "small.csv")}},
        "backbones": {"tiny": {"type": "test_resnet", "dim": 8, "image_size": 32}},
        "recipe": {"batch_size": 18, "images_per_class": 3, "epochs": EPOCHS, "lr": 0.003},
        "tracking": False,
    }


@pytest.fixture(scope="module")
def stores(folder, settings):
    (name,) = check_study(settings, "check").stores
    options = {"file": str(folder / "small.csv")}
    pack("csv", 32, folder / "stores" / name, folder, workers=1, options=options)
    return folder / "stores"


@pytest.fixture
def study(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return check_study(settings, "check")


@pytest.fixture(scope="module")
def finished(settings, stores, tmp_path_factory):
    """The results of an unbroken run that keeps its models."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = check_study(settings | {"keep_model": True}, "check")
        assert train_models_job(study, study.runs[PATH], stores, None) == 0
    return folder


@pytest.fixture
def results(finished, study, tmp_path):
    """A copy of the results in the current folder: the files of the run."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return study.files.run(PATH)


def read_embeddings(files):
    with np.load(files.embeddings) as content:
        return content["embeddings"]


def naive_map_at_r(embeddings, labels):
    vectors = embeddings.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = []
    for query in range(len(labels)):
        others = np.delete(np.arange(len(labels)), query)
        order = others[np.argsort(-(vectors[others] @ vectors[query]), kind="stable")]
        relevant = (labels[order] == labels[query]).astype(float)
        r = int(relevant.sum())
        precisions = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
        values.append((precisions * relevant)[:r].sum() / r)
    return float(np.mean(values))


def test_each_model_is_an_ordinary_training_without_its_block_at_its_best_epoch(
    results, study, stores, tmp_path
):
    """An independent loop: four trainings by `train`, each on rows chosen here."""
    run, trained = study.runs[PATH], results.load_run()
    store = Store(stores / run.store)
    whole = store.split("train")
    test = store.split("test")
    expected = []
    for block in range(4):
        held_out = np.arange(4 * block, 4 * block + 4)  # in the order of the classes
        is_out = np.isin(whole.labels, held_out)
        labels = np.unique(whole.labels[~is_out], return_inverse=True)[1]
        names = [name for number, name in enumerate(whole.class_names) if number not in held_out]
        split = whole._replace(rows=whole.rows[~is_out], labels=labels, class_names=names)
        by_epoch = []

        def record(model, epoch, _history, is_out=is_out, by_epoch=by_epoch):
            rows = whole.rows[is_out]
            validated = embed(model.eval(), open_inputs(run, store), rows, CPU)
            score = naive_map_at_r(validated, whole.labels[is_out])
            by_epoch.append((score, embed(model, open_inputs(run, store), test.rows, CPU)))
            return {}

        single = replace(run, protocol="standard")
        train(single, store, split, CPU, tmp_path / f"own{block}", lambda: None, record)
        scores = [score for score, _ in by_epoch]
        best = int(np.argmax(scores))
        facts = trained["models"][block]
        assert facts["best_epoch"] == best + 1
        assert facts["best_score"] == pytest.approx(scores[best], abs=1e-9)
        assert (facts["classes"], facts["images"]) == ([12, 4], [36, 12])
        embeddings = by_epoch[best][1]
        expected.append(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    assert np.allclose(read_embeddings(results), np.concatenate(expected, axis=1), atol=1e-6)


def test_the_history_has_the_epochs_of_all_models_and_the_files_say_what_they_are(results, study):
    trained, run = results.load_run(), study.runs[PATH]
    rows = pq.read_table(results.history).to_pylist()
    assert [(row["model"], row["epoch"]) for row in rows] == [
        (model, epoch) for model in (1, 2, 3, 4) for epoch in (1, 2)
    ]
    assert [row["step"] for row in rows] == [STEPS * number for number in range(1, 9)]
    for number, facts in enumerate(trained["models"]):
        scores = [row["score"] for row in rows if row["model"] == number + 1]
        assert facts["best_score"] == max(scores)
        assert scores.index(max(scores)) == facts["best_epoch"] - 1
        assert facts["loss_parameters"] == 12 * run.model.dim  # a proxy for each class
    assert trained["provenance"]["loss_parameters"] == 4 * 12 * run.model.dim
    assert trained["settings"]["protocol"] == "reality_check"
    assert "dmlbench.tuning.reality_check" in trained["code"]
    assert read_embeddings(results).shape == (4 * IMAGES, 4 * run.model.dim)
    assert not results.state.exists()


def test_the_kept_models_give_the_same_embeddings(results, settings, stores):
    keeping = check_study(settings | {"keep_model": True}, "check")
    run = keeping.runs[PATH]
    model = load_model(keeping, run)
    assert isinstance(model, ConcatenatedModels)
    store = Store(stores / run.store)
    wide = replace(run, model=run.model.model_copy(update={"dim": run.embedding_dim}))
    again = embed(model, open_inputs(wide, store), store.split("test").rows, CPU)
    assert np.array_equal(again, read_embeddings(results))


def test_all_rows_of_a_study_are_scored_in_both_ways(results, study, stores):
    evaluate_job(study, study.runs[PATH], stores)
    values = {
        (row["protocol"], row["metric"]): row["value"] for row in results.load_metrics()["metrics"]
    }
    labels = np.repeat(np.arange(4), IMAGES)
    embeddings = read_embeddings(results)
    alone = [naive_map_at_r(part, labels) for part in np.split(embeddings, 4, axis=1)]
    assert values["zero_shot separated", "map@r"] == pytest.approx(np.mean(alone), abs=1e-9)
    together = naive_map_at_r(embeddings, labels)
    assert values["zero_shot concatenated", "map@r"] == pytest.approx(together, abs=1e-9)

    control = study.runs["small/tiny/control_untrained/seed0"]
    train_job(study, control, stores, None)
    evaluate_job(study, control, stores)
    files = study.files.run(control.path)
    scores = {
        (row["protocol"], row["metric"]): row["value"] for row in files.load_metrics()["metrics"]
    }
    assert scores["zero_shot separated", "map@r"] == scores["zero_shot concatenated", "map@r"]
    assert read_embeddings(files).shape == (4 * IMAGES, 8)


def test_a_run_that_was_killed_in_its_third_model_ends_with_the_same_bits(
    results, study, stores, monkeypatch
):
    unbroken = read_embeddings(results), results.load_run()["models"]
    history = pq.read_table(results.history).drop_columns(["seconds", "images_per_second"])
    shutil.rmtree(results.folder)

    class Killed(BaseException):
        pass

    rates, done = iter(range(1000)), 2 * RATES + RATES // 2 + 3  # one step of the second epoch

    def kill(*_):
        if next(rates) == done:
            raise Killed
        return 1.0

    monkeypatch.setattr(Checkpoint, "should_save", lambda self: True)
    with monkeypatch.context() as patch:
        patch.setattr(training, "schedule", kill)
        with pytest.raises(Killed):
            train_models_job(study, study.runs[PATH], stores, None)
    assert not results.run.exists()
    left = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "schedule", lambda *_: left.append(1) or 1.0)
        assert train_models_job(study, study.runs[PATH], stores, None) == 0
    assert len(left) == 4 * RATES - done, "no step is done twice"
    assert np.array_equal(read_embeddings(results), unbroken[0])
    assert results.load_run()["models"] == unbroken[1]
    again = pq.read_table(results.history).drop_columns(["seconds", "images_per_second"])
    assert again.equals(history)


def test_a_run_that_was_killed_after_its_last_model_embeds_as_an_unbroken_one(
    results, study, stores, monkeypatch
):
    unbroken = read_embeddings(results)
    shutil.rmtree(results.folder)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reality_check, "embed_test", kill)
        with pytest.raises(KeyboardInterrupt):
            train_models_job(study, study.runs[PATH], stores, None)
    monkeypatch.setattr(training, "schedule", lambda *_: pytest.fail("a model is trained again"))
    torch.set_num_threads(2)
    train_models_job(study, study.runs[PATH], stores, None)
    assert torch.get_num_threads() == study.runs[PATH].recipe.cpu_threads
    assert np.array_equal(read_embeddings(results), unbroken)


def test_the_test_images_are_read_after_the_last_epoch_alone(results, study, stores, monkeypatch):
    shutil.rmtree(results.folder)
    events = []
    split, rate = Store.split, training.schedule

    def recorded(self, name, *args):
        events.append(name)
        return split(self, name, *args)

    monkeypatch.setattr(Store, "split", recorded)
    monkeypatch.setattr(training, "schedule", lambda *args: events.append("step") or rate(*args))
    train_models_job(study, study.runs[PATH], stores, None)
    assert events.count("step") == 4 * RATES
    assert "test" not in events[:-1]
    assert events[-1] == "test"


def test_a_damaged_model_is_trained_again_and_no_other(results, study, stores, monkeypatch):
    """The disk damages the best model of the second fold before the run is finished."""
    unbroken = read_embeddings(results)
    shutil.rmtree(results.folder)
    load, damaged = Checkpoint.load, []

    def damage_once(self):
        if self.path.parent.parent.name == "fold1" and self.path.is_file() and not damaged:
            damaged.append(self.path)
            content = bytearray(self.path.read_bytes())
            content[len(content) // 2] ^= 1
            self.path.write_bytes(content)
            self.previous.unlink(missing_ok=True)
        return load(self)

    run = study.runs[PATH]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "load", damage_once)
        train_models_job(study, run, stores, None)
    failed = results.load_run()
    assert failed["error"]["message"].startswith("model 2: its file is damaged")
    models = []
    monkeypatch.setattr(
        training.Progress, "epoch", lambda self, *args: models.append(self.path.parent.name)
    )
    train_models_job(study, run, stores, None)
    assert results.load_run()["status"] == "ok"
    assert np.array_equal(read_embeddings(results), unbroken)
    assert models.count("fold0") == 0
    assert models.count("fold1") == EPOCHS


@pytest.mark.parametrize(
    ("scores", "patience", "is_enough"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.5], 1, True),  # an equal score is not a better one
        ([0.5, 0.4, 0.6], 1, False),
        ([0.5, 0.4, 0.3], 3, False),
        ([0.5, 0.4, 0.3, 0.2], 3, True),
        ([0.5, 0.4, 0.3, 0.2], None, False),
    ],
)
def test_a_training_ends_after_so_many_epochs_without_a_better_score(scores, patience, is_enough):
    history = [{"epoch": epoch, "score": score} for epoch, score in enumerate(scores, start=1)]
    validation = BestModel(None, None, None, CPU, patience, None)
    assert validation.is_enough(history) is is_enough


def test_patience_ends_the_training_of_each_model_by_itself(
    settings, stores, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    # frozen, and almost no rate: the scores of all epochs are equal
    recipe = settings["recipe"] | {"patience": 1, "lr": 1e-9, "freeze_bn": True, "epochs": 4}
    study = check_study(settings | {"recipe": recipe}, "check")
    train_models_job(study, study.runs[PATH], stores, None)
    trained = study.files.run(PATH).load_run()
    assert [(facts["best_epoch"], facts["epochs"]) for facts in trained["models"]] == [(1, 2)] * 4


def test_patience_is_in_the_key_of_this_protocol_alone(settings, study):
    run = study.runs[PATH]
    assert run.settings["recipe"]["patience"] is None
    recipe = settings["recipe"] | {"patience": 2}
    patient = check_study(settings | {"recipe": recipe}, "check").runs[PATH]
    assert patient.train_key != run.train_key
    standard = settings | {"protocol": "standard"}
    assert "patience" not in check_study(standard, "check").runs[PATH].settings["recipe"]
    with pytest.raises(StudyError, match=r"recipe\.patience: 2 is not used by protocol: standard"):
        check_study(standard | {"recipe": recipe}, "check")


def test_a_tuned_run_takes_the_options_and_rates_of_the_best_trial_and_not_its_epochs(settings):
    tuning = {"trials": 2, "folds": 4, "classes": "contiguous"}
    study = check_study(settings | {"tuning": tuning}, "check")
    run = study.runs[PATH]
    chosen = {"loss_options": {"temperature": 0.07}, "recipe": {"lr": 0.01}, "epochs": 2}
    final = resolve(run, chosen)
    assert (final.loss_options["temperature"], final.recipe.lr) == (0.07, 0.01)
    assert (final.models, final.last_epoch) == (4, None)
    trial = study.tuned_cells[run.cell][1]
    assert (trial.run.models, trial.run.protocol) == (1, "standard")
    assert "patience" not in trial.settings["recipe"]
