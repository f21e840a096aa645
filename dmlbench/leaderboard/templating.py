"""The templates of all pages: dmlbench/leaderboard/templates."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dmlbench.leaderboard.style import colour
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import literal

MAX_NARROW = 11  # columns; a wider table puts intervals below their means, to fit 1400 pixels


@cache
def templates() -> Environment:
    """The templates. All that they show is text, letter by letter: no name is taken for HTML."""
    environment = Environment(
        loader=PackageLoader("dmlbench.leaderboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=_text,
    )
    environment.filters |= {"colour": colour, "display_name": display_name}
    environment.globals |= {"max_narrow": MAX_NARROW}
    return environment


def _text(value: Any) -> Any:
    """What a template shows in the place of `value`, before it is escaped."""
    return value if isinstance(value, Markup) else literal(str(value))
