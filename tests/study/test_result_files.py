"""Every file of a study and of a run has one path, and a damaged one is noticed."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlbench.study.result_files import RunFiles, StudyFiles
from dmlbench.utils.digests import SMALL
from dmlbench.utils.errors import MissingResult

from ..result_edits import describe_again, edit_result

RUN = "letters/tiny/htl/seed0"


@pytest.fixture
def files(tmp_path):
    return StudyFiles(tmp_path / "my_study")


def paths(files):
    """The properties of `files` that are paths."""
    names = [name for name, value in vars(type(files)).items() if isinstance(value, property)]
    values = {name: getattr(files, name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, Path)}


def test_no_two_files_have_the_same_path(files):
    every = [*paths(files).values(), *paths(files.run(RUN)).values()]
    assert len(set(every)) == len(every)
    assert all(path.is_relative_to(files.folder) for path in every)


def test_a_run_has_its_own_folder_and_its_own_state(files):
    run = files.run(RUN)
    assert run == RunFiles(files.folder / "runs" / RUN, files.folder / "state" / RUN)
    assert run.training_files[-1] == run.run


def test_a_run_is_unfinished_while_its_state_has_a_lock(files):
    assert list(files.unfinished()) == []
    state = files.run(RUN).state
    state.mkdir(parents=True)
    assert list(files.unfinished()) == []
    (state / "lock").touch()
    assert list(files.unfinished()) == [RUN]


@pytest.fixture
def run(files):
    """A finished run with all kinds of files."""
    run = files.run(RUN)
    run.artefacts.mkdir(parents=True)
    contents = {run.history: b"PAR1", run.embeddings: b"PK", run.loss_artefact: b"{}"}
    for file, content in (contents | {run.model: b"weights"}).items():
        file.write_bytes(content)
    outcome = {"train_key": "t", "status": "ok", "error": None, "settings": {}, "code": {}}
    run.write_run(outcome | {"provenance": {"device": "cpu", "train_seconds": 1.5}})
    row = {"protocol": "zero_shot", "metric": "recall@1", "value": 0.75}
    run.write_metrics(outcome | {"eval_key": "e", "metrics": [row]}, run.load_run())
    return run


def test_results_are_read_as_they_were_written(run):
    trained, scored = run.load_run(), run.load_metrics()
    assert [*trained["files"]] == [
        "history.parquet",
        "embeddings.npz",
        "model.safetensors",
        "artefacts/loss.json",
    ]
    assert trained["files"]["embeddings.npz"] == {
        "bytes": 2,
        "sha256": sha256(b"PK").hexdigest(),
    }
    assert scored["training"] == trained["digest"]
    assert (run.read_run(), run.read_metrics()) == (trained, scored)
    assert run.find_problems(trained) == []


def test_a_missing_result_is_none_and_is_named(files):
    run = files.run(RUN)
    assert (run.read_run(), run.read_metrics(), run.read_failure()) == (None, None, {})
    with pytest.raises(MissingResult, match=r"metrics\.json: No such file.*`snakemake` makes it\."):
        run.load_metrics()


def test_a_failure_is_read_from_the_file_that_was_put_aside(run):
    error = {"message": "the loss is nan", "tail": []}
    failed = {"train_key": "t", "status": "diverged", "error": error, "settings": {}, "code": {}}
    run.write_metrics(failed | {"eval_key": "e", "metrics": []}, run.load_run())
    run.metrics.rename(run.failed)
    assert run.read_failure()["error"]["message"] == "the loss is nan"
    run.failed.write_text(run.failed.read_text().replace("nan", "0"))
    assert run.read_failure() == {}


@given(
    name=st.sampled_from(["run", "metrics"]),
    place=st.floats(0, 1, exclude_max=True),
    data=st.data(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_byte_that_changes_and_any_end_that_is_cut_is_noticed(run, name, place, data):
    file = getattr(run, name)
    content = file.read_bytes()
    position = int(place * len(content))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[position]))
    damages = [
        content[:position],
        content[:position] + bytes([other]) + content[position + 1 :],
        content[:position] + content[position + 1 :],
        content[:position] + bytes([other]) + content[position:],
    ]
    try:
        for damaged in damages:
            file.write_bytes(damaged)
            with pytest.raises(MissingResult, match="damaged"):
                getattr(run, f"load_{name}")()
    finally:
        file.write_bytes(content)


NONSENSE = ["", "{}", "[]", "null", "7", "[" * 100_000, '{"digest": "0"}', "\0" * 9]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_no_result(run, text):
    run.run.write_text(text)
    run.metrics.write_text(text)
    assert (run.read_run(), run.read_metrics()) == (None, None)


ROW = {"protocol": "zero_shot", "metric": "recall@1", "value": 0.75}
ERROR = {"message": "it broke", "tail": []}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metrics": [ROW | {"value": 7.5}]}, r"recall@1 is 7\.5, and must be from 0 to 1"),
        ({"metrics": [ROW | {"value": -0.1}]}, "recall@1 is -0.1"),
        ({"metrics": [ROW | {"metric": "ami", "value": -1.1}]}, r"ami is -1\.1"),
        ({"metrics": [ROW | {"metric": "queries", "value": -1.0}]}, "queries is -1"),
        ({"metrics": [ROW | {"value": float("nan")}]}, "finite"),
        ({"metrics": [ROW | {"value": float("inf")}]}, "finite"),
        ({"metrics": [ROW | {"value": "0.5"}]}, "number"),
        ({"metrics": [ROW | {"value": True}]}, "number"),
        ({"metrics": [ROW | {"protocol": ""}]}, "protocol"),
        ({"metrics": [ROW, ROW]}, "more than one value"),
        ({"metrics": [ROW, None]}, r"metrics\.1"),
        ({"metrics": []}, "has scores"),
        ({"metrics": {}}, "list"),
        ({"status": "diverged"}, "has an error"),
        ({"error": ERROR}, "has an error"),
        ({"status": "diverged", "error": ERROR}, "a failed one has none"),
        ({"status": "diverged", "error": {"message": "it broke"}}, r"error\.tail"),
        ({"eval_key": 7}, "eval_key"),
        ({"settings": []}, "settings"),
    ],
)
def test_scores_that_cannot_be_are_refused_though_their_digest_is_right(run, changes, problem):
    edit_result(run.metrics, **changes)
    with pytest.raises(MissingResult, match=rf"metrics\.json: damaged.*{problem}"):
        run.load_metrics()


@pytest.mark.parametrize(
    "row",
    [
        {"metric": "ami", "value": -0.25},
        {"metric": "pairs", "value": 6000.0},
        {"metric": "queries", "value": 9},
        {"metric": "recall@2", "value": 1 + 1e-12},
    ],
)
def test_scores_that_can_be_are_read(run, row):
    edit_result(run.metrics, metrics=[ROW, ROW | row])
    assert run.load_metrics()["metrics"][1] == ROW | row


FILE = {"bytes": 3, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"files": {"../../other": FILE}}, "files"),
        ({"files": {"/etc/passwd": FILE}}, "files"),
        ({"files": {"artefacts/../../x": FILE}}, "files"),
        ({"files": {"history.parquet": FILE | {"bytes": -1}}}, "bytes"),
        ({"files": []}, "files"),
        ({"provenance": {"train_seconds": -1.0}}, "train_seconds"),
        ({"provenance": {"images_per_second": float("nan")}}, "images_per_second"),
        ({"provenance": []}, "provenance"),
        ({"settings": 7}, "settings"),
        ({"train_key": ""}, "train_key"),
    ],
)
def test_a_training_that_cannot_be_is_refused_though_its_digest_is_right(run, changes, problem):
    edit_result(run.run, **changes)
    with pytest.raises(MissingResult, match=rf"run\.json: damaged.*{problem}"):
        run.load_run()


@pytest.mark.parametrize("name", ["history", "embeddings", "model", "loss_artefact"])
def test_files_of_a_training_are_checked(run, name):
    file, trained = getattr(run, name), run.load_run()
    run.check_file(file, trained)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    assert run.find_damaged(trained) == run.find_damaged(trained, quick=True) == [file]
    with pytest.raises(MissingResult, match=f"{file.name}: damaged: it is not the file"):
        run.check_file(file, trained)
    file.unlink()
    assert run.find_damaged(trained) == []
    assert run.find_missing(trained) == [file]
    with pytest.raises(MissingResult, match=f"{file.name}: there is no such file"):
        run.check_file(file, trained)


def test_a_quick_look_at_a_large_file_takes_its_size_alone(run):
    run.embeddings.write_bytes(bytes(SMALL + 1))
    describe_again(run)
    trained = run.load_run()
    run.embeddings.write_bytes(bytes(SMALL) + b"x")
    assert run.find_damaged(trained, quick=True) == []
    assert run.find_damaged(trained) == [run.embeddings]
    run.embeddings.write_bytes(bytes(SMALL))
    assert run.find_damaged(trained, quick=True) == [run.embeddings]


def test_a_table_needs_neither_embeddings_nor_a_model(run):
    trained = run.load_run()
    for file in (run.embeddings, run.model, run.history):
        file.unlink()
    assert run.find_problems(trained) == [(run.history, "missing")]
