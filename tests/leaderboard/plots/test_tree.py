import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from scipy.cluster.hierarchy import cut_tree, leaves_list, linkage
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_mutual_info_score

from dmlbench.leaderboard.plots.figure import save
from dmlbench.leaderboard.plots.tree import MAX_LEAVES, compute_layout, cut, tree
from dmlbench.leaderboard.style import COLOURS
from dmlbench.leaderboard.table import read_results

FIRST, SECOND = [*COLOURS.values()][:2]


def clustered_linkage(count, clusters, seed=0):
    """The linkage of `count` points in `clusters` that are far from each other."""
    random = np.random.default_rng(seed)
    cluster = np.arange(count) % clusters
    points = 100 * np.eye(clusters)[cluster] + random.normal(size=(count, clusters))
    return linkage(pdist(points), "single")


@pytest.fixture
def learnt(results):
    """A function that draws the tree of made-up seeds; it returns the figure and its text."""

    def draw(*seeds, classes=12, levels=("script",)):
        merges, cluster = clustered_linkage(12, 2), np.arange(classes) % 2
        for seed, (status, kept) in enumerate(seeds):
            planned = results.add("htl", seed, status=status, levels=levels, tree="trees/x")
            if kept is not None:
                artefact = {
                    "train_key": planned["train_key"],
                    "classes": [f"class {number:05}" for number in range(classes)],
                    "super_classes": {
                        f"level_{n + 1}": ["Greek" if c else "Latin" for c in cluster]
                        for n in range(len(levels))
                    },
                    "learnt": {"merges": merges.tolist(), "thresholds": [0.5, 50.0, 9e9]},
                } | kept
                file = results.files.run(planned["path"]).loss_artefact
                file.parent.mkdir()
                file.write_text(json.dumps(artefact))
        figure = tree(read_results(results.runs, results.files))
        save(figure, [results.folder / "tree.svg"])
        text = " ".join(ElementTree.parse(results.folder / "tree.svg").getroot().itertext())
        return figure, " ".join(text.split())

    return draw


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(2, 50), st.sampled_from(["single", "average"]), st.data())
def test_the_leaves_of_a_node_are_next_to_each_other_and_lines_do_not_cross(
    count, max_leaves, method, data
):
    seed = data.draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    merges = linkage(pdist(random.normal(size=(count, 2))), method)
    groups = random.integers(0, 3, count)
    groups = np.unique(groups, return_inverse=True)[1]
    layout = compute_layout(merges, groups, max_leaves)
    position, distance = layout.position, layout.distance
    assert len(layout.leaves) == min(count, max_leaves) == len(layout.merges) + 1
    assert sorted(position[layout.leaves]) == list(range(len(layout.leaves)))

    members = [{c} for c in range(count)]
    for first, second in merges[:, :2].astype(int):
        members.append(members[first] | members[second])
    assert set().union(*(members[leaf] for leaf in layout.leaves)) == set(range(count))
    for node, classes in enumerate(members):
        node_groups = {int(groups[c]) for c in classes}
        assert layout.group[node] == (node_groups.pop() if len(node_groups) == 1 else -1)
    for first, second, merged in layout.merges:
        assert members[merged] == members[first] | members[second]
        assert distance[merged] >= max(distance[first], distance[second])
        assert position[merged] == (position[first] + position[second]) / 2
        inside = sorted(
            position[leaf] for leaf in layout.leaves if members[leaf] <= members[merged]
        )
        assert np.all(np.diff(inside) == 1)
        assert inside[0] <= position[merged] <= inside[-1]
    if max_leaves >= count:
        assert sorted(layout.leaves) == sorted(leaves_list(merges))


