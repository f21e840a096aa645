"""The base of all blocks of a study file."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_SHOWN = 80
"""Characters of a text that a message shows."""


class Model(BaseModel):
    """The base of all blocks of a study file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        """Names and paths stand in messages, on the page and in the names of files."""
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and CONTROL_CHARACTER.search(text):
                shown = repr(text if len(text) < MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
                raise ValueError(f"found {shown}, with a line break or a control character")
        return value
