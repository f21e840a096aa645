import pytest

from dmlbench.leaderboard.content import HOLE
from dmlbench.leaderboard.sections.audit import MORE

BASE = {
    "epochs": 8, "batch_size": 80, "images_per_class": 4, "sampler": "rounds", "pooling": None,
    "freeze_bn": True, "lr": 0.1,
}  # fmt: skip
FACTS = {"train_seconds": 60.0, "peak_memory_mb": 500.0, "loss_parameters": 0}


@pytest.fixture
def add(results):
    """Add a run of a loss, with these settings of its recipe and these facts of its training."""

    def added(loss, seed=0, *, recipe=(), dim=64, kind="triplet", settings=(), **facts):
        settings = {"backbone": {"dim": dim}, "loss": {"type": kind}, **dict(settings)}
        chosen = facts.pop("chosen", None)
        results.add(
            loss, seed, {"map@r": 0.5}, recipe=BASE | dict(recipe), settings=settings,
            chosen=chosen, history=[2.0, 1.0], **(FACTS | facts),
        )  # fmt: skip

    return added


@pytest.fixture
def audit(sections):
    """A function that gives the audit of the only panel."""

    def only():
        (section,) = sections("Fairness audit")
        return section

    return only


def column(section, name):
    """Loss -> its text in a column."""
    place = section.columns.index(name)
    return {row.name: row.cells[place].text for row in section.rows}


def test_what_is_equal_for_all_is_one_sentence_and_no_table(add, audit):
    for loss in ("htl", "rll"):
        for seed in (0, 1):
            add(loss, seed)
    section = audit()
    assert section.title == "Fairness audit: letters · tiny"
    assert (section.columns, section.rows, section.notes) == ([], [], [])
    assert section.facts == (
        "Nothing is marked: no loss had more of what counts as an advantage here. No loss was "
        "tuned. Equal for all: epochs 8; embeds between epochs no; own batches no; parameters of "
        "the loss 0; dimension 64; batch size 80; images per class 4; sampler rounds; "
        "pooling of the backbone; batch norm frozen yes; train time 1 min 00 s; "
        "peak memory 500 MB; device cpu (test). All "
        "other settings of recipe and backbone are those of the study. Not recorded: steps."
    )


@pytest.mark.parametrize(
    ("more", "name", "marked", "others"),
    [
        ({"dim": 128}, "dimension", "128", "64"),
        ({"recipe": {"batch_size": 120}}, "batch size", "120", "80"),
        ({"loss_parameters": 51_200}, "parameters of the loss", "51,200", "0"),
    ],
)
def test_a_loss_that_had_more_than_the_others_is_marked_with_the_reason(
    add, audit, more, name, marked, others
):
    add("a")
    add("b", **more)
    add("c")
    section = audit()
    assert column(section, name) == {"a": others, "b": f"{marked} {MORE}", "c": others}
    (note,) = [note for note in section.notes if note.startswith(f"{MORE} {name}")]
    assert note.startswith(f"{MORE} {name}: more than {others}: b ({marked}). ")
    assert section.facts.startswith(f"{MORE} marks what a loss had more of than the others")
    assert name not in section.facts


def test_how_the_classes_of_a_batch_are_drawn_is_a_column(add, audit):
    add("rounds")
    add("anew", recipe={"sampler": "per_batch"})
    add("shuffled", recipe={"images_per_class": None})
    expected = {"rounds": "rounds", "anew": "per_batch", "shuffled": "shuffled images"}
    assert column(audit(), "sampler") == expected


@pytest.mark.parametrize("name", ["embeds between epochs", "own batches"])
def test_a_loss_that_prepares_its_epochs_is_marked(add, audit, name):
    add("a")
    add("b", kind="htl")
    add("c", kind="htl")
    section = audit()
    assert column(section, name) == {"a": "no", "b": f"yes {MORE}", "c": f"yes {MORE}"}
    assert any(note.startswith(f"{MORE} {name}: b, c. It ") for note in section.notes)


def test_a_loss_that_had_less_marks_no_other_loss(add, audit):
    add("a", dim=32)
    add("b")
    add("c")
    section = audit()
    assert column(section, "dimension") == {"a": "32", "b": "64", "c": "64"}
    assert section.facts.startswith("Nothing is marked")


def test_of_two_losses_the_one_with_more_is_marked(add, audit):
    add("a", dim=32)
    add("b")
    assert column(audit(), "dimension") == {"a": "32", "b": f"64 {MORE}"}


def test_all_losses_that_learn_parameters_are_marked_however_many_they_are(add, audit):
    for loss, count in (("a", 10), ("b", 0), ("c", 20)):
        add(loss, loss_parameters=count)
    section = audit()
    expected = {"a": f"10 {MORE}", "b": "0", "c": f"20 {MORE}"}
    assert column(section, "parameters of the loss") == expected
    assert "more than 0: a (10), c (20)." in section.notes[0]


def test_times_and_memory_are_no_advantage(add, audit):
    add("a", train_seconds=60.0, peak_memory_mb=500.0)
    add("a", 1, train_seconds=120.0, peak_memory_mb=400.0)
    add("b")
    section = audit()
    assert column(section, "train time") == {"a": "1 min 30 s", "b": "1 min 00 s"}
    assert "peak memory" not in section.columns  # the larger of a's seeds is that of b
    assert section.facts.startswith("Nothing is marked")


def test_several_devices_are_named(add, audit):
    add("a", 0, device="H200")
    add("a", 1, device="A100")
    add("b", 0, device="H200")
    assert column(audit(), "device") == {"a": "H200 / A100", "b": "H200"}


