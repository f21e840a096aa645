"""`dmlbench list WORD`, and the files that commands write."""

import pytest

from dmlbench.backbones import catalogue
from dmlbench.cli.main import main


@pytest.fixture
def command(capsys):
    """Run a command; its exit code, or its message if it failed, and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        output = capsys.readouterr()
        return ended.value.code, output.out.splitlines(), output.err

    return run


def test_backbones_are_chosen_by_a_word_and_say_which_weights_they_have(command, monkeypatch):
    names = {"resnet50", "resnet50.a1", "wide_resnet50", "vit", "vit.mae", "tiny_vit"}
    monkeypatch.setattr(catalogue, "timm_models", lambda: frozenset(names))
    weights = {"resnet50": "resnet50.a1", "resnet50.a1": "resnet50.a1", "vit.mae": "vit.mae"}
    monkeypatch.setattr(catalogue, "timm_weights", lambda: weights)
    code, lines, _ = command("list", "backbones", "resnet50")
    assert (code, lines) == (
        0,
        ["resnet50  pretrained: resnet50.a1", "resnet50.a1", "wide_resnet50"],
    )
    assert command("list", "backbones", "vit*")[1] == ["vit", "vit.mae"]
    assert len(command("list", "backbones")[1]) == len(names)


def test_upper_and_lower_case_are_the_same_in_a_word(command):
    for word in ("SoftTriple", "SOFT*"):
        _, lines, _ = command("list", "losses", word)
        assert lines == command("list", "losses", "softtriple")[1]
    assert "Did you mean 'cub200'?" in command("list", "datasets", "CUB-200")[0]


def test_the_help_describes_the_command_and_not_the_library(command):
    code, lines, _ = command("--help")
    assert code == 0
    assert lines[2].startswith("Fair, reproducible benchmarks for deep metric learning, from im")
    assert not [line for line in lines if ">>>" in line]


def test_data_sets_are_listed_with_their_splits_and_where_their_archives_come_from(command):
    _, lines, _ = command("list", "datasets", "2")
    assert lines == [
        "cub200     CUB-200-2011: 11,788 photographs of 200 species of birds; train 100 classes, "
        "5,864 images; test 100 classes, 5,924 images; downloaded",
        "inat2018   iNaturalist 2018, the split of Smooth-AP: 461,939 photographs of 8,142 "
        "species; "
        "train 5,690 classes, 325,846 images; test 2,452 classes, 136,093 images; downloaded",
    ]


def test_settings_are_chosen_by_a_part_of_their_path(command):
    _, lines, _ = command("list", "settings", "lr")
    names = [line.split()[0] for line in lines]
    in_recipe = ["recipe.lr", "recipe.head_lr_factor"]
    assert names == [*in_recipe, "tuning.lr_factor", "tuning.head_lr_factor"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("backbones", "resnet500"),
            "dmlbench: list: no name of backbones has 'resnet500' in it. Did you mean 'resnet50'?",
        ),
        (("losses", "rll", "--markdown"), "prints a whole page. Leave out the word."),
        (("backbones", "--markdown"), "--markdown is for losses, datasets, settings, not backbone"),
    ],
)
def test_a_list_that_would_be_empty_is_refused(command, arguments, message):
    code, lines, _ = command("list", *arguments)
    assert message in code
    assert lines == []


@pytest.mark.parametrize("option", [("schema", "--output"), ("data", "show", "glyphs", "--sheet")])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(command, tmp_path, option):
    file = tmp_path / "file"
    file.write_text("mine")
    code, _, said = command(*option, tmp_path)
    assert code == 2
    assert f"{option[-1]}: {tmp_path} is a folder, and a file is to be written" in said
    code, _, said = command(*option, file / "new" / "schema.json")
    assert code == 2
    assert f"cannot be written: {file} is no folder" in said
    assert file.read_text() == "mine"


def test_the_schema_is_written_into_a_new_folder(command, tmp_path):
    assert command("schema", "--output", tmp_path / "a/b/schema.json")[0] == 0
    assert '"title": "Settings"' in (tmp_path / "a/b/schema.json").read_text()


@pytest.mark.parametrize(("number", "text"), [(28, "No space left on device"), (30, "Read-only")])
def test_a_full_or_read_only_disk_is_one_message(command, tmp_path, monkeypatch, number, text):
    from dmlbench.cli import listings

    def fail(path, value):
        raise OSError(number, text, str(path))

    monkeypatch.setattr(listings, "write_json", fail)
    code, _, _ = command("schema", "--output", tmp_path / "schema.json")
    assert code == f"dmlbench: {tmp_path}/schema.json: {text}"
