"""Which jobs are pending, and why: each step alone, and all steps together."""

import contextlib
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlbench.leaderboard.made_of import read_results_digest, write_made_of
from dmlbench.planning.pending import (
    AFTER_OTHERS,
    AFTER_TRAINING,
    Pending,
    Reason,
    add_downstream,
    add_missing,
    find_changed,
    find_pending,
    read_results,
)
from dmlbench.study.result_shape import DAMAGED
from dmlbench.study.study import check_study
from dmlbench.tracking.sync import tracking_uri
from dmlbench.utils.digests import add_digest
from dmlbench.workflow.verdict import leaderboard_line, success_message

PATH, OTHER = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
REASON = Reason("for a test")


def changed_of(study):
    """The first step, for the files of a study."""
    return find_changed(study, read_results(study))


def missing_of(study, pending):
    """The third step, for the files of a study."""
    add_missing(study, read_results(study), pending)
    return pending


class TestFindChanged:
    def test_a_finished_study_has_no_changes(self, finished):
        assert changed_of(finished) == Pending()

    def test_a_study_without_results_only_misses_its_leaderboard_and_its_verdict(self, tiny):
        counts = changed_of(check_study(tiny, "tiny")).counts
        assert counts == {"build_leaderboard": 1, "verdict": 1}

    def test_a_result_of_other_settings_is_trained_again(self, finished, edit_result):
        run = finished.runs[PATH]
        before = run.settings | {"recipe": run.settings["recipe"] | {"lr": 0.5}}
        file = finished.files.run(PATH).run
        edit_result(file, train_key="other", settings=before)
        assert changed_of(finished).train == {PATH: ("recipe.lr: 0.5 -> 0.003", "")}

    def test_code_that_changed_without_a_digest_of_a_module_is_the_training_s(
        self, finished, edit_result
    ):
        edit_result(finished.files.run(PATH).run, train_key="other")
        assert changed_of(finished).train == {PATH: ("the training's code", "")}

    def test_scores_with_other_settings_are_computed_again(self, finished, edit_result):
        before = finished.runs[PATH].metric_settings | {"kmeans_seed": 7}
        edit_result(finished.files.run(PATH).metrics, eval_key="other", settings=before)
        assert changed_of(finished).evaluate == {PATH: ("evaluation.kmeans_seed: 7 -> 0", "")}

    def test_scores_of_another_training_with_this_key_are_computed_again(
        self, finished, edit_result
    ):
        edit_result(finished.files.run(PATH).metrics, training="other")
        assert changed_of(finished).evaluate == {PATH: ("trained again since", "")}

    def test_scores_of_another_training_are_computed_again(self, finished, edit_result):
        edit_result(finished.files.run(PATH).metrics, eval_key="other", train_key="other")
        assert changed_of(finished).evaluate == {PATH: ("trained again since", "")}

    def test_a_leaderboard_of_other_runs_or_results_is_built_again(self, finished, edit_result):
        made_of = finished.files.made_of
        before = made_of.read_text()
        edit_result(made_of, results="other")
        assert changed_of(finished).leaderboard == ("results changed", "")
        edit_result(made_of, key="other")
        changed = "its runs, their results or its templates changed"
        assert changed_of(finished).leaderboard == (changed, "")
        edit_result(made_of, code={})
        assert "dmlbench/leaderboard/build.py, " in changed_of(finished).leaderboard.text
        made_of.write_text(before.replace('"results"', '"result"'))
        assert changed_of(finished).leaderboard == ("it does not say what it was made from", "")

    @pytest.mark.parametrize("content", [None, "", "edited"])
    def test_a_leaderboard_is_built_again_if_a_file_is_missing_or_changed(self, finished, content):
        (finished.files.leaderboard / "leaderboard.csv").write_text("study,loss\n")
        write_made_of(finished, read_results_digest(finished))
        finished.files.verdict.write_text(
            f"{success_message(finished)}\n{leaderboard_line(finished)}\n"
        )
        assert changed_of(finished) == Pending()
        table = finished.files.leaderboard / "leaderboard.csv"
        table.unlink() if content is None else table.write_text(content)
        expected = ("missing or damaged: leaderboard.csv", "")
        assert changed_of(finished).leaderboard == expected

    def test_tracking_is_done_again_if_its_note_or_the_leaderboard_changed(self, tiny, finish):
        study = check_study(tiny | {"tracking": True}, "tiny")
        finish(study)
        assert changed_of(study).track is None
        tracked = study.files.tracked
        before = tracked.read_text()
        tracked.write_text(before.replace("key", "Key"))
        assert changed_of(study).track == ("damaged: tracked.txt", "")
        tracked.write_text(add_digest("key other\n"))
        assert changed_of(study).track == ("the results, the code or the place changed", "")
        tracked.write_text(add_digest(f"key {study.tracking_key(tracking_uri())}\n"))
        assert changed_of(study).track == ("the leaderboard changed", "")

    def test_a_verdict_about_other_runs_or_another_leaderboard_is_given_again(self, finished):
        verdict = finished.files.verdict
        before = verdict.read_text()
        verdict.write_text(before.replace("all 3 runs", "all 2 runs"))
        assert changed_of(finished).verdict == ("the runs or the tracking changed", "")
        verdict.write_text(before.splitlines()[0])
        assert changed_of(finished).verdict == ("the leaderboard changed", "")
        verdict.unlink()
        assert changed_of(finished).verdict == ("not written yet", "")

    def test_dates_of_files_are_no_reason(self, finished):
        for number, file in enumerate(sorted(finished.folder.rglob("*"))):
            os.utime(file, (number % 3, number % 3))
        assert changed_of(finished) == Pending()

    @pytest.mark.parametrize("name", ["run", "history", "embeddings"])
    def test_a_damaged_file_of_a_training_is_no_training(self, finished, name):
        file = getattr(finished.files.run(PATH), name)
        file.write_bytes(file.read_bytes() + b"x")
        assert changed_of(finished).train == {PATH: (f"damaged: {file.name}", "")}

    @pytest.mark.parametrize(
        ("status", "is_repeated"), [("disk_full", True), ("disk_error", True), ("diverged", False)]
    )
    def test_a_training_that_the_disk_made_fail_is_repeated_without_a_verdict(
        self, finished, edit_result, status, is_repeated
    ):
        error = {"message": "results: no room", "tail": []}
        edit_result(finished.files.run(PATH).run, status=status, error=error)
        expected = {PATH: (f"failed: {status}", "results: no room")} if is_repeated else {}
        assert changed_of(finished).train == expected

    def test_damaged_scores_are_computed_again(self, finished):
        file = finished.files.run(PATH).metrics
        file.write_text(file.read_text().replace("0.5", "0.6"))
        assert changed_of(finished).evaluate == {PATH: ("damaged: metrics.json", "")}

    def test_a_scoring_that_found_damaged_embeddings_asks_for_a_training(
        self, finished, edit_result
    ):
        error = {"message": "embeddings.npz: damaged", "tail": []}
        file = finished.files.run(PATH).metrics
        edit_result(file, status=DAMAGED, error=error, metrics=[])
        assert changed_of(finished).train == {PATH: ("damaged: embeddings.npz", "")}
        edit_result(file, training="one before")  # it was trained again since
        assert changed_of(finished).train == {}


