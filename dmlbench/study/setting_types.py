"""The types of settings with their bounds.

The largest number is about 100 times the largest one in a paper or a common program: what is above
it is a slip.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dmlbench.study.numbers import AS_NUMBER

MAX_NAMES = 1000
"""Most data sets, backbones or losses of a study."""
NAME_LENGTH = 100
"""Characters of a name, which are bytes too. It becomes a folder, and a part of names of files, for
which systems allow 255 bytes."""
MAX_ENTRIES = 100
"""Most K of Recall@K."""
LARGEST_LR = 1000


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The `values`, if each is there once.

    Raises:
        ValueError: a value is there twice.
    """
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{value} is listed twice")
    return values


Fraction = Annotated[float, Field(ge=1e-6, le=1), AS_NUMBER]
Area = Annotated[float, Field(ge=1e-4, le=1), AS_NUMBER]
Ratio = Annotated[float, Field(ge=0.01, le=100), AS_NUMBER]
Strength = Annotated[float, Field(ge=0, le=100), AS_NUMBER]
Factor = Annotated[float, Field(ge=0, le=10_000), AS_NUMBER]
LearningRate = Annotated[float, Field(gt=0, le=LARGEST_LR), AS_NUMBER]
GradientLimit = Annotated[float, Field(gt=0, le=1_000_000_000), AS_NUMBER]

Seed = Annotated[int, Field(ge=0, lt=2**31), AS_NUMBER]
Epoch = Annotated[int, Field(ge=1, le=100_000), AS_NUMBER]
Steps = Annotated[int, Field(ge=0, le=1_000_000_000), AS_NUMBER]
Images = Annotated[int, Field(ge=1, le=1_000_000), AS_NUMBER]
BatchSize = Annotated[int, Field(ge=2, le=1_000_000), AS_NUMBER]
Threads = Annotated[int, Field(ge=1, le=1024), AS_NUMBER]
Dimension = Annotated[int, Field(ge=1, le=100_000), AS_NUMBER]
Side = Annotated[int, Field(ge=1, le=10_000), AS_NUMBER]
Views = Annotated[int, Field(ge=0, le=1000), AS_NUMBER]
ImageSize = Annotated[int, Field(ge=8, le=10_000), AS_NUMBER]
Iterations = Annotated[int, Field(ge=1, le=10_000), AS_NUMBER]
Restarts = Annotated[int, Field(ge=1, le=1000), AS_NUMBER]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=NAME_LENGTH)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES)]
NonEmptyNames = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_NAMES)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=10_000)]
RecallAt = Annotated[tuple[Images, ...], Field(max_length=MAX_ENTRIES), AfterValidator(each_once)]
StepEpochs = Annotated[tuple[Epoch, ...], Field(max_length=1000), AfterValidator(each_once)]
EntriesByName = Annotated[dict[Name, dict[str, Any]], Field(max_length=MAX_NAMES)]
RemarksByPath = Annotated[dict[str, str], Field(max_length=MAX_NAMES)]
