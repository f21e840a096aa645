"""`dmlbench embed` gives the user's images the embeddings that the run itself would give them."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlbench import embed
from dmlbench.cli.main import main
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.study.poincare_ball import PoincareBall
from dmlbench.study.run import Run
from dmlbench.study.study import read_study
from dmlbench.training.external_embeddings import read_embeddings
from dmlbench.training.job import train_job
from dmlbench.utils.errors import DatasetError, MissingResult, UnusableFile, UserError
from tests.result_edits import edit_result

RUN = "shapes/tiny/normalized_softmax/seed0"
CLASSES, IMAGES = 8, 5
ROTATED = 6
"""EXIF orientation of an image that has to be turned by 90 degrees."""


def write_images(folder):
    """A CSV of noisy images of unequal sizes, some of them rotated; half of the classes test."""
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
    """Write a study of the user's own images that keeps its models, and pack the images."""
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
    study = read_study("study.json")
    run = study.runs[RUN]
    store = folder / "data/stores" / run.store
    pack("csv", run.model.side, store, folder, options=run.data.options)
    return study


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_settings):
    """The folder of a project with one finished training and its model."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        study = write_project(folder, tiny_settings)
        assert train_job(study, study.runs[RUN], folder / "data/stores", None) == 0
    return folder


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """The study in a copy of `trained` that a test may change."""
    folder = shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return read_study("study.json")


@pytest.fixture
def folder(study):
    return study.folder / "runs" / RUN


@pytest.fixture
def embed_places(study, tmp_path):
    """A function that embeds images and returns the content of the file."""

    def embedded(*places):
        embed.embed(study, study.runs[RUN], [*map(Path, places)], tmp_path / "v.npz")
        with np.load(tmp_path / "v.npz") as file:
            return dict(file)

    return embedded


def run_embeddings(folder):
    """The embeddings of the test images that the run made itself."""
    with np.load(folder / "embeddings.npz") as file:
        return file["embeddings"]


def test_the_test_images_get_exactly_the_embeddings_of_the_run(embed_places, folder, study):
    embedded = embed_places("my/test")
    assert embedded["embeddings"].dtype == np.float32
    assert np.array_equal(embedded["embeddings"], run_embeddings(folder))
    assert embedded["path"][:6].tolist() == [f"1_{k}.png" for k in range(5)] + ["3_0.png"]
    assert str(embedded["train_key"]) == study.runs[RUN].train_key


def test_a_model_with_heads_at_three_depths_is_kept_and_loaded(
    tmp_path, tiny_settings, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    study = write_project(tmp_path, tiny_settings, head="low_mid_high", dim=24, image_size=80)
    for path in (RUN, "shapes/tiny/control_untrained/seed0"):
        assert train_job(study, study.runs[path], tmp_path / "data/stores", None) == 0
    trained, untrained = (
        run_embeddings(study.folder / "runs" / path)
        for path in (RUN, "shapes/tiny/control_untrained/seed0")
    )
    embed.embed(study, study.runs[RUN], [Path("my/test")], tmp_path / "v.npz")
    embedded = np.load(tmp_path / "v.npz")["embeddings"]
    assert embedded.shape == (CLASSES // 2 * IMAGES, 24)
    assert np.array_equal(embedded, trained)
    assert np.isfinite(untrained).all()
    assert not np.allclose(trained, untrained)


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("my", CLASSES * IMAGES),
        ("my.zip", CLASSES * IMAGES),
        ("my/test", CLASSES // 2 * IMAGES),
        ("my/*/*.png", CLASSES * IMAGES),
    ],
)
def test_the_embeddings_can_be_external_embeddings_whichever_folder_they_are_made_from(
    embed_places, folder, study, tmp_path, pattern, images
):
    shutil.make_archive("my", "zip", "my")
    places = sorted((tmp_path / "copy").glob(pattern)) if "*" in pattern else [pattern]
    embedded = embed_places(*places)
    assert len(embedded["path"]) == images
    store = Store(tmp_path / "copy/data/stores" / study.runs[RUN].store)
    rows = store.split("test").rows
    np.testing.assert_allclose(
        read_embeddings(tmp_path / "v.npz", store, rows), run_embeddings(folder), 1e-4
    )


def test_hyperbolic_embeddings_say_so_and_are_no_external_embeddings(
    embed_places, study, tmp_path, monkeypatch
):
    monkeypatch.setattr(Run, "ball", PoincareBall(0.1, 2.3))
    embedded = embed_places("my")
    assert (embedded["curvature"], embedded["radius"]) == (0.1, 2.3)
    store = Store(tmp_path / "copy/data/stores" / study.runs[RUN].store)
    with pytest.raises(UnusableFile, match="compared by hyperbolic distance"):
        read_embeddings(tmp_path / "v.npz", store, store.split("test").rows)


def test_batches_are_filled_across_the_chunks_of_the_decoder(embed_places, folder, monkeypatch):
    sizes = []

    def embed_and_count(model, run, batch, device):
        sizes.append(len(batch))
        return embed_batch(model, run, batch, device)

    embed_batch = embed._embed
    monkeypatch.setattr(embed, "_embed", embed_and_count)
    monkeypatch.setattr(embed, "EMBED_BATCH", 9)
    embedded = embed_places("my")  # 40 images, decoded 32 at a time
    assert sizes == [9, 9, 9, 9, 4]
    test_images = embedded["embeddings"][:20]  # "test" sorts before "train"
    np.testing.assert_allclose(test_images, run_embeddings(folder), 1e-4)


def test_images_are_named_by_their_path_in_the_folder_or_as_they_are_given(study, tmp_path, capsys):
    files = ("my/a.PNG", "my/deep/b.jpeg", "my/.hidden.png", "my/__MACOSX/c.png", "my/d.txt")
    for name in files:
        (tmp_path / "copy" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "copy" / name).touch()
    (tmp_path / "copy/my/deep").rename(tmp_path / "elsewhere")
    (tmp_path / "copy/my/deep").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    folder, image = tmp_path / "copy/my", tmp_path / "copy/my/d.txt"
    names = embed.find_images([folder, image])
    assert [*names[folder].items()][:2] == [("a.PNG", "a.PNG"), ("deep/b.jpeg", "deep/b.jpeg")]
    assert len(names[folder]) == 2 + CLASSES * IMAGES
    # a file given by itself needs no suffix of an image
    assert names[image] == {str(image): str(image)}
    assert capsys.readouterr().out == f"{folder}: 3 files left out: 1 hidden, 1 .txt, 1 .csv\n"


SUFFIXES = [
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pbm",
    ".png",
]
SUFFIXES += [".pgm", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"]
OTHER_SUFFIXES = [".csv", ".eps", ".h5", ".heic", ".json", ".mp4", ".mpg", ".npz", ".pdf", ".svg"]


def test_every_image_that_pillow_decodes_is_taken_and_nothing_else(tmp_path, capsys):
    for suffix in SUFFIXES + OTHER_SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
        (tmp_path / f"B{suffix.upper()}").touch()
    (names,) = embed.find_images([tmp_path]).values()
    assert {*names} == {f"a{s}" for s in SUFFIXES} | {f"B{s.upper()}" for s in SUFFIXES}
    assert "20 files left out: 2 .csv, 2 .eps," in capsys.readouterr().out


def test_two_spellings_of_one_name_are_refused(tmp_path):
    for name in ("a/b.png", "a\\b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"names differ only in spelling:\n    a/b\.png"):
        embed.find_images([tmp_path])


def test_the_same_name_in_two_places_is_refused(study, tmp_path):
    shutil.copytree("my/test", "other")
    with pytest.raises(DatasetError, match="20 images are in more than one place"):
        embed.find_images([tmp_path / "copy/my/test", tmp_path / "copy/other"])


def test_empty_and_missing_places_are_refused(study, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no images are in it\.$"):
        embed.find_images([tmp_path / "empty"])
    for name in ("a.txt", "b.mp4", "c", ".d.png"):
        (tmp_path / "empty" / name).touch()
    (tmp_path / "empty/e.png").symlink_to("nowhere")
    with pytest.raises(DatasetError) as caught:
        embed.find_images([tmp_path / "empty"])
    assert str(caught.value) == (
        f"{tmp_path}/empty: no images are in it; 5 files left out: "
        f"1 hidden, 1 .txt, 1 .mp4, 1 without a suffix, 1 links to nothing."
    )
    with pytest.raises(DatasetError, match=r"nowhere: there is no such image, folder or zip"):
        embed.find_images([tmp_path / "nowhere"])


def test_all_damaged_images_are_named_and_nothing_is_written(study, tmp_path, capsys, monkeypatch):
    for name in ("my/test/1_0.png", "my/train/6_4.png"):
        (tmp_path / "copy" / name).write_bytes(b"no image")
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.write("my/test/1_1.png", "in/zip.png")
    torn = (tmp_path / "copy/b.zip").read_bytes().replace(b"IDAT", b"IDIT")
    (tmp_path / "copy/b.zip").write_bytes(torn)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as ended:
        main(["embed", "study.json", RUN, "my", "b.zip", "--output", "out.npz"])
    for name in ("my: test/1_0.png", "my: train/6_4.png", "b.zip: in/zip.png"):
        assert f"{name}: cannot decode this image" in str(ended.value)
    assert not (tmp_path / "copy/out.npz").exists()
    assert not list((tmp_path / "copy").glob(".out*"))


def test_the_error_about_a_model_that_was_not_kept_says_how_to_get_it(embed_places, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingResult, match=r"keep_model: true(.|\n)*--forcerun \S*/run\.json"):
        embed_places("my")


@pytest.mark.parametrize("damage", ["a bit", "truncated", "another"])
def test_a_damaged_model_is_refused(embed_places, folder, damage):
    model = folder / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-9] ^= 1
    damaged = {"a bit": bytes(content), "truncated": bytes(content[:-9]), "another": b"weights"}
    model.write_bytes(damaged[damage])
    with pytest.raises(MissingResult, match=r"model\.safetensors: damaged: (.|\n)*--forcerun \S*"):
        embed_places("my")


def test_runs_without_a_usable_model_are_refused(embed_places, folder, study):
    failed = {"status": "diverged", "error": {"message": "the loss is nan", "tail": []}}
    key = json.loads((folder / "run.json").read_text())["train_key"]
    for changes, message in (
        ({"train_key": "older"}, "other settings or code"),
        (failed | {"train_key": key}, "this training failed: the loss is nan"),
    ):
        edit_result(folder / "run.json", **changes)
        with pytest.raises(MissingResult, match=message):
            embed_places("my")
    (folder / "run.json").unlink()
    with pytest.raises(MissingResult, match=r"run\.json: .*`snakemake` makes it"):
        embed_places("my")
    control = study.runs["shapes/tiny/control_random/seed0"]
    with pytest.raises(MissingResult, match="so it has no model"):
        embed.embed(study, control, [folder], folder / "out.npz")


def test_a_gpu_that_cannot_compute_in_the_precision_of_the_run_is_refused(
    embed_places, tmp_path, monkeypatch
):
    def refuse(gpu_precision):
        raise UserError(f"recipe.gpu_precision: {gpu_precision}")

    monkeypatch.setattr(embed, "choose_device", refuse)
    with pytest.raises(UserError, match=r"^recipe\.gpu_precision: bfloat16$"):
        embed_places("my/test")
    assert not (tmp_path / "v.npz").exists()
