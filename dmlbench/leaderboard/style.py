"""The style of the plots, and the colour and marker of each loss."""

from __future__ import annotations

from colorsys import hls_to_rgb
from hashlib import sha256
from typing import Any

from dmlbench.study.row_names import is_control

WIDTH = 7.2  # inches: two columns of a paper
INK, FADED, GRID, CONTROL_GRAY = "#222222", "#777777", "#d9d9d9", "#9a9a9a"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so plots are equal on every machine
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # a fixed place, which costs no time
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid.axis": "x",
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a $ in the name of a class is a $
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text: searchable, and small
    "pdf.fonttype": 42,  # TrueType, which publishers ask for; text stays text
    "svg.hashsalt": "dmlbench",  # equal plots have equal ids in their SVG
}
# They are far apart from each other in OKLab, and dark enough for white paper. The first ten are so
# for people without red or green cones, too; the others are told apart by their markers.
COLOURS = {
    "htl": "#4477aa",
    "softtriple": "#cc3311",
    "hpl": "#228833",
    "rll": "#aa3377",
    "proxy_anchor": "#ee8800",
    "normalized_softmax": "#33aacc",
    "triplet": "#a87078",
    "multi_similarity": "#6650b5",
    "proxynca_pp": "#ccaa22",
    "group_loss": "#086870",
    "recall_at_k": "#e06699",
    "contrastive": "#88aa33",
    "circle": "#004173",
    "arcface": "#870000",
    "cosface": "#a07dff",
    "margin": "#414100",
    "supcon": "#00d2a5",
    "npair": "#64006e",
    "lifted_structure": "#3787fa",
    "smooth_ap": "#cda0e1",
    "angular": "#69465a",
    "snr": "#006400",
    "proxygml": "#0000ff",
    "hyp": "#ff00ff",
}
MARKERS = "os^DvPX<>ph"


def colour(loss: str) -> str:
    """The colour of `loss` in every plot of every study, as "#rrggbb". Controls are gray.

    >>> colour("htl"), colour("control_random")
    ('#4477aa', '#9a9a9a')
    """
    if is_control(loss):
        return CONTROL_GRAY
    return COLOURS.get(loss) or _from_name(loss)


def marker(loss: str) -> str:
    """The marker of `loss`. It tells losses apart whose colours are similar."""
    losses = [*COLOURS]
    index = losses.index(loss) if loss in losses else _digest(loss)[3]
    return MARKERS[index % len(MARKERS)]


def _from_name(loss: str) -> str:
    """A colour that depends on the name alone, so that it is the same in every study."""
    hue, light, saturation = (byte / 255 for byte in _digest(loss)[:3])
    rgb = hls_to_rgb(hue, 0.38 + 0.16 * light, 0.4 + 0.3 * saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _digest(loss: str) -> bytes:
    return sha256(loss.encode()).digest()