def test_an_older_result_without_a_value_shows_a_hole(add, audit, results):
    add("a", loss_parameters=None)
    add("b", loss_parameters=7)
    assert column(audit(), "parameters of the loss") == {"a": HOLE, "b": "7"}


def test_a_failed_run_measures_nothing_and_shows_holes(add, audit, results):
    add("a")
    settings = {"backbone": {"dim": 64}, "loss": {"type": "triplet"}}
    results.add("b", 0, status="diverged", recipe=BASE, settings=settings, **FACTS)
    section = audit()
    assert column(section, "train time") == {"a": "1 min 00 s", "b": HOLE}
    assert "dimension 64" in section.facts


def test_each_setting_in_which_a_loss_departs_from_the_study_is_a_column(add, audit, results):
    add("a")
    add("b")
    recipe = {**BASE, "lr": 0.4, "augmentation": {"flip": False}}
    results.edit("letters/tiny/b/seed0/run.json", settings={
        "recipe": recipe, "backbone": {"dim": 64}, "loss": {"type": "triplet"},
    })  # fmt: skip
    section = audit()
    assert column(section, "lr (study: 0.1)") == {"a": "0.1", "b": "0.4"}
    assert column(section, "augmentation (study: null)") == {"a": "null", "b": '{"flip": false}'}
    assert "All other settings" not in section.facts


def test_controls_have_no_row_and_external_embeddings_are_named(add, audit, results):
    add("a", dim=32)
    add("b")
    results.add("control_random", 0, {"map@r": 0.1})
    results.add("embeddings_clip", 0, {"map@r": 0.9})
    section = audit()
    assert [row.name for row in section.rows] == ["a", "b"]
    assert (
        section.notes[-1] == "How these embeddings were made is not known here: clip (embeddings)."
    )


def test_each_data_set_and_backbone_has_an_audit(results, sections):
    for where in ({}, {"dataset": "sop"}, {"backbone": "big"}):
        results.add("htl", 0, {"map@r": 0.5}, **where)
    results.add("control_random", 0, {"map@r": 0.5}, dataset="birds")
    assert [section.title for section in sections("Fairness audit")] == [
        "Fairness audit: letters · tiny",
        "Fairness audit: sop · tiny",
        "Fairness audit: letters · big",
    ]


SPACE = {"alpha": [1.0, 9.0, "linear"], "recipe.lr_factor": [0.25, 4.0, "log"]}


def test_trials_and_steps_that_tuning_spent_are_compared(add, audit, results):
    options = [{"alpha": float(n), "recipe.lr_factor": 1.0 + n} for n in range(4)]
    for loss, scores in (("a", [0.1, 0.3]), ("b", [0.3, 0.1]), ("c", [0.1, 0.2, 0.2, None])):
        tuned = results.tune(loss, scores, SPACE, options[: len(scores)])
        add(loss, **tuned)
    section = audit()
    assert column(section, "trials") == {"a": "2", "b": "2", "c": f"4 {MORE}"}
    assert column(section, "steps in tuning") == {"a": "80", "b": "80", "c": f"130 {MORE}"}
    assert column(section, "time of tuning") == {
        "a": "1 min 00 s",
        "b": "1 min 00 s",
        "c": "2 min 00 s",
    }
    assert column(section, "lr (study: 0.1)") == {"a": "0.2", "b": "0.1", "c": "0.2"}
    assert "tuned lr_factor, alpha" in section.facts
    assert "epochs 3" in section.facts  # chosen, of 8
    assert "No loss was tuned" not in section.facts


def test_steps_that_tuning_chose_are_no_advantage(add, audit, results):
    for loss, steps in (("a", [10, 20]), ("b", [10, 40])):
        add(loss, learnt=None)
        files = results.files.run(f"letters/tiny/{loss}/seed0")
        write_history(files, results, steps)
    assert column(audit(), "steps") == {"a": "20", "b": f"40 {MORE}"}
    options = [{"alpha": 1.0, "recipe.lr_factor": 1.0}]
    for run, loss in zip(results.runs, ("a", "b"), strict=True):
        run["settings"] |= results.tune(loss, [0.5], SPACE, options)["settings"]
    assert column(audit(), "steps") == {"a": "20", "b": "40"}


def write_history(files, results, steps):
    """Write the steps of a training into its history."""
    import pandas as pd

    from dmlbench.utils.digests import describe_file

    pd.DataFrame({"epoch": [1, 2], "step": steps, "loss": [2.0, 1.0]}).to_parquet(files.history)
    results.edit(
        str(files.run.relative_to(results.folder / "runs")),
        files={"history.parquet": describe_file(files.history)},
    )


def test_a_choice_that_is_missing_shows_holes(add, audit, results):
    options = [{"alpha": 1.0, "recipe.lr_factor": 1.0}]
    add("a", **results.tune("a", [0.5], SPACE, options))
    add("b", **results.tune("b", [0.5], SPACE, options))
    results.files.chosen("letters/tiny/b").unlink()
    section = audit()
    assert column(section, "trials") == {"a": "1", "b": HOLE}


def test_a_seed_that_failed_before_it_knew_the_choice_does_not_hide_it(add, audit, results):
    options = [{"alpha": 1.0, "recipe.lr_factor": 2.0}]
    for loss in ("a", "b"):
        tuned = results.tune(loss, [0.5], SPACE, options)
        results.add(loss, 0, status="error", recipe=BASE, settings=tuned["settings"])
        add(loss, 1, **tuned)
    assert "lr (study: 0.1) 0.2" in audit().facts
