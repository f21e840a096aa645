import numpy as np
import pytest

from dmlbench.datasets.store.part import Part
from dmlbench.evaluation.job import evaluate_job
from dmlbench.study.study import check_study


@pytest.fixture
def drawn(tiny, tmp_path, monkeypatch, glyphs, data_folder):
    """A study of two losses with two seeds that asks for pictures, with its results."""
    monkeypatch.chdir(tmp_path)
    tiny["plan"] |= {"seeds": [0, 1], "controls": ["random"]}
    tiny["report"] = {"galleries": True, "maps": "pca"}
    study = check_study(tiny, "tiny")
    test = glyphs.split("test", Part(0.1))
    for number, run in enumerate(study.runs.values()):
        write_training(study, run, test, np.random.default_rng(number))
        evaluate_job(study, run, data_folder / "stores")
    return study


def write_training(study, run, test, generator):
    """Write what a training would, with embeddings that know a little of the classes."""
    means = np.random.default_rng(7).normal(size=(test.labels.max() + 1, 16))
    vectors = means[test.labels] + 1.2 * generator.normal(size=(len(test.rows), 16))
    files = study.files.run(run.path)
    files.folder.mkdir(parents=True)
    order = generator.permutation(len(vectors))  # the ids say which image is which
    with files.embeddings.open("wb") as file:
        np.savez(file, embeddings=vectors[order].astype("f4"), id=test.rows[order].astype("i4"))
    result = {"train_key": run.train_key, "status": "ok", "error": None}
    files.write_run({**result, "settings": run.settings, "code": {}, "provenance": {}})
