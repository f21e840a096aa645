import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from dmlbench.leaderboard.plots.figure import save
from dmlbench.leaderboard.plots.tree import LEAVES, layout, tree
from dmlbench.leaderboard.style import COLOURS
from dmlbench.leaderboard.table import read

FIRST, SECOND = [*COLOURS.values()][:2]


def of_groups(count, groups, seed=0):
    """Linkage of points that stand in `groups` heaps far from each other."""
    random = np.random.default_rng(seed)
    heap = np.arange(count) % groups
    points = 100 * np.eye(groups)[heap] + random.normal(size=(count, groups))
    return linkage(pdist(points), "single")


@pytest.fixture
def learnt(results):
    """Figure of cells of made-up runs, and its texts."""

    def draw(*seeds, classes=12, levels=("script",)):
        merges, heap = of_groups(12, 2), np.arange(classes) % 2
        for seed, (status, kept) in enumerate(seeds):
            plan = results.add("htl", seed, status=status, levels=levels, tree="trees/x")
            if kept is not None:
                artefact = {
                    "train_key": plan["train_key"],
                    "classes": [f"class {number:05}" for number in range(classes)],
                    "super_classes": {
                        f"level_{n + 1}": ["Greek" if h else "Latin" for h in heap]
                        for n in range(len(levels))
                    },
                    "learnt": {"merges": merges.tolist(), "thresholds": [0.5, 50.0, 9e9]},
                } | kept
                file = results.folder / plan["path"] / "artefacts/loss.json"
                file.parent.mkdir()
                file.write_text(json.dumps(artefact))
        figure = tree(read(results.runs, results.folder))
        save(figure, results.folder / "tree.svg")
        text = " ".join(ElementTree.parse(results.folder / "tree.svg").getroot().itertext())
        return figure, " ".join(text.split())

    return draw


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(2, 50), st.sampled_from(["single", "average"]), st.data())
def test_what_stands_between_two_leaves_of_a_node_is_of_that_node(count, most, method, data):
    seed = data.draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    merges = linkage(pdist(random.normal(size=(count, 2))), method)
    groups = random.integers(0, 3, count)
    groups = np.unique(groups, return_inverse=True)[1]
    drawn = layout(merges, groups, most)
    assert len(drawn.leaves) == min(count, most) == len(drawn.joints) + 1
    assert sorted(drawn.place[drawn.leaves]) == list(range(len(drawn.leaves)))

    members = [{c} for c in range(count)]
    for one, other in merges[:, :2].astype(int):
        members.append(members[one] | members[other])
    assert set().union(*(members[leaf] for leaf in drawn.leaves)) == set(range(count))
    for node, of in enumerate(members):
        own = {int(groups[c]) for c in of}
        assert drawn.group[node] == (own.pop() if len(own) == 1 else -1)
    for one, other, joint in drawn.joints:
        assert members[joint] == members[one] | members[other]
        assert drawn.height[joint] >= max(drawn.height[one], drawn.height[other])
        assert drawn.place[joint] == (drawn.place[one] + drawn.place[other]) / 2
        inside = sorted(
            drawn.place[leaf] for leaf in drawn.leaves if members[leaf] <= members[joint]
        )
        assert np.all(np.diff(inside) == 1)
        assert inside[0] <= drawn.place[joint] <= inside[-1]
    if most >= count:
        assert sorted(drawn.leaves) == sorted(leaves_list(merges))


def test_super_classes_that_are_apart_have_a_branch_of_their_colour_each(learnt):
    figure, text = learnt(("ok", {}))
    assert "letters · tiny · htl, seed 0: 12 classes" in text
    assert [name for name in ("script", "Greek", "Latin", "class 00011") if name not in text] == []
    colours = [to_hex(colour) for colour in figure.axes[0].collections[0].get_colors()]
    # 11 merges of three lines each; of the last one, only the two branches have a colour
    assert (colours.count(FIRST), colours.count(SECOND), len(colours)) == (16, 16, 33)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    even = [int(label[-5:]) % 2 for label in labels]
    assert even in ([0] * 6 + [1] * 6, [1] * 6 + [0] * 6)
    assert [t.get_text() for t in figure.axes[0].texts] == ["0", "1"]  # thresholds within the axis


def test_many_long_names_of_super_classes_stay_on_the_sheet(learnt):
    names = [f"Canadian Aboriginal Syllabics {number % 30:02}" for number in range(60)]
    merges = of_groups(60, 30).tolist()
    figure, _ = learnt(
        ("ok", {"super_classes": {"level_1": names}, "learnt": {"merges": merges}}), classes=60
    )
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len(legend.get_texts()) == 30


def test_without_super_classes_a_tree_is_of_one_colour(learnt):
    figure, text = learnt(("ok", {}), levels=())
    assert len({to_hex(colour) for colour in figure.axes[0].collections[0].get_colors()}) == 1
    assert "Greek" not in text


@pytest.mark.parametrize("kept", [None, {"train_key": "old"}, {"learnt": {"spread": []}}])
def test_the_first_seed_that_has_a_tree_is_drawn(learnt, kept):
    _, text = learnt(("ok", kept), ("ok", {}))
    assert "letters · tiny · htl, seed 1: 12 classes" in text


def test_a_hole_says_why(learnt):
    _, text = learnt(("out_of_memory", None))
    assert text.endswith("letters · tiny · htl: no tree: out of memory")


def test_an_artefact_that_was_deleted_is_a_hole(learnt):
    _, text = learnt(("ok", None))
    assert text.endswith("letters · tiny · htl: no tree: none was kept")


def test_of_thousands_of_classes_in_one_long_chain_the_last_merges_are_drawn(learnt, results):
    count = 12_000
    chain = [[0, 1, 0.1, 2]]
    chain += [[n + 1, count + n - 1, 0.1 + n / count, n + 2] for n in range(1, count - 1)]
    _, text = learnt(("ok", {"learnt": {"merges": chain}}), classes=count)
    assert f"12,000 classes, the last {LEAVES} groups" in text
    assert "class 0" not in text
