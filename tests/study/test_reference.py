"""The page of the settings is what their models say."""

from pathlib import Path

import pytest

from dmlbench.cli.main import main
from dmlbench.study.reference import SECTIONS, lines
from dmlbench.study.settings import Dataset, Recipe

PAGE = Path(__file__).parents[2] / "docs/settings.md"


@pytest.fixture
def listed(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["list", "settings", *arguments])
        assert not ended.value.code
        return capsys.readouterr().out

    return call


def test_the_page_of_the_docs_is_written_from_the_models(listed):
    assert PAGE.read_text("utf-8") == listed("--markdown"), (
        "run: dmlbench list settings --markdown > docs/settings.md"
    )


@pytest.mark.parametrize("title", SECTIONS)
def test_every_setting_has_a_description(title):
    _, model = SECTIONS[title]
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_page_has_type_allowed_values_default_and_meaning(listed):
    page = listed("--markdown")
    assert (
        "| `optimizer` | `adamw`, `adam`, `sgd` or `rmsprop` | `adamw` | "
        f"{' '.join(Recipe.model_fields['optimizer'].description.split())} |" in page
    )
    assert "| `class_fraction` | number ≥ 1e-06, ≤ 1 | `1` | " in page
    assert "| `clip_norm` | number > 0, ≤ 1,000,000,000 or `null` | `null` | " in page
    assert "| `recall_at` | list of: whole number ≥ 1, ≤ 1,000,000; or `null` | `null` | " in page
    assert "| `crop_scale` | list of two: number ≥ 0.0001, ≤ 1 | `[0.16, 1.0]` | " in page
    assert "| `seeds` | non-empty list of: whole number ≥ 0, < 2,147,483,648 | required | " in page
    assert "| `augmentation` | mapping | see [recipe.augmentation](#recipeaugmentation) | " in page
    assert "| `type` | text | the name of the entry | " in page


def test_the_list_has_each_setting_once(listed):
    rows = [line.split(maxsplit=1) for line in listed().splitlines()]
    assert rows == [line.split(maxsplit=1) for line in lines()]
    paths = [path for path, _ in rows]
    assert len(set(paths)) == len(paths)
    assert {f"datasets.<name>.{name}" for name in Dataset.model_fields} <= set(paths)
    assert ["recipe.lr", "number > 0, ≤ 1,000; default: 0.0001"] in rows
