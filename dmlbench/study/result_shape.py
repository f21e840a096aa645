"""The shape of run.json and metrics.json: what every reader may rely on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    model_validator,
)

MAKES_NUMBERS = False
OK = "ok"
DAMAGED = "damaged"
"""The status of a run whose embeddings were damaged before they were scored."""
COUNTS = ("queries", "lone_queries", "pairs")
"""Metrics that count images or pairs. All others are fractions; AMI may be below 0."""
ROUNDING = 1e-9
"""A mean of fractions may be above 1 by this much."""

Name = Annotated[str, StringConstraints(min_length=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
FileName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(history\.parquet|embeddings\.npz|model\.safetensors|artefacts/[^/.][^/]*)$"
    ),
]


class _Strict(BaseModel):
    """Types are not converted; further keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Strict):
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class _Error(_Strict):
    message: str
    tail: list[str]


class _Outcome(_Strict):
    """What both files say of how the job ended."""

    train_key: Name
    status: Name
    error: _Error | None

    @model_validator(mode="after")
    def _has_an_error_if_it_failed(self) -> _Outcome:
        if (self.status == OK) != (self.error is None):
            raise ValueError("a failed run has an error, and no other run has one")
        return self


class _Provenance(_Strict):
    git_commit: str | None = None
    versions: dict[str, str | None] = {}
    host: str | None = None
    device: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    cuda: str | None = None
    float32: str | None = None
    nondeterministic: list[str] = []
    train_seconds: Amount = None
    wall_seconds: Amount = None
    peak_memory_mb: Amount = None
    images_per_second: Amount = None
    runs_per_gpu: Annotated[int, Field(ge=1)] = 1
    mps: bool = False


class _Run(_Outcome):
    settings: dict[str, Any]
    code: dict[str, str]
    files: dict[FileName, _File]
    provenance: _Provenance


class _Row(_Strict):
    protocol: Name
    metric: Name
    value: FiniteFloat


def _check_rows(rows: list[_Row]) -> list[_Row]:
    if len({(row.protocol, row.metric) for row in rows}) < len(rows):
        raise ValueError("a metric of a protocol has more than one value")
    for row in rows:
        metric, value = row.metric, row.value
        least = -1.0 if metric == "ami" else 0.0
        most = float("inf") if metric in COUNTS else 1.0
        if not least - ROUNDING <= value <= most + ROUNDING:
            raise ValueError(f"{metric} is {value}, and must be from {least:g} to {most:g}")
    return rows


Rows = Annotated[list[_Row], AfterValidator(_check_rows)]


class _Metrics(_Outcome):
    eval_key: Name
    training: Name
    metrics: Rows
    settings: dict[str, Any]
    code: dict[str, str]

    @model_validator(mode="after")
    def _has_scores_if_it_succeeded(self) -> _Metrics:
        if (self.status == OK) != bool(self.metrics):
            raise ValueError("a run that succeeded has scores, and a failed one has none")
        return self


def check_run(content: dict[str, Any]) -> None:
    """Check the content of run.json.

    Raises:
        ValueError: with the first key that is wrong, and what is wrong with it.
    """
    _check(_Run, content)


def check_metrics(content: dict[str, Any]) -> None:
    """Check the content of metrics.json; see `check_run`."""
    _check(_Metrics, content)


def _check(shape: type[BaseModel], content: dict[str, Any]) -> None:
    try:
        shape.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {problem}" if place else problem) from None
