"""The shape of run.json and metrics.json: what every reader may rely on.

`load_result` reads them, and all results of this form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

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

from dmlbench.utils.digests import read_with_digest
from dmlbench.utils.errors import MissingResult

MAKES_NUMBERS = False
OK = "ok"
DIVERGED = "diverged"
SETTLED = frozenset({OK, DIVERGED})
"""The statuses that running the job again would not change."""
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
        pattern=r"^(history\.parquet|embeddings\.npz|model\.safetensors|artefacts/[^/.][^/]*|"
        r"optimism/epoch[1-9][0-9]*\.npy)$"
    ),
]


class Strict(BaseModel):
    """The base of all shapes. Types are not converted; further keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class FileShape(Strict):
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ErrorRecord(Strict):
    message: str
    tail: list[str]


class Outcome(Strict):
    """What every result says of how its job ended."""

    status: Name
    error: ErrorRecord | None

    @model_validator(mode="after")
    def _has_an_error_if_it_failed(self) -> Outcome:
        if (self.status == OK) != (self.error is None):
            raise ValueError("a failed run has an error, and no other run has one")
        return self


class ProvenanceRecord(Strict):
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
    loss_parameters: Annotated[int, Field(ge=0)] | None = None
    images_per_second: Amount = None
    runs_per_gpu: Annotated[int, Field(ge=1)] = 1
    mps: bool = False


class _Run(Outcome):
    train_key: Name
    settings: dict[str, Any]
    code: dict[str, str]
    files: dict[FileName, FileShape]
    provenance: ProvenanceRecord


class _Row(Strict):
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


class _Optimism(Strict):
    """What the best epoch by a test score would have given; the values are fractions."""

    protocol: Name
    metric: Name
    best_epoch: Annotated[int, Field(ge=1)]
    best: Annotated[float, Field(ge=0, le=1 + ROUNDING)]
    last: Annotated[float, Field(ge=0, le=1 + ROUNDING)]
    gap: Annotated[float, Field(ge=0, le=1 + ROUNDING)]


class _Finding(Strict):
    """What speaks against the scores of a run; see docs/quality.md."""

    severity: Annotated[int, Field(ge=0, le=3)]
    name: Name
    message: Name


class _NearDuplicates(Strict):
    """The test images that were compared with the training images."""

    test_images: Annotated[int, Field(ge=1)]
    leaked: Annotated[int, Field(ge=0)]


class _EmbeddingShape(Strict):
    dim: Annotated[int, Field(ge=1)]
    effective_rank: Annotated[float, Field(ge=1 - ROUNDING)]
    spread: Annotated[float, Field(ge=0, le=1 + ROUNDING)]


class _Metrics(Outcome):
    train_key: Name
    eval_key: Name
    training: Name
    metrics: Rows
    optimism: list[_Optimism] = []
    files: dict[Literal["queries.parquet"], FileShape] = {}
    """Empty if no image is ranked, or the run failed."""
    findings: list[_Finding] = []
    near_duplicates: _NearDuplicates | None = None
    """None if nobody has searched, or the run failed."""
    embedding_shape: _EmbeddingShape | None = None
    """None if the run failed."""
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
    check_shape(_Run, content)


def check_metrics(content: dict[str, Any]) -> None:
    """Check the content of metrics.json; see `check_run`."""
    check_shape(_Metrics, content)


def check_shape(shape: type[BaseModel], content: dict[str, Any]) -> None:
    """Check that `content` has the shape `shape`.

    Raises:
        ValueError: with the first key that is wrong, and what is wrong with it.
    """
    try:
        shape.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {problem}" if place else problem) from None


def load_result(path: Path, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The content of the result file `path`.

    Raises:
        MissingResult: it is missing, damaged, or not what `check` expects.
    """
    try:
        content = read_with_digest(path)
        check(content)
    except OSError as error:
        raise MissingResult(f"{path}: {error.strerror}. `snakemake` makes it.") from None
    except (ValueError, RecursionError) as error:
        problem = f"damaged, edited, or of an older version: {error}"
        raise MissingResult(f"{path}: {problem}. `snakemake` makes it again.") from None
    return content
