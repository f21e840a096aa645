"""Scores without the test images that are near-duplicates of training images."""

import json

import numpy as np
import pytest

from dmlbench.datasets.store.duplicates_file import (
    HOLDOUT,
    duplicates_path,
    read_duplicates,
    write_duplicates,
)
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.job import evaluate_job
from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.study.study import check_study
from dmlbench.utils.errors import DatasetError

CONTROL = "letters/tiny/control_oracle/seed0"


@pytest.fixture
def stores(tmp_path, data_folder, store_name):
    """A folder with the packed glyphs, whose near-duplicates may be written."""
    folder = tmp_path / "stores" / store_name
    folder.mkdir(parents=True)
    for file in (data_folder / "stores" / store_name).iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    return tmp_path / "stores"


@pytest.fixture
def scored(tiny, tmp_path, monkeypatch, glyphs, stores):
    """Score embeddings of the glyphs, and give metrics.json and what was scored."""
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["controls"] = ["oracle"]
    test = glyphs.split("test", Part(0.1))
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(len(test.rows), 8)).astype(np.float32)

    def score(flip=True, **changes):
        tiny["recipe"]["augmentation"] = {"flip": flip}
        study = check_study(tiny, "tiny")
        run, files = study.runs[CONTROL], study.files.run(CONTROL)
        files.folder.mkdir(parents=True, exist_ok=True)
        np.savez(files.embeddings, embeddings=embeddings, id=test.rows.astype(np.int32))
        outcome = {"train_key": run.train_key, "status": "ok", "error": None}
        files.write_run({**outcome, "settings": {}, "code": {}, "provenance": {}})
        evaluate_job(study, run, stores)
        return json.loads(files.metrics.read_text()), run, embeddings

    return score


def scores_of(metrics, protocol):
    return {r["metric"]: r["value"] for r in metrics["metrics"] if r["protocol"] == protocol}


