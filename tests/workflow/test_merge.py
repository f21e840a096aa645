"""Results that were made in several places are one study, and nothing is averaged."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from dmlbench.leaderboard.table import read_results, tabulate
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError
from dmlbench.workflow.merge import merge

from ..tuned_results import write_choices, write_trials

LOSS, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny["plan"] |= {"seeds": [0, 1], "controls": []}
    return check_study(tiny, "tiny")


@pytest.fixture
def elsewhere(study, write_results):
    """A function that writes runs as if they were made in another place: its folder."""

    def make(name, *paths, **options):
        write_results(study, *paths, **options)
        place = Path("places") / name
        place.parent.mkdir(exist_ok=True)
        shutil.move(study.folder, place)
        return place

    return make


def table(study):
    return tabulate(read_results(study.rows, study.files))


def test_two_halves_are_the_whole(study, elsewhere, write_results):
    halves = [
        elsewhere(f"seed{seed}", *(path for path in study.runs if path.endswith(f"seed{seed}")))
        for seed in (0, 1)
    ]
    merged = merge(study, halves)
    assert [*merged.lines()] == [
        "places/seed0: 2 results taken",
        "places/seed1: 2 results taken",
    ]
    halves_together = table(study)
    shutil.rmtree(study.folder)
    write_results(study)
    pd.testing.assert_frame_equal(halves_together, table(study))


def test_the_rest_is_named_and_what_is_there_stays(study, elsewhere, write_results):
    there = elsewhere("there", f"{LOSS}/seed1", value=0.7)
    write_results(study, f"{LOSS}/seed0")
    before = study.files.run(f"{LOSS}/seed0").metrics.read_bytes()
    merged = merge(study, [there])
    assert merged.copied == {there: 1}
    assert merged.missing == [f"{OTHER}/seed0", f"{OTHER}/seed1"]
    assert study.files.run(f"{LOSS}/seed0").metrics.read_bytes() == before
    assert merge(study, [there, study.folder]).copied == {}


def test_a_run_of_two_places_stays_the_first_one_and_its_spread_is_said(study, elsewhere):
    first = elsewhere("first", f"{LOSS}/seed0", f"{LOSS}/seed1", value=0.5)
    second = elsewhere("second", f"{LOSS}/seed0", value=0.512)
    third = elsewhere("third", f"{LOSS}/seed0", f"{LOSS}/seed1", value=0.5)
    merged = merge(study, [first, second, third])
    assert study.files.run(f"{LOSS}/seed0").load_metrics()["metrics"][0]["value"] == 0.5
    text = "\n".join(merged.lines())
    assert "2 runs in several places, of which the first stays; their scores differ by" in text
    assert "at most 1.2000 points" in text
    assert f"points by which runs differ:\n    {LOSS}/seed0: 1.2000\n" in text


def test_results_of_other_settings_are_not_taken_and_said(study, tiny, elsewhere, write_results):
    other = check_study(tiny | {"recipe": tiny["recipe"] | {"lr": 0.5}}, "tiny")
    write_results(other, f"{LOSS}/seed0")
    place = Path("other")
    shutil.move(study.folder, place)
    merged = merge(study, [place])
    assert merged.not_taken == {place: [f"{LOSS}/seed0"]}
    assert not study.files.run(f"{LOSS}/seed0").folder.exists()
    right = elsewhere("right", f"{LOSS}/seed0")
    write_results(other, f"{LOSS}/seed0")  # the outdated result that is here is replaced
    assert merge(study, [place, right]).copied == {right: 1}
    assert study.files.run(f"{LOSS}/seed0").load_run()["train_key"] == study.runs[
        f"{LOSS}/seed0"
    ].train_key  # fmt: skip


def test_a_damaged_result_is_not_taken(study, elsewhere):
    place = elsewhere("there", f"{LOSS}/seed0")
    (place / f"runs/{LOSS}/seed0/history.parquet").write_bytes(b"more than before")
    assert merge(study, [place]).not_taken == {place: [f"{LOSS}/seed0"]}


def test_trials_and_choices_are_taken_too_and_differing_choices_are_said(tiny, study):
    tuned = check_study(tiny | {"tuning": {"trials": 2, "folds": 2}}, "tiny")
    places = []
    for number in (0, 1):
        write_trials(tuned)
        write_choices(tuned, LOSS, number=number)
        places.append(Path(f"place{number}"))
        (tuned.folder / "runs").mkdir()
        shutil.move(tuned.folder, places[-1])
    merged = merge(tuned, places)
    assert merged.copied == {places[0]: 5}
    assert merged.differing == [LOSS]
    assert tuned.files.choice(LOSS).load_chosen()["chosen"]["trial"] == 0
    assert tuned.files.trial(f"{LOSS}/trial1").read_trial()


def test_a_folder_without_results_is_refused(study, tmp_path):
    with pytest.raises(StudyError, match="it has no folder `runs`, so it holds no results"):
        merge(study, [tmp_path])
