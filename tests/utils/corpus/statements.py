"""Statements and expressions, so that a change of Python's syntax tree is seen."""

from __future__ import annotations

import contextlib
import os.path as path
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Point:
    """A point."""

    x: float
    y: float = 0.0
    """Height."""
    names: list[str] = field(default_factory=list)

    @property
    def norm(self) -> float:
        return (self.x**2 + self.y**2) ** 0.5

    def __matmul__(self, other: Point) -> float:
        return self.x * other.x + self.y * other.y


class Row(NamedTuple):
    key: str
    value: int | None = None


def arguments(a, /, b: int = 1, *args: str, c: float, d: float = 2.0, **options: Any) -> Iterator:
    total: int = a + b
    other: list[str]
    other = [*args]
    yield total
    yield from other
    return None


async def later(things):
    async for thing in things:
        await thing
    async with things as entered:
        return [t async for t in entered]


def choose(value, limit=3):
    match value:
        case None | True:
            return 0
        case int(number) if number > limit:
            return number
        case [first, *rest]:
            return first, rest
        case {"key": found, **others}:
            return found, others
        case Point(x=0, y=y):
            return y
        case "text" | -1 | 1.5:
            return ""
        case _:
            raise ValueError(f"no {value!r}") from None


def control(items):
    global counter
    counter = 0
    for index, (left, *right) in enumerate(items):
        if (size := len(right)) > 2 and left is not None:
            continue
        elif size == 0:
            break
        else:
            counter += size
    else:
        counter //= 2
    while counter > 0:
        counter -= 1
    try:
        assert counter >= 0, "below"
    except (ValueError, KeyError) as error:
        raise RuntimeError from error
    finally:
        del counter
    try:
        counter = 1
    except* OSError:
        pass
    with contextlib.suppress(OSError), open(path.devnull) as file, (open(path.devnull)) as other:
        return file, other


key: Callable[[int], int] = lambda n, *, m=2: n @ m if n else m  # noqa
table = {n: [m for m in range(n) if m % 2] for n in range(4) if n}
picked = table[1:2, ..., None], table[::2], [*table][-1]
compared = 1 < 2 <= 3 != 4 in {4} is not None
flags = not (True and False or None), ~1 << 2 >> 1 & 3 | 4 ^ 5, 7 // 2 % 3 - -1