class TestScoresWithoutLeaks:
    def test_they_are_those_of_the_other_images(
        self, scored, stores, store_name, glyphs, note_duplicates
    ):
        test, train = glyphs.split("test", Part(0.1)), glyphs.split("train", Part(0.1))
        leaked = test.rows[[3, 4, 100]].tolist()
        pairs = [(id, int(train.rows[0])) for id in leaked]
        note_duplicates(stores, store_name, pairs=pairs)
        metrics, run, embeddings = scored()
        kept = ~np.isin(test.rows, leaked)
        expected = evaluate(
            embeddings[kept],
            test.rows[kept],
            glyphs.index,
            glyphs.protocols,
            run.metric_settings,
            partial=True,
            levels=glyphs.levels,
        )
        without = scores_of(metrics, f"zero_shot {WITHOUT_LEAKS}")
        assert without == {row["metric"]: row["value"] for row in expected.rows}
        assert without["queries"] == len(test.rows) - 3
        assert metrics["near_duplicates"] == {"test_images": len(test.rows), "leaked": 3}
        assert [finding["name"] for finding in metrics["findings"]] == ["near-duplicates"]

    def test_the_scores_of_all_images_are_as_before(
        self, scored, stores, store_name, glyphs, note_duplicates
    ):
        note_duplicates(stores, store_name)
        before, *_ = scored()
        test, train = glyphs.split("test", Part(0.1)), glyphs.split("train", Part(0.1))
        note_duplicates(stores, store_name, pairs=[(int(test.rows[0]), int(train.rows[0]))])
        (stores.parent / "results/tiny/runs" / CONTROL / "metrics.json").unlink()
        after, *_ = scored()
        assert scores_of(after, "zero_shot") == scores_of(before, "zero_shot")
        assert {row["protocol"] for row in before["metrics"]} == {"zero_shot"}
        assert (before["findings"], before["near_duplicates"]["leaked"]) == ([], 0)

    def test_images_of_classes_that_are_not_used_do_not_count(
        self, scored, stores, store_name, glyphs, note_duplicates
    ):
        used = {split: glyphs.split(split, Part(0.1)).rows for split in ("train", "test")}
        unused = {split: np.setdiff1d(glyphs.split(split).rows, used[split]) for split in used}
        pairs = [(used["test"][0], unused["train"][0]), (unused["test"][0], used["train"][0])]
        note_duplicates(stores, store_name, pairs=[tuple(map(int, pair)) for pair in pairs])
        assert scored()[0]["near_duplicates"]["leaked"] == 0

    def test_a_holdout_is_scored_without_the_copies_of_what_it_trains_on(
        self, tiny, glyphs, stores, store_name, note_duplicates, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        tiny["plan"]["controls"] = ["oracle"]
        tiny["datasets"]["letters"] = {"type": "glyphs", "holdout": "class", "class_fraction": 0.1}
        part = Part(0.1, "class")
        test, train = (glyphs.split(name, part).rows for name in ("test", "train"))
        other = glyphs.split("train", Part(0.1, "level_1")).rows
        unused = np.setdiff1d(other, train)[0]
        assert {*glyphs.index["split"][test].tolist()} == {"train", "test"}
        pairs = [(test[0], train[0]), (test[5], train[0]), (test[9], unused)]
        pairs = [tuple(map(int, pair)) for pair in pairs]
        note_duplicates(stores, store_name, pairs=[(int(test[1]), int(train[0]))])  # own split
        note_duplicates(stores, HOLDOUT, store_name, pairs)
        study = check_study(tiny, "tiny")
        run, files = study.runs[CONTROL], study.files.run(CONTROL)
        embeddings = np.random.default_rng(0).normal(size=(len(test), 8)).astype(np.float32)
        files.folder.mkdir(parents=True)
        np.savez(files.embeddings, embeddings=embeddings, id=test.astype(np.int32))
        outcome = {"train_key": run.train_key, "status": "ok", "error": None}
        files.write_run({**outcome, "settings": {}, "code": {}, "provenance": {}})
        evaluate_job(study, run, stores)
        metrics = json.loads(files.metrics.read_text())
        assert metrics["near_duplicates"] == {"test_images": len(test), "leaked": 2}
        for protocol, kept in (
            ("zero_shot", np.full(len(test), True)),
            (f"zero_shot {WITHOUT_LEAKS}", ~np.isin(test, test[[0, 5]])),
        ):
            labels = glyphs.index["label"][test[kept]]
            similarity = embeddings[kept] / np.linalg.norm(embeddings[kept], axis=1, keepdims=True)
            similarity = similarity @ similarity.T
            np.fill_diagonal(similarity, -2)
            expected = np.mean(labels[similarity.argmax(axis=1)] == labels)
            scores = scores_of(metrics, protocol)
            assert scores["recall@1"] == pytest.approx(expected)
            assert scores["queries"] == kept.sum()

    def test_images_that_no_protocol_scores_do_not_count(
        self, scored, stores, store_name, glyphs, note_duplicates, monkeypatch
    ):
        first, second = (int(id) for id in glyphs.split("test", Part(0.1)).rows[:2])
        train = int(glyphs.split("train", Part(0.1)).rows[0])
        note_duplicates(stores, store_name, pairs=[(first, train), (second, train)])
        table = {name: values[glyphs.protocols["id"] != first] for name, values in
                 glyphs.protocols.items()}  # fmt: skip
        monkeypatch.setattr(Store, "protocols", table)
        metrics = scored()[0]
        assert metrics["near_duplicates"] == {
            "test_images": len(glyphs.split("test", Part(0.1)).rows) - 1,
            "leaked": 1,
        }

    @pytest.mark.parametrize(("flip", "leaked"), [(True, 1), (False, 0)])
    def test_a_mirrored_copy_counts_if_the_training_mirrors(
        self, scored, stores, store_name, glyphs, note_duplicates, flip, leaked
    ):
        test, train = (int(glyphs.split(split, Part(0.1)).rows[0]) for split in ("test", "train"))
        note_duplicates(stores, store_name, pairs=[(test, train, "mirrored")])
        assert scored(flip)[0]["near_duplicates"]["leaked"] == leaked

    def test_without_a_search_it_is_said_that_nobody_has_searched(
        self, scored, stores, store_name, note_duplicates
    ):
        metrics, *_ = scored()
        assert metrics["near_duplicates"] is None
        assert [f["name"] for f in metrics["findings"]] == ["near-duplicates not searched"]
        note_duplicates(stores, store_name)
        assert scored()[0]["near_duplicates"]["leaked"] == 0  # scored again under the same key

    def test_if_nothing_is_left_to_score_there_are_no_such_scores(
        self, scored, stores, store_name, glyphs, note_duplicates
    ):
        train = int(glyphs.split("train", Part(0.1)).rows[0])
        pairs = [(int(id), train) for id in glyphs.split("test", Part(0.1)).rows[1:]]
        note_duplicates(stores, store_name, pairs=pairs)
        metrics, *_ = scored()
        assert {row["protocol"] for row in metrics["metrics"]} == {"zero_shot"}
        (finding,) = metrics["findings"]
        assert finding["severity"] == 2
        assert finding["message"].endswith("too few are left")


class TestDuplicatesFile:
    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text[:-40],
            lambda text: text.replace('"distance": []', '"distance": [1]'),
            lambda text: "",
        ],
    )
    def test_a_damaged_file_is_none(self, stores, store_name, note_duplicates, change):
        note_duplicates(stores, store_name)
        file = duplicates_path(stores, store_name, store_name)
        assert read_duplicates(stores, store_name, store_name) is not None
        file.write_text(change(file.read_text()))
        assert read_duplicates(stores, store_name, store_name) is None

    def test_a_file_that_is_there_is_not_made_again(
        self, stores, store_name, note_duplicates, glyphs, monkeypatch
    ):
        test, train = (int(glyphs.split(split).rows[0]) for split in ("test", "train"))
        note_duplicates(stores, store_name, pairs=[(test, train)])
        monkeypatch.setattr("dmlbench.datasets.store.duplicates.find_duplicates", None)
        text = write_duplicates(stores, store_name, store_name)
        assert text.endswith(": 1 of the test images are near-duplicates of training images")

    def test_a_store_that_is_not_packed_is_an_error(self, stores):
        with pytest.raises(DatasetError, match="no complete store of a data set"):
            write_duplicates(stores, "missing-32-00000000", "missing-32-00000000")
