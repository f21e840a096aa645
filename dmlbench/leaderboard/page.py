"""The leaderboard's page: its head, its sections, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pandas as pd

from dmlbench.leaderboard.choices import Choice
from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.content import Page, distinct, format_settings, shared_settings
from dmlbench.leaderboard.sections.audit import audit_sections
from dmlbench.leaderboard.sections.backbones import backbone_sections
from dmlbench.leaderboard.sections.ladder import ladder_sections
from dmlbench.leaderboard.sections.learnt import learnt_sections
from dmlbench.leaderboard.sections.optimism import optimism_sections
from dmlbench.leaderboard.sections.overview import read_overview
from dmlbench.leaderboard.sections.published import published_table
from dmlbench.leaderboard.sections.quality import quality_sections
from dmlbench.leaderboard.sections.scores import score_sections
from dmlbench.leaderboard.sections.statistics import statistics_sections
from dmlbench.leaderboard.sections.summary import summary_sentences
from dmlbench.leaderboard.sections.tuning import describe_tuning, tuning_sections
from dmlbench.leaderboard.statistics.panel import NO_STATISTICS, PanelStatistics
from dmlbench.leaderboard.table import VERSION, Result
from dmlbench.losses._catalogue import loss_family
from dmlbench.study.gallery_files import gallery_page
from dmlbench.study.reality_check import REALITY_CHECK
from dmlbench.study.remarks import NO_REMARKS, Remarks
from dmlbench.study.row_names import is_trained

NOTES = """\
Scores are in percent: the mean over seeds ± half the width of its 95 % interval
(Student's t). One seed has no interval. The interval of a loss says how well its own mean is known
if it were trained with other seeds. It does not say which losses differ: two losses whose intervals
overlap may still differ significantly, and among many pairs some differ by chance. The rank says
so: it is an interval, because losses that are not separated by a test of the two are tied. Controls
and external embeddings have no rank. Other data may give another order. "2 of 3" seeds means that
the other runs failed; such a mean may flatter the loss. No test image belongs to a class seen in
training. A training of this study is scored after its last epoch, or with protocol: reality_check
after the epoch that its own validation chose: no epoch, setting or seed was chosen on the test
classes. R-Precision, MAP@R, MAP and MRR leave out
queries without another image of their class; Recall@K counts them as misses. "Recall@1 alphabet"
scores the super-classes of that level: it is the share of queries whose nearest image has the same
super-class, among the queries for which this is possible. H-AP, ASI and NDCG score the whole
ranking by classes and super-classes together: a wrong image of the right super-class costs less
than one of another. MAP and MRR use the whole ranking of the
gallery. NMI is computed by k-means with as many clusters as there are classes; AMI is NMI corrected
for chance. Verification accuracy is the share of pairs judged correctly; each fold uses the
threshold that is best for the other folds. Train time and images/s are means over seeds, without
the evaluation. Controls need no training. random: random vectors; untrained: the model before its
first step; untrained_pca: the features of its backbone, whitened by a PCA of the training images;
frozen: these features as they are, without a head; oracle: the labels themselves. "untrained →
oracle" is the part of the way from the untrained model (0 %) to the labels themselves (100 %) by
the metric that sorts the table; below 0 %, a loss is worse than the untrained model. The embeddings
in rows with "(embeddings)" were computed outside this study and only scored here: no recipe applies
to them.
"""
TRACKS = {
    "fair": "fair: one recipe for all losses",
    "paper": "paper: a recipe as published, to be compared with the published numbers",
}
PROTOCOL = (
    "reality_check (Musgrave et al., ECCV 2020): each run trains four models, each without one of "
    "four blocks of training classes, which choose its epoch. separated: mean of the four scores; "
    "concatenated: their four embeddings side by side"
)
HEAD_ONLY = (
    "{}: the backbone is frozen. Its features are computed once, and each loss trains an embedding "
    "head on them. So the numbers compare losses as heads learn by them, and not as they train a "
    "backbone"
)
HYPERBOLIC = (
    "hyperbolic in the rows of {}: their images are ranked by distance in a Poincaré ball, and NMI "
    "clusters their clipped embeddings. Cosines rank all other rows"
)
DEVIATIONS_TITLE = "Known to depart from the paper"
UNCONFIRMED_TITLE = "Not confirmed by a source"


def compose(
    study: str,
    table: pd.DataFrame,
    results: Sequence[Result],
    remarks: Remarks = NO_REMARKS,
    comparisons: Sequence[Comparison] = (),
    choices: Sequence[Choice] = (),
    statistics: Mapping[str, PanelStatistics] = NO_STATISTICS,
) -> Page:
    """The page: a head, an overview, a section for each data set, backbone and protocol, and the
    remarks. Without several of these there is no overview.

    Equal arguments give equal pages: no date is on it.

    Args:
        study: the name of the study.
        table: the long table of `results`.
        comparisons: of the same results with published numbers.
        choices: what was chosen for each loss that is tuned.
        statistics: title of a panel of the table -> its statistics.
    """
    recipes = recipes_of(results)
    recipe = shared_settings(recipes.values())
    failed = sum(result.metrics["status"] != "ok" for result in results)
    frozen = _frozen_backbones(results)
    hyperbolic = ", ".join(_hyperbolic_losses(results))
    versions = [str(column) for column in table.columns if str(column).startswith(VERSION)]
    head = {
        "Track": TRACKS[remarks.track],
        **({"Head only": HEAD_ONLY.format(", ".join(frozen))} if frozen else {}),
        "Tuning": describe_tuning(choices, remarks.track),
        **({"Protocol": PROTOCOL} if _has_several_models(results) else {}),
        **({"Distance": HYPERBOLIC.format(hyperbolic)} if hyperbolic else {}),
        "Runs": f"{len(results)}, of which {failed or 'none'} failed",
        "Recipe": format_settings(recipe),
        "Versions": ", ".join(f"{v.removeprefix(VERSION)} {distinct(table[v])}" for v in versions),
        "Code": distinct(table["git_commit"]),
        "Device": distinct(table["device"]),
    }
    if sharing := _describe_sharing(results):
        head["GPUs shared"] = sharing
    titled = {UNCONFIRMED_TITLE: remarks.unconfirmed, DEVIATIONS_TITLE: remarks.deviations}
    overview = read_overview(table, statistics)
    sentences = summary_sentences(statistics)
    scores = score_sections(table, results, recipes, recipe, statistics)
    over_all = overview.sentence() if overview else None
    if over_all:  # then who wins in a single panel is said at its table
        scores = (replace(part, notes=_named(sentences, part.title)) for part in scores)
    return Page(
        title=f"{study}: leaderboard",
        head=head,
        pictures=_pictures(results),
        sections=[
            *([overview.section()] if overview else []),
            *scores,
            *ladder_sections(table, results),
            *backbone_sections(table, results),
            *statistics_sections(statistics),
            *tuning_sections(choices),
            *audit_sections(results, choices),
            *quality_sections(table, results),
            *optimism_sections(results),
            *learnt_sections(results),
        ],
        summary=[over_all] if over_all else [*sentences.values()],
        families=_families(results),
        published=published_table(comparisons) if remarks.track == "paper" else None,
        remarks={title: paths for title, paths in titled.items() if paths},
    )


def _pictures(results: Sequence[Result]) -> dict[str, str]:
    """The pages of pictures of each data set and backbone that has some."""
    groups = filter(None, (result.planned["gallery"] for result in results))
    return {group.replace("/", " · "): quote(gallery_page(group)) for group in groups}


def recipes_of(results: Sequence[Result]) -> dict[str, Mapping[str, Any]]:
    """Path of each trained run -> its recipe."""
    return {
        result.planned["path"]: result.run["settings"]["recipe"]
        for result in results
        if is_trained(result.planned["loss"])
    }


def _named(sentences: Mapping[str, str], name: str) -> list[str]:
    return [sentences[name]] if name in sentences else []


def _families(results: Sequence[Result]) -> dict[str, str]:
    """Loss -> the family that its file names."""
    kinds = {
        result.planned["loss"]: result.run["settings"].get("loss", {}).get("type")
        for result in results
        if is_trained(result.planned["loss"])
    }
    return {loss: loss_family(kind) for loss, kind in kinds.items() if kind}


def _has_several_models(results: Sequence[Result]) -> bool:
    """Whether runs of the study trained several models."""
    return any(result.run["settings"].get("protocol") == REALITY_CHECK for result in results)


def _frozen_backbones(results: Sequence[Result]) -> list[str]:
    """The backbones whose trunk is frozen, in the order of the study."""
    names = {
        result.planned["backbone"]: None
        for result in results
        if result.planned["settings"].get("backbone", {}).get("trunk") == "frozen"
    }
    return [*names]


def _hyperbolic_losses(results: Sequence[Result]) -> list[str]:
    """The losses whose images are ranked by hyperbolic distance, with its settings."""
    balls = {
        result.planned["loss"]: result.metrics.get("settings", {}).get("poincare_ball")
        for result in results
    }
    return [f"{loss} ({format_settings(ball)})" for loss, ball in balls.items() if ball]


def _describe_sharing(results: Sequence[Result]) -> str:
    """How runs shared their GPUs; empty if each had one to itself. It decides their times."""
    origins = [result.run["provenance"] for result in results]
    shared = {
        (origin["runs_per_gpu"], "with" if origin.get("mps") else "without")
        for origin in origins
        if origin.get("runs_per_gpu", 1) > 1
    }
    texts = [f"up to {runs} runs on a GPU, {word} MPS" for runs, word in sorted(shared)]
    return f"{' / '.join(texts)}; so train times are not those of a whole GPU" if texts else ""