class TestAddDownstream:
    def test_a_training_is_followed_by_its_evaluation_and_by_all_that_reads_scores(self, finished):
        pending = Pending(train={PATH: REASON}, evaluate={PATH: REASON, OTHER: REASON})
        add_downstream(finished, read_results(finished), pending)
        assert pending.evaluate == {PATH: AFTER_TRAINING, OTHER: REASON}
        assert pending.last == {"build_leaderboard": AFTER_OTHERS, "verdict": AFTER_OTHERS}

    def test_an_evaluation_is_followed_by_the_leaderboard_and_tracking(self, tiny):
        pending = Pending(evaluate={PATH: REASON})
        study = check_study(tiny | {"tracking": True}, "tiny")
        add_downstream(study, read_results(study), pending)
        assert [*pending.last] == ["build_leaderboard", "track", "verdict"]
        assert not pending.train

    def test_a_job_keeps_its_own_reason(self, finished):
        pending = Pending(evaluate={PATH: REASON}, leaderboard=REASON, verdict=REASON)
        add_downstream(finished, read_results(finished), pending)
        assert pending.last == {"build_leaderboard": REASON, "verdict": REASON}

    def test_no_job_is_added_if_nothing_is_pending(self, finished):
        pending = Pending()
        add_downstream(finished, read_results(finished), pending)
        assert pending == Pending()


