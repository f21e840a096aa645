"""How often the leaderboard's statistics are right, in simulated studies whose truth is known, and
what they cost.

It prints Markdown tables:

    python benchmarks/significance.py > benchmarks/results/significance-cpu.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmlbench.evaluation.evaluate import QueryScores
from dmlbench.evaluation.query_file import write_query_scores
from dmlbench.leaderboard.sections.statistics import statistics_sections
from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.statistics.panel import panel_statistics
from dmlbench.leaderboard.statistics.two_way import compare_classes
from dmlbench.leaderboard.table import Panel, Result
from dmlbench.study.result_files import StudyFiles

SEEDS, CLASSES = 5, 100
STUDIES, RESAMPLED_STUDIES, RESAMPLES = 2000, 300, 500
MOST_WRONG, LEAST_POWER, COVERAGE = 0.062, 0.8, (0.92, 0.98)
"""The targets."""
SECONDS, MEMORY_MB = 60, 2000
SIZE = {"losses": 30, "seeds": 10, "queries": 60_502, "classes": 11_316}
"""Of a large study: the queries and classes of Stanford Online Products."""


class Deviations(NamedTuple):
    """The standard deviations of the parts of a class's mean score."""

    seeds: float
    classes: float
    rest: float
    """Of a class of 20 queries; of more queries it is smaller."""


PARTS = (
    Deviations(0, 0, 1),
    Deviations(0, 1, 1),
    Deviations(0, 0.3, 1),
    Deviations(0.05, 0.3, 1),
    Deviations(0.1, 1, 1),
    Deviations(0.3, 1, 1),
    Deviations(1, 1, 1),
    Deviations(0.1, 0, 0.2),
)
SIZES: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "equal": lambda random: np.full(CLASSES, 60.0),
    "2 to 12": lambda random: random.integers(2, 13, size=CLASSES).astype(float),
    "log-normal": lambda random: np.maximum(2, np.round(20 * random.lognormal(size=CLASSES))),
}
"""Numbers of queries of the classes. A few log-normal classes have a third of all queries."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--studies", type=int, default=STUDIES)
    for name, value in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="of the large study")
    options = parser.parse_args()
    from bare import describe_machine  # it imports torch, whose memory would count

    print(
        f"{describe_machine('cpu', 'numpy', 'scipy', 'pyarrow')}; {SEEDS} seeds, "
        f"{options.studies:,} simulated studies for each number.\n"
    )
    show_seeds(options.studies)
    show_classes(options.studies)
    show_cost({name: getattr(options, name) for name in SIZE})


def show_seeds(studies: int) -> None:
    """How often paired tests over seeds separate losses that are equal, and that are not."""
    print("Would training again change the order?\n")
    print(
        "| losses | truth | separated | in studies | asked for |\n| ---: | --- | --- | ---: | --- |"
    )
    for losses in (2, 8, 30):
        wrong = np.mean([tests.is_separated.any() for tests in simulate_seeds(losses, studies)])
        print_rate(f"{losses} | all equal | any pair", wrong, most=MOST_WRONG)
    better = [
        tests.is_better[0, 1:] for tests in simulate_seeds(8, studies, better=2.0, deviation=0.4)
    ]
    truth = "8 | one better by 2, sd of paired differences 0.4"
    print_rate(f"{truth} | it and another loss", float(np.mean(better)), least=LEAST_POWER)
    print_rate(f"{truth} | it and all others", float(np.all(better, axis=1).mean()), LEAST_POWER)
    print(flush=True)


def simulate_seeds(
    losses: int, studies: int, better: float = 0.0, deviation: float = 1.0
) -> Iterator[Any]:
    """The tests of studies in which the first loss is better by `better`."""
    random = np.random.default_rng(losses)
    for _ in range(studies):
        scores = deviation / np.sqrt(2) * random.normal(size=(losses, SEEDS))
        scores[0] += better
        yield compare_seeds(scores)


def show_classes(studies: int) -> None:
    """How often the two-way intervals cover the true difference, and how often pairs of 8 equal
    losses are separated."""
    print(f"Would other classes change it? {CLASSES} classes. The true difference is 0.\n")
    print("Deviations are those of seeds, of classes, and of the rest for 20 queries.\n")
    print(
        "| queries of a class | deviations | interval covers | bootstrap covers | any pair of 8 "
        "separated |\n| --- | --- | ---: | ---: | ---: |"
    )
    low, high = COVERAGE
    for name, sizes in SIZES.items():
        for parts in PARTS:
            random = np.random.default_rng(0)
            covered, resampled = [], []
            for study in range(studies):
                totals, weights = draw_classes(2, sizes(random), parts, random)
                tests = compare_classes(totals, weights)
                covered.append(abs(tests.difference[0]) <= tests.half_width[0])
                if study < RESAMPLED_STUDIES:
                    resampled.append(bootstrap_covers(totals, weights, random))
            wrong = [
                compare_classes(*draw_classes(8, sizes(random), parts, random)).is_separated.any()
                for _ in range(studies)
            ]
            rate = float(np.mean(covered))
            missed = "" if low <= rate <= high else " **missed**"
            too_many = " **missed**" if np.mean(wrong) > MOST_WRONG else ""
            deviations = ", ".join(f"{part:g}" for part in parts)
            print(
                f"| {name} | {deviations} | {100 * rate:.1f} %{missed} | "
                f"{100 * np.mean(resampled):.0f} % | {100 * np.mean(wrong):.1f} %{too_many} |",
                flush=True,
            )
    asked = f"{100 * low:.0f} to {100 * high:.0f} % covered, at most {100 * MOST_WRONG:.1f} %"
    print(f"\nAsked for: {asked} separated.\n")


def draw_classes(
    losses: int, sizes: NDArray[np.float64], parts: Deviations, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Totals (L, S, C) of equal losses, and the numbers of queries (C,)."""
    means = parts.seeds * random.normal(size=(losses, SEEDS, 1))
    means = means + parts.classes * random.normal(size=(losses, 1, len(sizes)))
    noise = random.normal(size=(losses, SEEDS, len(sizes))) * np.sqrt(20 / sizes)
    return (means + parts.rest * noise) * sizes, sizes


