"""The page docs/settings.md: every setting of a study file, from the models in settings.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from dmlbench.study.allowed_values import allowed_values
from dmlbench.study.sections import SECTIONS

REQUIRED, ENTRY_NAME = "required", "the name of the entry"
NO_DEFAULT = (REQUIRED, ENTRY_NAME)

PAGE = """\
<!-- Written from dmlbench/study/settings.py by: dmlbench list settings --markdown -->

# Every setting

This page lists all settings of a study file: type, allowed values, default and meaning. The page
[Studies](studies.md) explains how they work together. `config/schema.json` holds the same facts for
editors: they complete keys and mark errors as you type. A study file names it in its first line:

```text
# yaml-language-server: $schema=schema.json
```

An unknown key is an error. A *name* consists of letters, digits and `_.+-`, and begins with a
letter or a digit. `null` in a study file means "not set". Options of a loss or of a type of data
set stand in its entry, beside `type`: see [Losses](losses.md#options) and
[Your own data](own_data.md).
{sections}"""


class Setting(NamedTuple):
    """What the models say about one setting."""

    path: str
    """`recipe.lr`, `backbones.<name>.dim`."""
    type: str
    """The allowed values in words."""
    default: str
    """As a study file has it; in words for a setting that has none of its own."""
    meaning: str
    section: str | None
    """The section with the settings inside this one; None if there are none."""


def lines() -> list[str]:
    """Each setting with its allowed values and its default, as columns of text."""
    settings = [
        setting for title in SECTIONS for setting in _settings(title) if not setting.section
    ]
    width = max(len(setting.path) for setting in settings)
    return [
        f"{setting.path:{width}}  {setting.type.replace('`', '')}; default: {setting.default}"
        for setting in settings
    ]


def markdown() -> str:
    """The page docs/settings.md."""
    return PAGE.format(sections="".join(_section(title) for title in SECTIONS))


def _section(title: str) -> str:
    _, model = SECTIONS[title]
    lines = [
        f"\n## {title}\n",
        f"{_one_line(model.__doc__ or '')}\n",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
        *(_row(setting) for setting in _settings(title)),
        "",
    ]
    return "\n".join(lines)


def _row(setting: Setting) -> str:
    default = setting.default if setting.default in NO_DEFAULT else f"`{setting.default}`"
    if setting.section:
        default = f"see [{setting.section}](#{setting.section.replace('.', '')})"
    # outside of code, `<name>` would be an HTML tag
    meaning = re.sub(r"(`[^`]*`)|<", lambda match: match[1] or "&lt;", setting.meaning)
    cells = (f"`{setting.path.rpartition('.')[2]}`", setting.type, default, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _settings(title: str) -> Iterator[Setting]:
    """The settings of a section."""
    place, model = SECTIONS[title]
    schema = model.model_json_schema()
    for name, field in schema["properties"].items():
        path = f"{place}.{name}".lstrip(".")
        if path in ("backbones.<name>.type", "datasets.<name>.type"):
            default = ENTRY_NAME
        elif name in schema.get("required", ()):
            default = REQUIRED
        else:
            default = _default(field["default"])
        meaning = _one_line(field["description"])
        yield Setting(path, allowed_values(field), default, meaning, _section_of(path))


def _section_of(path: str) -> str | None:
    """The section with the settings inside the setting `path`; None if it has none."""
    for title, (place, _) in SECTIONS.items():
        if place.removesuffix(".<name>") == path:
            return title
    return None


def _default(value: Any) -> str:
    """A value as a study file has it."""
    if isinstance(value, float):
        return f"{value:g}"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
