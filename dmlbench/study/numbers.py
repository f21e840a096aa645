"""Numbers in a study, wherever one is expected: a setting, or an option of a loss or data set.

There is one rule. YAML reads `1e-3` and Snakemake reads all of `--config 'recipe={lr: 1}'` as text,
so text that is a number in plain decimal is that number. true and false are none, though Python
would take them for 1 and 0, nor is `010`, which is 8 or 10. A number that no study needs is a
slip, so settings and options have bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import GenericAlias
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from dmlbench.utils.yaml_text import DECIMAL

LIKE_A_NUMBER = re.compile(
    r"[-+]?(0x[\da-f_]+|(0[bo])?[._:]*\d[\d._:]*(e[-+]?\d+)?|\.?(nan|inf|infinity))",
    re.IGNORECASE,
)
"""Text that some program would read as a number."""
MAX_TEXT = 1000
"""Characters of the longest text that is looked at as a number."""
MAX_DIGITS = 15
"""Digits of a whole number. Beyond them, not every one is a number of a computer's arithmetic."""
SMALLEST = 1e-30
"""A number is 0, or at least as far from 0 as this. float32 holds its square nearly exactly as 0,
and no paper has a setting below 1e-16."""


def read_number(value: Any) -> Any:
    """The number that `value` means; anything that is no number is returned as it is.

    Raises:
        PydanticKnownError: it is true or false, or text like a number that is not plain decimal.
        ValueError: it is closer to 0 than SMALLEST, or has more than MAX_DIGITS digits.

    >>> read_number("1e-3"), read_number("4"), read_number("all")
    (0.001, 4, 'all')
    """
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return _read_text(value)


def _read_text(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= MAX_TEXT and _is_like_a_number(value):
        if not DECIMAL.fullmatch(value):
            raise PydanticKnownError("float_parsing")
        whole = value.lstrip("+-").isdecimal() and len(value) <= MAX_DIGITS
        value = int(value) if whole else float(value)
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise ValueError(f"found a whole number of more than {MAX_DIGITS} digits")
    if isinstance(value, float) and 0 < abs(value) < SMALLEST:
        raise ValueError(
            f"found {value:g}, which is closer to 0 than {SMALLEST:g}. Take a number of a larger "
            f"size, or 0 if it is allowed"
        )
    return value


def _is_like_a_number(text: str) -> bool:
    return LIKE_A_NUMBER.fullmatch(text.strip()) is not None


def _without_bounds(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


AS_NUMBER = BeforeValidator(read_number)
"""The rule, for an annotation. Bounds stand before it: `Annotated[int, Field(ge=1), AS_NUMBER]`."""
AS_NUMBER_OR_BOOLEAN = BeforeValidator(_read_text)
"""The rule for an option that may also be true or false."""


def with_number_types(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `options`, name -> (type, default), with the rule for each number in them."""
    return {option: (with_numbers(type_), default) for option, (type_, default) in options.items()}


def with_numbers(annotation: Any) -> Any:
    """`annotation`, the type of an option, with the rule for each number in it.

    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(with_numbers(int | str)).validate_python("1e1")
    10
    """
    type_ = _without_bounds(annotation)
    inner = [*map(_without_bounds, get_args(type_))]
    if get_origin(type_) is tuple:
        parts = (part if part is ... else with_numbers(part) for part in inner)
        return GenericAlias(tuple, tuple(parts))
    kinds = {type_, *inner}
    if get_origin(type_) is Literal:
        kinds = {type(value) for value in inner}
    if not kinds & {int, float}:
        return annotation
    return Annotated[annotation, AS_NUMBER_OR_BOOLEAN if bool in kinds else AS_NUMBER]