def bootstrap_covers(
    totals: NDArray[np.float64], weights: NDArray[np.float64], random: np.random.Generator
) -> bool:
    """Whether the interval of a bootstrap over seeds and over classes covers 0."""
    difference = totals[0] - totals[1]
    seeds, classes = (
        random.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
        for size in difference.shape
    )
    drawn = np.einsum("rs,sc,rc->r", seeds, difference, classes) / (classes @ weights)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return bool(low <= 0 <= high)


def print_rate(name: str, rate: float, least: float = 0.0, most: float = 1.0) -> None:
    target = f"at least {100 * least:.0f} %" if least else f"at most {100 * most:.1f} %"
    missed = "" if least <= rate <= most else " **missed**"
    print(f"| {name} | {100 * rate:.1f} % | {target}{missed} |", flush=True)


def show_cost(size: dict[str, int]) -> None:
    """Seconds and memory of all statistics of a large panel, on one core."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")  # the memory of this process does not count
        with context.Pool(1) as pool:
            files = pool.apply(write_large_study, (Path(folder), size))
        with context.Pool(1) as pool:
            seconds, memory = pool.apply(measure, (Path(folder), size))
    missed = " **missed**" if seconds > SECONDS or memory > MEMORY_MB else ""
    print("| large study | seconds | MB | asked for |\n| --- | ---: | ---: | --- |")
    shape = f"{size['losses']} losses x {size['seeds']} seeds x {size['queries']:,} queries"
    print(
        f"| {shape}, {size['classes']:,} classes ({files / 1e6:.0f} MB of queries.parquet) "
        f"| {seconds:.1f} | {memory:.0f} | {SECONDS} s, {MEMORY_MB:,} MB, one core{missed} |"
    )


def large_results(folder: Path, size: dict[str, int]) -> list[Result]:
    """The runs of a study of one panel."""
    results = []
    for loss in range(size["losses"]):
        for seed in range(size["seeds"]):
            names = {"dataset": "sop", "tested_on": "sop", "backbone": "tiny"}
            path = f"sop/tiny/loss_{loss}/seed{seed}"
            planned = {**names, "loss": f"loss_{loss}", "seed": seed, "path": path}
            origin = {"device": "cpu (any)", "wall_seconds": 3600.0}
            run = {"provenance": origin, "settings": {"recipe": {"cpu_threads": 1}}}
            scored = {"status": "ok", "files": {"queries.parquet": {}}}
            results.append(Result(planned, run, scored, StudyFiles(folder).run(path)))
    return results


def write_large_study(folder: Path, size: dict[str, int]) -> int:
    """Write queries.parquet of all runs; return their bytes together."""
    random = np.random.default_rng(0)
    labels = np.sort(random.permutation(size["queries"]) % size["classes"])
    ids = np.arange(len(labels))
    total = 0
    for result in large_results(folder, size):
        values = np.clip(0.5 + 0.3 * random.normal(size=len(labels)), 0, 1)
        hits = (values > 0.4).astype(float)
        scores = QueryScores("zero_shot", np.zeros_like(ids), ids, labels, values, hits)
        result.files.folder.mkdir(parents=True)
        write_query_scores(result.files.queries, [scores])
        total += result.files.queries.stat().st_size
    return total


def measure(folder: Path, size: dict[str, int]) -> tuple[float, float]:
    """Seconds, and MB of memory at most, from the files to the sections of the page."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, [next(iter(os.sched_getaffinity(0)))])
    random = np.random.default_rng(1)
    results = large_results(folder, size)
    rows = pd.DataFrame([result.planned for result in results])
    rows = rows.assign(metric="map@r", value=0.5 + 0.01 * random.normal(size=len(rows)))
    panel = Panel("sop", "sop", "tiny", "zero_shot", rows.assign(protocol="zero_shot"))
    start = time.perf_counter()
    statistics = panel_statistics(panel, results)
    sections = [*statistics_sections({panel.title: statistics})]
    seconds = time.perf_counter() - start
    check_sections([section.title for section in sections])
    return seconds, peak_memory()


def peak_memory() -> float:
    """MB of this process at most. Linux counts that of its parent in `getrusage`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def check_sections(titles: Sequence[str]) -> None:
    if len(titles) != 3:
        raise SystemExit(f"the page has other sections than expected: {titles}")


if __name__ == "__main__":
    main()