class TestAddMissing:
    def test_a_verdict_needs_scores_and_a_leaderboard(self, tiny, stores):
        study = check_study(tiny, "tiny")
        pending = missing_of(study, Pending(verdict=REASON))
        assert pending.evaluate == dict.fromkeys(study.runs, ("not scored yet", ""))
        assert pending.train == dict.fromkeys(study.runs, ("no result yet", ""))
        assert pending.track is None

    def test_a_verdict_needs_tracking_if_the_study_is_tracked(self, tiny, stores):
        study = check_study(tiny | {"tracking": True}, "tiny")
        assert missing_of(study, Pending(verdict=REASON)).track == ("not done yet", "")

    def test_without_a_verdict_no_job_needs_anything(self, tiny, stores):
        assert missing_of(check_study(tiny, "tiny"), Pending()) == Pending()

    def test_nothing_is_missing_in_a_finished_study(self, finished):
        assert missing_of(finished, Pending(verdict=REASON)) == Pending(verdict=REASON)

    def test_an_evaluation_needs_embeddings_and_a_leaderboard_needs_histories(self, finished):
        finished.files.run(PATH).embeddings.unlink()
        finished.files.run(OTHER).history.unlink()
        assert not missing_of(finished, Pending(verdict=REASON)).train
        pending = missing_of(finished, Pending(evaluate={PATH: REASON}, verdict=REASON))
        assert pending.train == {PATH: ("no embeddings.npz", "")}
        pending = missing_of(finished, Pending(leaderboard=REASON, verdict=REASON))
        assert pending.train == {OTHER: ("no history.parquet", "")}

    @pytest.mark.parametrize(("key", "text"), [(None, "failed: diverged"), ("x", "no result yet")])
    def test_a_failure_under_the_planned_key_is_the_reason(self, tiny, stores, key, text):
        study = check_study(tiny, "tiny")
        key = key or study.runs[PATH].train_key
        files = study.files.run(PATH)
        files.folder.mkdir(parents=True)
        error = {"message": "the loss is nan", "tail": []}
        failed = {"status": "diverged", "error": error, "metrics": [], "settings": {}, "code": {}}
        files.write_metrics(failed | {"train_key": key, "eval_key": key}, {"digest": "any"})
        files.metrics.rename(files.failed)
        assert missing_of(study, Pending(verdict=REASON)).train[PATH].text == text

    def test_scores_that_failed_are_computed_again_without_a_training(self, finished, edit_result):
        files = finished.files.run(PATH)
        error = {"message": "it broke", "tail": []}
        edit_result(files.metrics, status="error", error=error, metrics=[])
        files.metrics.rename(files.failed)
        pending = missing_of(finished, Pending(verdict=REASON))
        assert (pending.evaluate, pending.train) == ({PATH: ("failed: error", "it broke")}, {})

    def test_an_interrupted_training_says_how_far_it_came(self, tiny, stores, write_attempt):
        study = check_study(tiny, "tiny")
        write_attempt(study, PATH, step=3, steps=9)
        pending = missing_of(study, Pending(verdict=REASON))
        assert pending.train[PATH] == ("interrupted", "at step 3 of 9")


