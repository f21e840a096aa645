"""Made images for the tests of packing."""

from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from dmlbench.datasets import Row


def solid(side: int, value: int = 0) -> Image.Image:
    return Image.new("L", (side, side), value)


def fail(side: int) -> Image.Image:
    raise ValueError("damaged")


def some_images(**changed: Row) -> list[tuple[Row, Callable[[int], Image.Image]]]:
    """Four images of three classes; the pixels of image k are k."""
    rows = {
        "b1": Row("b1", "b", ("x", "top"), "test"),
        "a1": Row("a1", "a", ("x", "top"), "train"),
        "c1": Row("c1", "c", ("y", "top"), "train"),
        "b2": Row("b2", "b", ("x", "top"), "test"),
    } | changed
    return [(row, partial(solid, value=value)) for value, row in enumerate(rows.values())]


class Killed(BaseException):
    """Stands for the end of the process."""


def numbered_images(
    stop: int = 200, decoded: list[int] | None = None
) -> Iterator[tuple[Row, Callable[[int], Image.Image]]]:
    """200 images of several sizes, not in the order of their paths.

    Killed at number `stop`. The numbers of the images that are decoded are added to `decoded`.
    """
    for number in range(200):
        if number == stop:
            raise Killed
        path = f"{7 * number % 200:03}"
        split = "train" if number % 4 < 2 else "test"
        row = Row(path, f"class {number % 4}", ("é" * (number % 2),), split)
        yield row, partial(_draw, number=number, decoded=decoded)


def _draw(side: int, number: int, decoded: list[int] | None) -> Image.Image:
    if decoded is not None:
        decoded.append(number)
    return Image.new("L", (4 + number % 5, 4), number)


class NumberedImages(list):
    """`numbered_images` as a list of the first of them; iterating over it gives them all."""

    def __init__(self, stop: int = 200, decoded: list[int] | None = None) -> None:
        super().__init__([next(numbered_images())])
        self.stop, self.decoded = stop, decoded

    def __iter__(self) -> Iterator[tuple[Row, Callable[[int], Image.Image]]]:
        return numbered_images(self.stop, self.decoded)
