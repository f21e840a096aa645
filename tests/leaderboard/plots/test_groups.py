"""Learnt groups of classes are drawn against the true super-classes."""

import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from dmlbench.leaderboard.plots.groups import MAX_COLUMNS, contingency, groups, has_groups
from dmlbench.leaderboard.style import colour
from dmlbench.leaderboard.table import read_results

SCRIPTS = ["Greek", "Greek", "Greek", "Latin", "Latin", "Cyrillic"]
PARENTS = [[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 1]]


@pytest.fixture
def learnt(results):
    """A function that adds seeds of hpl which have learnt these groups, and reads them."""

    def read(*seeds, super_classes=SCRIPTS, levels=("script",)):
        for seed, parents in enumerate(seeds):
            planned = results.add("hpl", seed, {"map@r": 0.5}, levels=levels)
            artefact = {
                "train_key": planned["train_key"],
                "classes": [f"class {number}" for number in range(len(super_classes))],
                "super_classes": {"level_1": super_classes} if levels else {},
                "learnt": {"parents": parents} if parents else {},
            }
            file = results.files.run(planned["path"]).loss_artefact
            file.parent.mkdir()
            file.write_text(json.dumps(artefact))
        return read_results(results.runs, results.files)

    return read


def test_classes_are_counted_as_scikit_learn_does():
    random = np.random.default_rng(0)
    true, found = random.integers(0, 5, 200), random.integers(0, 8, 200)
    names, numbers, counts = contingency([*map(str, true)], found.tolist())
    reference = contingency_matrix(true, found)
    assert names == [*"01234"]
    np.testing.assert_array_equal(counts, reference[:, numbers])


def test_a_table_shows_the_classes_of_each_super_class_in_each_group(learnt):
    figure = groups(learnt(PARENTS))
    fine, coarse = figure.axes
    assert [label.get_text() for label in fine.get_yticklabels()] == ["Cyrillic", "Greek", "Latin"]
    assert [label.get_text() for label in fine.get_xticklabels()] == ["2", "0", "1"]
    numbers = {text.get_position(): text.get_text() for text in fine.texts}
    assert numbers == {(0.5, 0.52): "1", (1.5, 1.52): "2", (2.5, 1.52): "1", (2.5, 2.52): "2"}
    shades = fine.collections[0].get_array()
    np.testing.assert_allclose(shades, [[1, 0, 0], [0, 2 / 3, 1 / 3], [0, 0, 1]])
    np.testing.assert_allclose(fine.collections[0].cmap(1.0)[:3], to_rgb(colour("hpl")))
    assert len(coarse.get_xticklabels()) == 2
    assert fine.get_title(loc="left") == "letters · tiny · hpl, seed 0: 6 classes"


def test_the_caption_gives_the_agreement_of_each_level_and_n(learnt):
    caption = groups(learnt(PARENTS)).get_supxlabel().replace("\n", " ")
    first, second = (adjusted_mutual_info_score(SCRIPTS, parents) for parents in PARENTS)
    assert f"with script: {first:.2f} for 3 groups; {second:.2f} for 2 groups" in caption
    assert "n = 1 seed" in caption
    assert "no interval" in caption


def test_the_first_seed_that_has_groups_is_drawn(learnt):
    results = learnt(None, PARENTS)
    assert has_groups(results)
    assert "seed 1" in groups(results).axes[0].get_title(loc="left")


def test_a_loss_without_groups_has_no_picture_of_them(learnt):
    results = learnt(None)
    assert not has_groups(results)
    assert groups(results).get_supxlabel() == "letters · tiny · hpl: no groups were kept"


def test_without_super_classes_each_class_has_a_row(learnt):
    figure = groups(learnt(PARENTS, levels=()))
    assert len(figure.axes[0].get_yticklabels()) == 6
    assert "mutual information" not in figure.get_supxlabel()


def test_more_groups_than_can_be_read_are_said_in_words(learnt):
    many = [*range(MAX_COLUMNS + 1)]
    figure = groups(learnt([many], super_classes=[str(n % 2) for n in many]))
    assert not figure.axes
    assert "too many groups" in figure.get_supxlabel()


def test_all_names_are_within_the_page_and_do_not_overlap(learnt):
    names = [f"a super-class with a name of many letters {n}" for n in range(40)]
    figure = groups(learnt([[n % 40 for n in range(80)]], super_classes=names * 2))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert min(box.x0 for box in boxes) >= 0
    rows = sorted(boxes, key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(rows))