class TestFindPending:
    def test_nothing_is_pending_in_a_finished_study(self, finished, stores):
        assert find_pending(finished, stores) == Pending()

    def test_a_training_with_other_embeddings_is_scored(self, finished, stores):
        files = finished.files.run(PATH)
        trained = files.load_run()
        files.embeddings.write_text("others")
        files.write_run({name: trained[name] for name in trained if name != "digest"})
        pending = find_pending(finished, stores)
        assert pending.evaluate == {PATH: ("trained again since", "")}
        assert pending.counts == {"evaluate": 1, "build_leaderboard": 1, "verdict": 1}

    def test_a_missing_history_is_found_once_the_leaderboard_is_pending(self, finished, stores):
        finished.files.run(OTHER).history.unlink()
        assert find_pending(finished, stores).counts == {}
        finished.files.run(PATH).metrics.unlink()
        pending = find_pending(finished, stores)
        assert pending.train == {OTHER: ("no history.parquet", "")}
        assert pending.evaluate == {PATH: ("not scored yet", ""), OTHER: AFTER_TRAINING}

    def test_results_that_are_missing_are_made_again(self, finished, stores):
        finished.files.run(PATH).metrics.unlink()
        finished.files.run(OTHER).run.unlink()
        pending = find_pending(finished, stores)
        assert pending.counts == {"train": 1, "evaluate": 2, "build_leaderboard": 1, "verdict": 1}

    def test_missing_embeddings_are_made_again_once_they_are_scored(self, finished, stores):
        finished.files.run(PATH).embeddings.unlink()
        assert find_pending(finished, stores) == Pending()
        finished.files.run(PATH).metrics.unlink()
        assert find_pending(finished, stores).train == {PATH: ("no embeddings.npz", "")}

    def test_a_store_is_packed_if_a_pending_job_needs_it(self, finished, tiny, stores):
        (manifest,) = stores.glob("*/manifest.json")
        manifest.unlink()
        assert find_pending(finished, stores).counts == {}
        tiny["recipe"]["epochs"] = 2
        pending = find_pending(check_study(tiny, "tiny"), stores)
        assert pending.counts == {
            "pack_store": 1,
            "find_duplicates": 1,
            "train": 2,
            "evaluate": 2,
            "build_leaderboard": 1,
            "verdict": 1,
        }

    def test_archives_are_fetched_if_a_store_is_packed_from_them(self, tiny, stores):
        tiny["datasets"] = {"letters": {"type": "omniglot"}}
        study = check_study(tiny, "tiny")
        (store,) = study.stores
        assert find_pending(study, stores).archives == [store]
        (stores / store).mkdir(parents=True)
        (stores / store / "archives.json").touch()
        assert find_pending(study, stores).archives == []

    def test_weights_are_fetched_if_a_pending_training_starts_from_them(
        self, finished, tiny, stores
    ):
        tiny["backbones"]["tiny"]["pretrained"] = True
        study = check_study(tiny, "tiny")
        assert find_pending(study, stores).weights == ["test_resnet.r160_in1k"]
        (stores.parent / "weights").mkdir()
        (stores.parent / "weights/test_resnet.r160_in1k.safetensors").touch()
        assert find_pending(study, stores).weights == []


@pytest.fixture
def damage(finished, edit_result):
    """Restore the files of the finished study, and damage some."""
    original = finished.folder.with_name("original")
    shutil.copytree(finished.folder, original)

    def apply(faults):
        shutil.rmtree(finished.folder)
        shutil.copytree(original, finished.folder)
        for path, name, fault in faults:
            files = finished.files if path is None else finished.files.run(path)
            file = getattr(files, name)
            if fault == "damaged" and file.exists():
                file.write_bytes(file.read_bytes()[:-1] + b"x")
            elif fault == "other" and file.suffix == ".json" and file.exists():
                with contextlib.suppress(ValueError):  # it is damaged already
                    edit_result(file, train_key="other", eval_key="other", key="other")
            else:
                file.unlink(missing_ok=True)

    return apply


FAULTS = st.lists(
    st.tuples(
        st.sampled_from([PATH, OTHER]),
        st.sampled_from(["run", "history", "embeddings", "metrics"]),
        st.sampled_from(["missing", "damaged", "other"]),
    )
    | st.tuples(
        st.none(),
        st.sampled_from(["table", "made_of", "verdict"]),
        st.sampled_from(["missing", "damaged", "other"]),
    ),
    max_size=5,
)


@given(faults=FAULTS)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_order_of_the_repeated_steps_does_not_change_which_jobs_are_pending(
    finished, stores, damage, faults
):
    damage(faults)
    results = read_results(finished)
    missing_first = find_changed(finished, results)
    before = None
    while missing_first.counts != before:
        before = missing_first.counts
        add_missing(finished, results, missing_first)
        add_downstream(finished, results, missing_first)
    downstream_first = find_pending(finished, stores)
    assert missing_first.train.keys() == downstream_first.train.keys()
    assert missing_first.evaluate.keys() == downstream_first.evaluate.keys()
    assert missing_first.last.keys() == downstream_first.last.keys()
