"""`dmlbench.score`: the metrics of embeddings in memory."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.ranking import UnusableEmbeddings
from dmlbench.study.error_messages import describe_errors
from dmlbench.study.poincare_ball import PoincareBall
from dmlbench.study.setting_types import MAX_ENTRIES
from dmlbench.study.settings import Evaluation
from dmlbench.utils.device import device_fault
from dmlbench.utils.errors import InvalidArgument
from dmlbench.utils.gpu_lease import lease_device
from dmlbench.utils.text import short_repr

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    Values = ArrayLike | Tensor | Sequence[Tensor]

MAKES_NUMBERS = False
PROTOCOL = "score"
PAIRS = ("first", "second", "same", "fold")
MAX_ROWS = 5
"""Most rows that a message names."""
MOST_RADIUS = 2.5
"""Of a Poincaré ball of curvature 1."""


def score(
    embeddings: Values,
    labels: Values,
    *,
    query_embeddings: Values | None = None,
    query_labels: Values | None = None,
    levels: Mapping[str, Values] | None = None,
    query_levels: Mapping[str, Values] | None = None,
    pairs: Mapping[str, Values] | None = None,
    recall_at: Iterable[int] = (1, 2, 4, 8),
    kmeans_seed: int = 0,
    kmeans_iterations: int = 20,
    kmeans_restarts: int = 3,
    curvature: float | None = None,
    radius: float | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> dict[str, float]:
    """Score embeddings by all metrics, as the workflow scores those of a run.

    Embeddings may have any length: cosines rank them, or hyperbolic distances. Everything may be a
    NumPy array, a tensor on any device, or a list.

    Args:
        embeddings: (N, D), floating-point numbers of any type.
        labels: class of each embedding (N,): numbers or strings.
        query_embeddings: (Q, D), if the queries are other images than the gallery, which is then
            `embeddings`. Without them, each embedding is a query, and all others are its gallery.
        query_labels: (Q,).
        levels: name of a level -> super-class of each embedding (N,), the nearest level first. Each
            gives "recall@K <name>", and all together h_ap, asi and ndcg.
        query_levels: the same for the queries, each (Q,).
        pairs: to verify pairs: columns `first` and `second`, rows of `embeddings`; `same`, whether
            they share a class; and `fold`. Each is (P,).
        recall_at: the K of Recall@K.
        kmeans_seed: NMI and AMI are computed from the clusters of k-means. These depend on the
            order of the embeddings too.
        kmeans_iterations: most updates of the centroids.
        kmeans_restarts: the start of k-means with the least inertia counts.
        curvature: to rank by the distance in a Poincaré ball of this curvature, into which the
            exponential map at the origin takes the embeddings, as of the loss `hyp`.
        radius: a longer embedding is shortened to this length first. Both or none are given; the
            root of the curvature times the radius is 2.5 at most.
        threads: on a CPU. No score depends on the number.
        device: "cpu"; or "cuda", which is faster from some 20,000 embeddings on. It waits while a
            run of a study uses that GPU.

    Returns:
        recall@K, map@r, r_precision, map, mrr, nmi and ami, each in [0, 1] (ami may be a little
        below 0); with `levels` also "recall@K <level>", h_ap, asi and ndcg; queries and
        lone_queries, which are counts; with `pairs` also verification_accuracy,
        verification_error and pairs.

    Raises:
        InvalidArgument: no metric is defined on these arguments; it is a ValueError.

    >>> import numpy as np
    >>> angles = np.deg2rad([0, 10, 25, 30, 60, 200])
    >>> embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> labels = ["cat", "cat", "dog", "cat", "dog", "dog"]
    >>> scores = score(embeddings, labels, recall_at=[1, 2])
    >>> scores["recall@1"], round(scores["map@r"], 4)
    (0.5, 0.3333)
    >>> gallery, queries = embeddings[:3], [[1.0, 2.0]]
    >>> score(gallery, labels[:3], query_embeddings=queries, query_labels=["dog"])["recall@1"]
    1.0
    """
    vectors, classes = check_embeddings("embeddings", embeddings, "labels", labels)
    size = len(vectors)
    groups = _check_levels("levels", {} if levels is None else levels, size)
    roles = np.full(size, "both")
    queries = {"query_embeddings": query_embeddings, "query_labels": query_labels}
    missing = [name for name, values in queries.items() if values is None]
    if len(missing) == 1:
        _refuse(missing[0], "missing. Queries need query_embeddings and query_labels")
    if missing and query_levels is not None:
        _refuse("query_levels", "given without query_embeddings")
    if not missing:
        more, more_classes = check_embeddings(
            "query_embeddings", query_embeddings, "query_labels", query_labels
        )
        if more.shape[1] != vectors.shape[1]:
            other = f"their dimension is {more.shape[1]}, and that of embeddings {vectors.shape[1]}"
            _refuse("query_embeddings", other)
        more_groups = _check_levels("query_levels", query_levels or {}, len(more))
        if groups.keys() != more_groups.keys():
            _refuse("query_levels", f"they need the names of levels: {', '.join(groups) or 'none'}")
        vectors = np.concatenate([vectors, more])
        classes = _join("query_labels", classes, more_classes)
        groups = {
            name: _join(f"query_levels[{name!r}]", groups[name], more_groups[name])
            for name in groups
        }
        roles = np.repeat(["gallery", "query"], [size, len(more)])
    numbers = number_classes(classes, None if missing else size)
    for name, values in groups.items():
        _check_relevant(f"levels[{name!r}]", values, None if missing else size)
    rows = np.arange(len(vectors))
    protocols = {
        "protocol": np.full(len(rows), PROTOCOL),
        "id": rows,
        "role": roles,
        "repetition": np.zeros_like(rows),
    }
    settings = _check_settings(
        recall_at=recall_at,
        kmeans_seed=kmeans_seed,
        kmeans_iterations=kmeans_iterations,
        kmeans_restarts=kmeans_restarts,
        threads=threads,
    )
    ball = _check_ball(curvature, radius)
    checked_pairs = None if pairs is None else _check_pairs(pairs, size)
    device = _check_device(device)
    try:
        with contextlib.nullcontext() if device == "cpu" else lease_device(device):
            scores = evaluate(
                vectors,
                rows,
                {"id": rows, "label": numbers, **groups},
                protocols,
                settings,
                pairs=checked_pairs,
                levels=[*groups],
                device=device,
                ball=ball,
            )
    except UnusableEmbeddings as error:
        _refuse("embeddings", f"{error}{_name_rows(vectors, size)}")
    return {row["metric"]: float(row["value"]) for row in scores.rows}


def _refuse(argument: str, problem: str) -> NoReturn:
    raise InvalidArgument(f"{argument}: {problem}.")


def to_array(argument: str, values: Any) -> NDArray[Any]:
    """The values of an array, a tensor on any device, or a list, as an array.

    Raises:
        InvalidArgument: they are no rectangular array.
    """
    torch = sys.modules.get("torch")  # who has a tensor has imported torch
    try:
        if torch is not None:
            if isinstance(values, list | tuple) and values and torch.is_tensor(values[0]):
                values = torch.stack([*values])
            if torch.is_tensor(values):
                values = values.detach().cpu()
                if values.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
                    values = values.float()
                return values.to_dense().numpy() if values.is_sparse else values.numpy()
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        _refuse(argument, f"they are no array with rows of one length ({error})")


def check_embeddings(
    name: str, embeddings: Any, labels_name: str, labels: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    vectors = to_array(name, embeddings)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.shape[1]:
        hint = ". Join the batches: numpy.concatenate or torch.cat" if vectors.ndim == 3 else ""
        _refuse(name, f"they are {_form(vectors)}, not numbers (N, D){hint}")
    if not len(vectors):
        _refuse(name, "there are none")
    return vectors, _check_labels(labels_name, labels, len(vectors))


def _check_labels(name: str, labels: Any, size: int) -> NDArray[Any]:
    """Labels as numbers, or as strings."""
    values = to_array(name, labels)
    if values.dtype.kind == "U" and isinstance(labels, list | tuple):
        values = np.asarray(labels, dtype=object)  # NumPy writes a NaN among strings as "nan"
    if values.shape != (size,):
        hint = ""
        if values.size == size:
            hint = ". Use .ravel()"
        elif values.ndim == 2 and len(values) == size:
            hint = ". Of one-hot labels, use .argmax(axis=1)"
        _refuse(name, f"their shape is {values.shape}, and {size} embeddings need ({size},){hint}")
    if values.dtype.kind in "OS":
        missing = sum(_is_missing(value) for value in values.tolist())
        if missing:
            _refuse(name, f"{missing} of {size} are missing (None or NaN)")
        are_numbers = all(isinstance(value, Real) for value in values.tolist())
        values = np.asarray(values.tolist()) if are_numbers else values.astype(str)
    if values.dtype.kind not in "biufU":
        _refuse(name, f"they are {values.dtype}, not numbers or strings")
    if values.dtype.kind == "f" and (missing := int(np.isnan(values).sum())):
        _refuse(name, f"{missing} of {size} are missing (NaN)")
    return values


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, or a missing value of pandas."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA does not say whether it equals itself
        return True


def number_classes(classes: NDArray[Any], gallery: int | None) -> NDArray[np.integer]:
    """The class of each embedding, from 0.

    Args:
        gallery: the first so many embeddings are the gallery; None: all are queries too.
    """
    _, numbers = np.unique(classes, return_inverse=True)
    if not numbers.any():
        _refuse("labels", "all embeddings have one class, so every score would be the best one")
    _check_relevant("labels", numbers, gallery)
    return numbers


def _check_relevant(argument: str, classes: NDArray[Any], gallery: int | None) -> None:
    """Refuse classes by which no query has a relevant image; `gallery`: see `number_classes`."""
    if gallery is None and len(np.unique(classes)) == len(classes):
        _refuse(argument, "no two embeddings share a class, so no query has a relevant image")
    if gallery is not None and not np.isin(classes[gallery:], classes[:gallery]).any():
        queries = f"none of them is in {argument}, so no query has a relevant image"
        _refuse(f"query_{argument}", queries)


def _check_levels(argument: str, levels: Any, size: int) -> dict[str, NDArray[Any]]:
    if not isinstance(levels, Mapping) or not all(isinstance(name, str) for name in levels):
        _refuse(argument, 'they are no mapping from names: {"species": [...], "genus": [...]}')
    return {
        name: _check_labels(f"{argument}[{name!r}]", values, size)
        for name, values in levels.items()
    }


def _join(name: str, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """The labels of the gallery, then those of the queries."""
    if (first.dtype.kind == "U") != (second.dtype.kind == "U"):
        _refuse(name, "those of the gallery or of the queries are strings, the others numbers")
    return np.concatenate([first, second])


def _check_pairs(pairs: Any, size: int) -> dict[str, NDArray[Any]]:
    if not isinstance(pairs, Mapping) or set(pairs) != set(PAIRS):
        _refuse("pairs", f"they are no mapping with {', '.join(PAIRS)}")
    columns = {name: to_array(f"pairs[{name!r}]", pairs[name]) for name in PAIRS}
    count = columns["first"].size
    for name, values in columns.items():
        if values.shape != (count,) or values.dtype.kind not in "biu" or not count:
            _refuse(f"pairs[{name!r}]", f"they are {_form(values)}, not integers ({count},)")
    columns["same"] = columns["same"].astype(bool)
    for name in ("first", "second"):
        if columns[name].min() < 0 or columns[name].max() >= size:
            _refuse(f"pairs[{name!r}]", f"rows are from 0 to {size - 1}")
    if len(np.unique(columns["fold"])) < 2:
        _refuse("pairs['fold']", "there is one, and its threshold is chosen on the others")
    return columns


def check_recall_at(recall_at: Any) -> list[int]:
    """The K of Recall@K.

    Raises:
        InvalidArgument: they are no list of different whole numbers from 1.
    """
    ks: list[int] = _check_settings(recall_at=recall_at)["recall_at"]
    return ks


def _check_settings(**settings: Any) -> dict[str, Any]:
    try:
        entries = [*islice(settings["recall_at"], MAX_ENTRIES + 1)]
    except TypeError:
        _refuse("recall_at", f"found {short_repr(settings['recall_at'])}, not a list: [1, 10]")
    if not entries:
        _refuse("recall_at", "it is empty")
    if len(entries) > MAX_ENTRIES:
        _refuse("recall_at", f"it has more than {MAX_ENTRIES} values")
    settings["recall_at"] = [int(k) if isinstance(k, np.integer) else k for k in entries]
    try:
        return Evaluation.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        raise InvalidArgument("\n".join(describe_errors(error, Evaluation))) from None


def _check_ball(curvature: Any, radius: Any) -> PoincareBall | None:
    given = {"curvature": curvature, "radius": radius}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 2:
        return None
    if missing:
        _refuse(missing[0], "missing. A Poincaré ball needs curvature and radius")
    for name, value in given.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or not 0 < float(value) < math.inf
        ):
            _refuse(name, f"found {short_repr(value)}, not a number above 0")
    if math.sqrt(curvature) * radius > MOST_RADIUS:
        most = f"{MOST_RADIUS / math.sqrt(curvature):.4g}"
        _refuse(
            "radius", f"{radius} is too large for float32: with this curvature, take {most} or less"
        )
    return PoincareBall(float(curvature), float(radius))


def _check_device(device: str) -> str:
    if device == "cpu":
        return device
    if fault := device_fault(device):
        _refuse("device", f"torch cannot use {short_repr(device)}: {fault}")
    return str(device)


def _name_rows(vectors: NDArray[Any], size: int) -> str:
    """The rows that hold no usable vector, in words; none if all vectors are the same."""
    finite = np.isfinite(vectors).all(axis=1)
    bad = np.flatnonzero(~finite)
    if finite.all():
        bad = np.flatnonzero(~vectors.any(axis=1))
    names = [f"row {r}" if r < size else f"row {r - size} of query_embeddings" for r in bad]
    more = f" and {len(names) - MAX_ROWS} more" if len(names) > MAX_ROWS else ""
    return f": {', '.join(names[:MAX_ROWS])}{more}" if names else ""


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
