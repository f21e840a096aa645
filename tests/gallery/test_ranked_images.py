"""The pictures of a holdout show its own test images."""

import numpy as np

from dmlbench.datasets.store.part import WHOLE, Part
from dmlbench.gallery.ranked_images import read_images


def test_the_images_of_a_holdout_are_queries_and_gallery_whatever_their_own_split(glyphs):
    part = Part(0.1, "class")
    split = glyphs.split("test", part)
    assert {*glyphs.index["split"][split.rows].tolist()} == {"train", "test"}
    images = read_images(glyphs, part, split.rows[::-1], ["script"])
    assert images.ids.tolist() == split.rows.tolist()
    assert images.class_names == split.class_names
    assert images.labels.tolist() == split.labels.tolist()
    for rows in (images.queries, images.gallery):
        assert rows.tolist() == [*range(len(split.rows))]
    own = read_images(glyphs, WHOLE, np.arange(len(glyphs)), ["script"])
    assert own.ids.tolist() == glyphs.split("test").rows.tolist()
