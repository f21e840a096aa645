"""Results are read in a terminal: a study, a cell, what two cells differ in, how to make one."""

import pytest

from dmlbench.cli.main import main
from dmlbench.study.study import check_study

CELL, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, write_results):
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["seeds"] = [0, 1]
    study = check_study(tiny, "tiny")
    write_results(study)
    study.files.snapshot.write_text(study.settings.model_dump_json())
    return study


@pytest.fixture
def show(study, capsys):
    """Run a command: its lines, or its message if it fails."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        return capsys.readouterr().out.splitlines() if end.value.code == 0 else end.value.code

    return run


def test_a_study_is_shown_as_far_as_it_has_results(show, study):
    study.files.run(f"{OTHER}/seed0").metrics.unlink()
    lines = show("show", "tiny")
    assert lines[0] == "tiny"
    (softmax,) = (line.split() for line in lines if "normalized_softmax" in line)
    (anchor,) = (line.split() for line in lines if "proxy_anchor" in line)
    assert softmax[:3] == ["●", "normalized_softmax", "50.00"]
    assert "1" in softmax
    assert "2" in anchor
    assert any(line.split()[:2] == ["●", "random"] for line in lines)


def test_a_cell_is_shown_with_its_seeds_settings_and_commands(show, study):
    lines = show("show", "tiny", CELL)
    assert lines[0] == "proxy_anchor on letters, tiny"
    assert any(line.split() == ["recipe.batch_size", "48"] for line in lines)
    assert (
        lines[-3:]
        == show("reproduce", "tiny", CELL)
        == [
            "dmlbench run results/tiny/study.json -- \\",
            f"  results/tiny/runs/{CELL}/seed0/metrics.json \\",
            f"  results/tiny/runs/{CELL}/seed1/metrics.json",
        ]
    )


def test_only_what_two_cells_differ_in_is_shown(show):
    lines = show("diff", f"tiny/{CELL}", f"tiny/{OTHER}")
    settings = [line.split() for line in lines if line.startswith(("loss.", "recipe."))]
    assert ["loss.type", "proxy_anchor", "normalized_softmax"] in settings
    assert ["loss.alpha", "32.0", "(none)"] in settings
    assert not any(row[0].startswith("recipe.") for row in settings)
    (code,) = (line.split() for line in lines if line.startswith("dmlbench.losses.proxy_anchor"))
    assert code[2] == "(none)"
    (recall,) = (line.split() for line in lines if line.startswith("Recall@1"))
    assert recall == ["Recall@1", "50.00", "±", "0.00", "50.00", "±", "0.00", "+0.00", "1"]


def test_equal_cells_differ_in_nothing(show):
    lines = show("diff", f"tiny/{CELL}", f"tiny/{CELL}")
    assert lines.count("No difference.") == 3


def test_the_losses_of_several_studies_stand_side_by_side(show, study, tiny, write_results):
    other = check_study(tiny | {"study": "other"}, "other")
    write_results(other, value=0.75)
    other.files.snapshot.write_text(other.settings.model_dump_json())
    lines = show("compare", "tiny", "other")
    assert lines[0] == "letters · tiny · zero_shot: MAP@R"
    assert "The difference is other - tiny" in lines[1]
    (anchor,) = (line.split() for line in lines if "proxy_anchor" in line)
    assert anchor == [
        *["●", "proxy_anchor", "50.00", "±", "0.00", "75.00", "±", "0.00", "+25.00", "0.5"]
    ]
    tiny["datasets"]["letters"]["class_fraction"] = 0.2
    larger = check_study(tiny | {"study": "larger"}, "larger")
    write_results(larger)
    larger.files.snapshot.write_text(larger.settings.model_dump_json())
    lines = show("compare", "tiny", "larger")
    assert "The test images are not the same" in lines[1]
    assert "difference" not in lines[2]
    assert "difference" not in " ".join(show("compare", "tiny", "other", "larger"))


def test_a_wrong_name_is_one_message(show):
    message = str(show("show", "tiny", "letters/tiny/proxy_anchr"))
    assert "letters/tiny/proxy_anchr: no such cell in the plan." in message
    assert f"Did you mean '{CELL}'?" in message
    assert "Studies with results here: tiny." in str(show("diff", f"tiny/{CELL}", f"no/{CELL}"))
    assert show("diff", "tiny", f"tiny/{CELL}") == 2


def test_a_cell_without_results_says_so(show, study):
    for seed in (0, 1):
        study.files.run(f"{CELL}/seed{seed}").metrics.unlink()
    message = str(show("show", "tiny", CELL))
    assert message == "dmlbench: tiny: no result yet. What it waits for: dmlbench status"
    assert show("reproduce", "tiny", CELL)[0].startswith("dmlbench run ")
