"""`dmlbench.load_store`: the packed images as a data set of torch."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dmlbench
from dmlbench.utils.errors import DatasetError, InvalidArgument


def test_an_item_is_an_image_of_the_store_and_its_class(glyphs):
    train = dmlbench.load_store(glyphs.path)
    split = glyphs.split("train")
    assert len(train) == len(split.rows)
    assert train.num_classes == len(split.class_names)
    for place in (0, 17, -1):
        image, label = train[place]
        assert image.dtype == torch.uint8
        assert np.array_equal(image.numpy(), glyphs[split.rows[place]])
        assert label == split.labels[place]
        assert type(label) is int
    assert train.class_names == split.class_names
    assert train.labels.dtype == torch.int64
    assert train.labels.tolist() == split.labels.tolist()
    assert train.paths[17] == glyphs.index["path"][split.rows[17]]
    assert train.parents.tolist() == split.parents.tolist()


def test_the_splits_have_other_images(glyphs):
    train, test = (dmlbench.load_store(str(glyphs.path), split) for split in ("train", "test"))
    assert not {*train.paths} & {*test.paths}
    assert len(train) + len(test) == len(glyphs)


def test_the_transform_makes_the_image(glyphs):
    train = dmlbench.load_store(glyphs.path, transform=lambda image: image.float() / 255)
    plain = dmlbench.load_store(glyphs.path)
    assert torch.equal(train[3][0], plain[3][0] / 255)


def test_an_image_may_be_changed_in_place(glyphs):
    train = dmlbench.load_store(glyphs.path)
    before = train[0][0].clone()
    train[0][0].zero_()
    assert torch.equal(train[0][0], before)


def test_the_workers_of_a_data_loader_read_it(glyphs):
    train = dmlbench.load_store(glyphs.path)
    loader = DataLoader(train, batch_size=8, num_workers=1, multiprocessing_context="fork")
    images, labels = next(iter(loader))
    assert images.shape == (8, *glyphs[0].shape)
    assert labels.tolist() == train.labels[:8].tolist()


def test_a_loss_is_created_for_its_classes_and_super_classes(glyphs):
    train = dmlbench.load_store(glyphs.path)
    loss = dmlbench.create_loss("hpl", train.num_classes, 8, train.parents, hierarchy="given")
    assert loss.coarse[0].parent.tolist() == train.parents[0].tolist()


def test_a_store_is_found_by_its_name_in_the_data_folder(data_folder, store_name, monkeypatch):
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    assert dmlbench.load_store(store_name).store.path == data_folder / "stores" / store_name


def test_a_store_that_is_not_there_is_named_with_those_that_are(
    data_folder, store_name, monkeypatch
):
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    with pytest.raises(DatasetError, match=f"glyphz: there is no such store, .*{store_name}"):
        dmlbench.load_store("glyphz")
    with pytest.raises(DatasetError, match=r"elsewhere/.*: there is no such store"):
        dmlbench.load_store(f"elsewhere/{store_name}")


def test_a_folder_that_is_no_store_and_a_split_that_is_none_are_refused(glyphs, tmp_path):
    with pytest.raises(DatasetError, match=r"this folder is no packed store: it has no manifest"):
        dmlbench.load_store(tmp_path)  # the user's own folder: nothing advises to delete it
    with pytest.raises(InvalidArgument, match=r"split: found 'val'\. Allowed: train, test"):
        dmlbench.load_store(glyphs.path, "val")
