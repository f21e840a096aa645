"""One's own images through a trained model: the vectors that the run itself would have given."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlbench import cli, embed, study
from dmlbench.datasets import DatasetError
from dmlbench.datasets.pack import pack
from dmlbench.datasets.store import Store
from dmlbench.files import MissingResult
from dmlbench.training.elsewhere import read_embeddings
from dmlbench.training.job import train_job

RUN = "shapes/tiny/normalized_softmax/seed0"
CLASSES, IMAGES = 8, 5
ROTATED = 6
"""EXIF: to be turned by a quarter."""


def write_images(folder):
    """A CSV of noise of unequal sizes, some turned by their camera; half of the classes test."""
    random, lines = np.random.default_rng(0), ["path,label,split"]
    for label in range(CLASSES):
        split = "test" if label % 2 else "train"
        (folder / split).mkdir(parents=True, exist_ok=True)
        for k in range(IMAGES):
            path = f"{split}/{label}_{k}.png"
            pixels = random.integers(0, 20, (36 + 3 * k, 40, 3)) + 25 * label
            image, exif = Image.fromarray(pixels.astype(np.uint8)), Image.Exif()
            exif[0x0112] = ROTATED if k == 2 else 1
            image.save(folder / path, exif=exif)
            lines.append(f"{path},class {label},{split}")
    (folder / "images.csv").write_text("\n".join(lines))


def write_project(folder, settings, **backbone):
    """Write a study of one's own images, whose models are kept, and pack them."""
    settings = json.loads(json.dumps(settings)) | {
        "datasets": {"shapes": {"type": "csv", "file": "my/images.csv"}},
        "keep_model": True,
    }
    settings["backbones"]["tiny"] |= backbone
    settings["recipe"] |= {"batch_size": 8, "images_per_class": 2}
    settings["plan"] |= {"datasets": ["shapes"], "losses": ["normalized_softmax"]}
    settings["plan"]["controls"] = ["random", "untrained"]
    write_images(folder / "my")
    (folder / "study.json").write_text(json.dumps(settings))
    made = study.read("study.json")
    run = made.runs[RUN]
    store = folder / "data/stores" / run.store
    pack("csv", run.model.side, store, folder, options=run.data.options)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_settings):
    """The folder of a project with one training of one's own images, its model kept."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        made = write_project(folder, tiny_settings)
        assert train_job(made, made.runs[RUN], folder / "data/stores", None) == 0
    return folder


@pytest.fixture
def made(trained, tmp_path, monkeypatch):
    """A copy of it to spoil."""
    folder = shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return study.read("study.json")


@pytest.fixture
def folder(made):
    return made.folder / "runs" / RUN


@pytest.fixture
def go(made, tmp_path):
    def embedded(*places):
        embed.embed(made, made.runs[RUN], [*map(Path, places)], tmp_path / "v.npz")
        with np.load(tmp_path / "v.npz") as file:
            return dict(file)

    return embedded


def own(folder):
    with np.load(folder / "embeddings.npz") as file:
        return file["embeddings"]


def test_the_test_images_get_the_bits_that_the_run_gave_them(go, folder, made):
    found = go("my/test")
    assert found["embeddings"].dtype == np.float32
    assert np.array_equal(found["embeddings"], own(folder))
    assert found["path"][:6].tolist() == [f"1_{k}.png" for k in range(5)] + ["3_0.png"]
    assert str(found["train_key"]) == made.runs[RUN].train_key


def test_a_model_with_a_head_at_three_depths_is_kept_and_made_again(
    tmp_path, tiny_settings, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = write_project(tmp_path, tiny_settings, head="low_mid_high", dim=24, image_size=80)
    for path in (RUN, "shapes/tiny/control_untrained/seed0"):
        assert train_job(made, made.runs[path], tmp_path / "data/stores", None) == 0
    trained, untrained = (
        own(made.folder / "runs" / path) for path in (RUN, "shapes/tiny/control_untrained/seed0")
    )
    embed.embed(made, made.runs[RUN], [Path("my/test")], tmp_path / "v.npz")
    found = np.load(tmp_path / "v.npz")["embeddings"]
    assert found.shape == (CLASSES // 2 * IMAGES, 24)
    assert np.array_equal(found, trained)
    assert np.isfinite(untrained).all()
    assert not np.allclose(trained, untrained)


@pytest.mark.parametrize("place", ["my", "my.zip"])
def test_a_folder_or_zip_of_the_data_set_is_a_row_of_embeddings(go, folder, made, tmp_path, place):
    shutil.make_archive("my", "zip", "my")
    assert len(go(place)["path"]) == CLASSES * IMAGES
    store = Store(tmp_path / "copy/data/stores" / made.runs[RUN].store)
    rows = store.split("test").rows
    np.testing.assert_allclose(read_embeddings(tmp_path / "v.npz", store, rows), own(folder), 1e-4)


def test_images_fill_batches_over_the_decoder_s_chunks(go, folder, monkeypatch):
    sizes = []

    def note(model, run, batch, device):
        sizes.append(len(batch))
        return embed_batch(model, run, batch, device)

    embed_batch = embed._embed
    monkeypatch.setattr(embed, "_embed", note)
    monkeypatch.setattr(embed, "EMBED_BATCH", 9)
    found = go("my")  # 40 images, decoded 32 at a time
    assert sizes == [9, 9, 9, 9, 4]
    np.testing.assert_allclose(found["embeddings"][:20], own(folder), 1e-4)  # test before train


def test_images_are_called_as_they_are_given_or_by_their_path_in_the_folder(made, tmp_path):
    write = ("my/a.PNG", "my/deep/b.jpeg", "my/.hidden.png", "my/__MACOSX/c.png", "my/d.txt")
    for name in write:
        (tmp_path / "copy" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "copy" / name).touch()
    folder, image = tmp_path / "copy/my", tmp_path / "copy/my/d.txt"
    found = embed.find([folder, image])
    assert found[folder][:2] == ["a.PNG", "deep/b.jpeg"]
    assert len(found[folder]) == 2 + CLASSES * IMAGES
    assert found[image] == [str(image)]  # what is named itself is tried


def test_one_name_in_two_places_is_refused(made, tmp_path):
    shutil.copytree("my/test", "other")
    with pytest.raises(DatasetError, match="20 images are in more than one place"):
        embed.find([tmp_path / "copy/my/test", tmp_path / "copy/other"])


def test_no_images_and_no_such_place_are_said(made, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no images are in it"):
        embed.find([tmp_path / "empty"])
    with pytest.raises(DatasetError, match=r"nowhere: there is no such image, folder or zip"):
        embed.find([tmp_path / "nowhere"])


def test_damaged_images_are_all_named_and_nothing_is_written(made, tmp_path, capsys, monkeypatch):
    for name in ("my/test/1_0.png", "my/train/6_4.png"):
        (tmp_path / "copy" / name).write_bytes(b"no image")
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.write("my/test/1_1.png", "in/zip.png")
    torn = (tmp_path / "copy/b.zip").read_bytes().replace(b"IDAT", b"IDIT")
    (tmp_path / "copy/b.zip").write_bytes(torn)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["embed", "study.json", RUN, "my", "b.zip", "--output", "out.npz"])
    for name in ("my: test/1_0.png", "my: train/6_4.png", "b.zip: in/zip.png"):
        assert f"{name}: cannot decode this image" in str(ended.value)
    assert not (tmp_path / "copy/out.npz").exists()
    assert not list((tmp_path / "copy").glob(".out*"))


def test_a_model_that_was_not_kept_says_how_to_get_it(go, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingResult, match=r"keep_model: true(.|\n)*--forcerun \S*/run\.json"):
        go("my")


def test_a_training_of_other_settings_a_failed_one_and_a_control_are_refused(go, folder, made):
    result = json.loads((folder / "run.json").read_text())
    failed = {"status": "diverged", "error": {"message": "the loss is nan"}}
    for changes, message in (
        ({"train_key": "older"}, "other settings or code"),
        (failed, "this training failed: the loss is nan"),
    ):
        (folder / "run.json").write_text(json.dumps(result | changes))
        with pytest.raises(MissingResult, match=message):
            go("my")
    (folder / "run.json").unlink()
    with pytest.raises(MissingResult, match=r"run\.json: .*`snakemake` makes it"):
        go("my")
    control = made.runs["shapes/tiny/control_random/seed0"]
    with pytest.raises(MissingResult, match="there is no model of it"):
        embed.embed(made, control, [folder], folder / "out.npz")
