"""The options of losses, as pydantic models that check them. No loss is imported for that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from types import NoneType
from typing import Annotated, Any, Union, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from dmlbench.losses import list_losses
from dmlbench.losses._bounds import LARGEST, LARGEST_OF_PML, Bounds, option_bounds
from dmlbench.losses._catalogue import own_loss, pml_losses
from dmlbench.study.numbers import with_number_types
from dmlbench.utils.declarations import Declarations, parse_annotation, read_declarations
from dmlbench.utils.errors import UnusableLoss
from dmlbench.utils.text import did_you_mean


@cache
def options_model(kind: str) -> type[BaseModel]:
    """A model of the options of the loss `kind`: `rll`, `pml.CircleLoss`, or an import path.

    Raises:
        UnusableLoss: there is no such loss.

    >>> options_model("softtriple")(centers_per_class=5).gamma
    0.1
    """
    return create_options_model(kind, _read_options(kind))


def create_options_model(name: str, options: Mapping[str, Any]) -> type[BaseModel]:
    """A model with the fields `options`, name -> (type, default). It refuses other fields."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(name, __config__=config, **with_number_types(options))


def bounded_options(declared: Declarations) -> dict[str, Any]:
    """Name -> (type, default) of each option in a loss's file, with its bounds."""
    return {
        option: (_bounded(type_, option_bounds(option, declared.constants)), default)
        for option, (type_, default) in declared.options.items()
    }


def _bounded(type_: Any, bounds: Bounds) -> Any:
    """The type of an option with its bounds."""
    members = get_args(type_) or [type_]
    if {*members} <= {int, float, NoneType}:
        limits = Field(ge=bounds.least, gt=bounds.above, le=bounds.most)
        limited = [Annotated[member, limits] for member in members if member is not NoneType]
        return Union[(*limited, *(None for member in members if member is NoneType))]
    return Annotated[type_, AfterValidator(partial(_check_size, most=bounds.most))]


def _check_size(value: Any, most: float) -> Any:
    """Refuse a number that is too large, of an option that need not be a number."""
    if isinstance(value, int | float) and abs(value) > most:
        raise ValueError(f"found {value:g}. A number must be from {-most:,} to {most:,}")
    return value


def _read_options(kind: str) -> dict[str, Any]:
    """Name -> (type, default) of each option of the loss `kind`."""
    package, dot, name = kind.partition(".")
    most = LARGEST
    if not dot:
        if kind not in list_losses():
            raise UnusableLoss
        return bounded_options(read_declarations(f"dmlbench.losses.{kind}"))
    if package == "pml":
        losses = pml_losses()
        if name not in losses:
            raise UnusableLoss(did_you_mean(kind, (f"pml.{loss}" for loss in losses), 60))
        described, most = losses[name], LARGEST_OF_PML
    else:
        described = own_loss(kind)
    return {
        option: (
            _bounded(parse_annotation(text), option_bounds(option, {"MOST": {option: most}})),
            default[0] if default else ...,
        )
        for option, (text, *default) in described.items()
    }