def test_super_classes_that_are_far_apart_have_a_branch_of_their_colour(learnt):
    figure, text = learnt(("ok", {}))
    assert "letters · tiny · htl, seed 0: 12 classes" in text
    assert [name for name in ("script", "Greek", "Latin", "class 00011") if name not in text] == []
    colours = [to_hex(colour) for colour in figure.axes[0].collections[0].get_colors()]
    # 11 merges of three lines each; of the last one, only the two branches have a colour
    assert (colours.count(FIRST), colours.count(SECOND), len(colours)) == (16, 16, 33)
    *thresholds, labels = np.split([t.get_text() for t in figure.axes[0].texts], [2])
    even = [int(label[-5:]) % 2 for label in labels]
    assert even in ([0] * 6 + [1] * 6, [1] * 6 + [0] * 6)
    assert np.concatenate(thresholds).tolist() == ["0", "1"]  # those within the axis
    assert "with the 2 super-classes of script" in text
    assert "tree, cut into as many groups: 1.00" in text
    assert "n = 1 seed" in text


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 40), st.sampled_from(["single", "average"]), st.data())
def test_a_tree_is_cut_as_scipy_does(count, groups, method, data):
    groups = min(groups, count)
    random = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    merges = linkage(pdist(random.normal(size=(count, 2))), method)
    ours, reference = cut(merges, groups), cut_tree(merges, groups)[:, 0]
    assert len(np.unique(ours)) == groups
    assert len(np.unique(np.column_stack([ours, reference]), axis=0)) == groups


def test_the_caption_says_how_well_the_tree_agrees_with_each_level(learnt):
    near = [str(number % 3) for number in range(12)]
    far = ["even" if number % 2 else "odd" for number in range(12)]
    merges = clustered_linkage(12, 2)
    _, text = learnt(
        ("ok", {"super_classes": {"level_1": near, "level_2": far}}), levels=("script", "family")
    )
    agreement = adjusted_mutual_info_score(near, cut_tree(merges, 3)[:, 0])
    assert f"{agreement:.2f} with the 3 super-classes of script; 1.00 with the 2" in text
    assert agreement < 0.5


def test_many_long_names_of_super_classes_stay_within_the_figure(learnt):
    names = [f"Canadian Aboriginal Syllabics {number % 30:02}" for number in range(60)]
    merges = clustered_linkage(60, 30).tolist()
    figure, _ = learnt(
        ("ok", {"super_classes": {"level_1": names}, "learnt": {"merges": merges}}), classes=60
    )
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len(legend.get_texts()) == 30
    caption = figure.texts[0].get_window_extent()
    assert box.y0 >= caption.y1 - 1
    below_tree = figure.axes[0].xaxis.label.get_window_extent().y0
    assert box.y1 <= below_tree + 1
    names = [text.get_window_extent() for text in figure.axes[0].texts]
    assert max(name.x1 for name in names) <= figure.bbox.width


def test_a_tree_without_super_classes_has_one_colour(learnt):
    figure, text = learnt(("ok", {}), levels=())
    assert len({to_hex(colour) for colour in figure.axes[0].collections[0].get_colors()}) == 1
    assert "Greek" not in text
    assert "super-class" not in text


@pytest.mark.parametrize("kept", [None, {"train_key": "old"}, {"learnt": {"spread": []}}])
def test_the_first_seed_with_a_tree_is_drawn(learnt, kept):
    _, text = learnt(("ok", kept), ("ok", {}))
    assert "letters · tiny · htl, seed 1: 12 classes" in text


def test_a_figure_without_a_tree_gives_the_reason(learnt):
    _, text = learnt(("out_of_memory", None))
    assert text.endswith("letters · tiny · htl: no tree: out of memory")


def test_a_deleted_artefact_gives_a_figure_without_a_tree(learnt):
    _, text = learnt(("ok", None))
    assert text.endswith("letters · tiny · htl: no tree: none was kept")


def test_only_the_last_merges_are_drawn_if_thousands_of_classes_form_one_chain(learnt, results):
    count = 12_000
    chain = [[0, 1, 0.1, 2]]
    chain += [[n + 1, count + n - 1, 0.1 + n / count, n + 2] for n in range(1, count - 1)]
    _, text = learnt(("ok", {"learnt": {"merges": chain}}), classes=count)
    assert f"12,000 classes, the last {MAX_LEAVES} groups" in text
    assert "class 0" not in text
