"""A tuned run trains with what was chosen, on all training classes, and opens the test at last."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dmlbench.datasets.store import reader
from dmlbench.datasets.store.part import WHOLE, Part
from dmlbench.evaluation.job import evaluate_job
from dmlbench.study.study import check_study
from dmlbench.study.tuning import choice_key, resolve
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.job import train_job
from dmlbench.training.train import train
from dmlbench.tuning.choice import choose_job
from dmlbench.tuning.trial import trial_job
from dmlbench.utils.errors import MissingResult

from ..tuned_results import write_trials

CELL = "letters/tiny/normalized_softmax"
PATH = f"{CELL}/seed0"
CPU = torch.device("cpu")


@pytest.fixture
def train_run(study, data_folder):
    """Train the tuned run as a job: its exit code, and its result."""

    def run(of=study):
        code = train_job(of, of.runs[PATH], data_folder / "stores", None)
        return code, of.files.run(PATH).load_run()

    return run


def write_choice(study, number, epochs=2):
    """Let trial `number` be the best one, after this many epochs."""
    for i, path in enumerate(study.trials):
        write_trials(study, path, score=0.9 if i == number else 0.5)
    choose_job(study, study.tuned_cells[CELL])
    files = study.files.choice(CELL)
    content = files.load_chosen()
    del content["digest"]
    content["chosen"]["epochs"] = epochs
    files.write_chosen(content)
    return files.load_chosen()["chosen"]


def test_a_tuned_run_is_the_training_of_the_chosen_settings_up_to_the_chosen_epoch(
    study, train_run, glyphs, tmp_path, data_folder
):
    chosen = write_choice(study, number=1)
    code, result = train_run()
    assert (code, result["status"], result["error"]) == (0, "ok", None)
    run, files = study.runs[PATH], study.files.run(PATH)
    resolved = resolve(run, chosen)
    split = glyphs.split("train", Part(0.04))
    model, *_ = train(resolved, glyphs, split, CPU, tmp_path / "own", lambda: None)
    test = glyphs.split("test", Part(0.04))
    with np.load(files.embeddings) as file:
        assert np.array_equal(
            file["embeddings"], embed(model.eval(), open_inputs(run, glyphs), test.rows, CPU)
        )
        assert str(file["train_key"]) == run.train_key

    rows = pq.read_table(files.history).to_pylist()
    assert [row["epoch"] for row in rows] == [1, 2]  # of three
    assert rows[0]["step"] == len(split.rows) // run.recipe.batch_size  # all training classes
    steps, lr = rows[0]["step"], resolved.recipe.lr
    for row in rows:  # the cosine of three epochs
        cosine = 0.5 * (1 + np.cos(np.pi * (row["step"] - 1) / (3 * steps)))
        assert row["lr"] == pytest.approx(lr * cosine)

    assert (result["train_key"], result["chosen"]) == (run.train_key, chosen)
    assert result["planned"] == json.loads(json.dumps(run.settings))
    settings = result["settings"]
    assert settings["loss"] == {"type": "normalized_softmax", **resolved.loss_options}
    assert settings["recipe"]["lr"] == lr == study.trials[f"{CELL}/trial1"].run.recipe.lr
    assert settings["last_epoch"] == 2
    assert settings["tuning"] == run.settings["tuning"]
    evaluate_job(study, run, data_folder / "stores")
    assert files.load_metrics()["status"] == "ok"


def test_a_run_is_trained_again_if_and_only_if_another_choice_is_made(study, tuned, train_run):
    write_choice(study, number=1)
    train_run()
    file = study.files.run(PATH).run
    written = file.read_bytes()
    train_run()
    tuned["tuning"]["trials"] = 4
    more = check_study(tuned, "tiny")
    write_choice(more, number=1)
    _, same = train_run(more)
    assert file.read_bytes() == written  # more trials, and the same choice
    chosen = write_choice(more, number=3)
    _, other = train_run(more)
    assert other["chosen"] == chosen != same["chosen"]
    write_choice(more, number=3, epochs=1)
    _, shorter = train_run(more)
    assert len(pq.read_table(study.files.run(PATH).history)) == 1
    assert shorter["train_key"] == same["train_key"]


def test_what_is_left_of_a_training_with_another_choice_is_not_continued(
    study, train_run, monkeypatch
):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dmlbench.training.checkpoint.MIN_INTERVAL", 0.0)
    monkeypatch.setattr("dmlbench.training.checkpoint.MAX_TIME_SHARE", 1e9)
    write_choice(study, number=1, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("dmlbench.training.embedding.embed_test", fail)
        with pytest.raises(KeyboardInterrupt):
            train_run()
    assert (study.files.run(PATH).state / "checkpoint.pt").is_file()
    write_choice(study, number=2, epochs=1)
    train_run()
    with np.load(study.files.run(PATH).embeddings) as file:
        after = file["embeddings"]
    study.files.run(PATH).run.unlink()
    train_run()
    with np.load(study.files.run(PATH).embeddings) as file:
        assert np.array_equal(file["embeddings"], after)


def test_without_a_choice_of_the_planned_trials_there_is_one_message(study, tuned, train_run):
    with pytest.raises(MissingResult, match=r"chosen\.json: No such file or directory"):
        train_run()
    write_choice(study, number=0)
    tuned["tuning"]["trials"] = 4
    more = check_study(tuned, "tiny")
    assert choice_key(more.tuned_cells[CELL]) != choice_key(study.tuned_cells[CELL])
    with pytest.raises(MissingResult, match=r"chosen\.json: it has key .* `snakemake` chooses"):
        train_run(more)


@pytest.mark.parametrize("status", ["diverged", "error"])
def test_if_nothing_was_chosen_the_run_has_the_status_of_the_choice(study, train_run, status):
    write_trials(study, status=status)
    choose_job(study, study.tuned_cells[CELL])
    code, result = train_run()
    assert (code, result["status"], result["chosen"]) == (0, status, None)
    assert result["error"]["message"].startswith(
        f"{CELL}: nothing is chosen: 3 trials, and none succeeded. Trial 0: {status}: "
    )


class CountingStore(reader.Store):
    """Notes the splits that are opened and the images that are read, in their order."""

    events = []  # noqa: RUF012

    def split(self, name, part=WHOLE):
        self.events.append(name)
        return super().split(name, part)

    def __getitem__(self, row):
        self.events.append(int(row))
        return super().__getitem__(row)

    def stack(self, rows):
        self.events.extend(rows.tolist())
        return super().stack(rows)


def test_nothing_before_the_last_embedding_opens_the_test_split(
    study, train_run, data_folder, glyphs, monkeypatch
):
    events = []
    monkeypatch.setattr(CountingStore, "events", events)
    monkeypatch.setattr("dmlbench.datasets.store.reader.Store", CountingStore)
    is_test = glyphs.index["split"] == "test"

    for trial in study.trials.values():
        assert trial_job(study, trial, data_folder / "stores", None) == 0
    choose_job(study, study.tuned_cells[CELL])
    read = [event for event in events if isinstance(event, int)]
    assert len({*read}) > 50
    assert not is_test[read].any()
    assert {event for event in events if isinstance(event, str)} == {"train"}

    events.clear()
    _, result = train_run()
    rows, files = result["provenance"], study.files.run(PATH)
    assert result["status"] == "ok"
    assert rows["train_seconds"] > 0
    with np.load(files.embeddings) as file:
        ids = file["id"].tolist()
    first = events.index("test")
    assert not is_test[[event for event in events[:first] if isinstance(event, int)]].any()
    after = [event for event in events[first:] if event != "test"]
    assert {*after} == {*ids}  # the test images, and nothing else
