"""A study of the user's images and embeddings, from the CSV to the leaderboard."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

REST = {"build_leaderboard": 1, "verdict": 1}


def write_images(folder, classes=8, images=6):
    """A CSV of squares whose brightness is their class; half of the classes train."""
    lines = ["path,label,split"]
    random = np.random.default_rng(0)
    (folder / "my").mkdir()
    for label in range(classes):
        for k in range(images):
            path = f"{label}_{k}.png"
            noise = random.integers(0, 20, (32, 32, 3))
            Image.fromarray((noise + 25 * label).astype(np.uint8)).save(folder / "my" / path)
            lines.append(f"{path},class {label},{'test' if label % 2 else 'train'}")
    (folder / "my/images.csv").write_text("\n".join(lines))


def write_embeddings(folder, file, left_out=0, factor=1.0):
    """Of all images but the last, by their paths: one direction a class."""
    paths = [line.split(",")[0] for line in (folder / "my/images.csv").read_text().split("\n")[1:]]
    kept = paths[: len(paths) - left_out]
    vectors = factor * np.eye(8)[[int(path[0]) for path in kept]]
    np.savez(folder / file, embeddings=vectors, path=np.array(kept))


@pytest.fixture
def own(project, tiny, tmp_path):
    project.environment["DMLBENCH_DATA"] = str(tmp_path / "data")
    write_images(project.folder)
    write_embeddings(project.folder, "best.npz")
    tiny["datasets"] = {"shapes": {"type": "csv", "file": "my/images.csv"}}
    tiny["embeddings"] = {"best": {"dataset": "shapes", "file": "best.npz"}}
    tiny["recipe"] |= {"batch_size": 8, "images_per_class": 2}
    tiny["plan"] |= {
        **{"datasets": ["shapes"], "embeddings": ["best"], "controls": []},
        "losses": ["normalized_softmax"],
    }
    project.write(tiny)
    return project


def test_own_images_and_embeddings_reach_the_leaderboard(own, tmp_path):
    own.run()
    leaderboard = own.folder / "results/tiny/leaderboard/leaderboard.md"
    assert "| best (embeddings) | 100.00" in leaderboard.read_text()
    assert "| normalized_softmax |" in leaderboard.read_text()
    assert "; 24 queries." in leaderboard.read_text()
    (store,) = (tmp_path / "data/stores").glob("shapes-32-*")
    index = pq.ParquetFile(store / "index.parquet").read().to_pydict()
    assert (index["path"][0], index["class_name"][-1]) == ("0_0.png", "class 7")


@pytest.mark.slow
def test_own_images_and_embeddings_re_run_by_content(own, tiny):
    own.run()
    leaderboard = own.folder / "results/tiny/leaderboard/leaderboard.md"
    # another study of the same images packs nothing
    own.write(tiny | {"study": "other"})
    assert own.planned() == {"train": 2, "evaluate": 2, **REST}

    # the same content at another place
    (own.folder / "best.npz").rename(own.folder / "moved.npz")
    (own.folder / "my").rename(own.folder / "mine")
    tiny["embeddings"]["best"]["file"] = "moved.npz"
    tiny["datasets"]["shapes"]["file"] = "mine/images.csv"
    own.write(tiny)
    assert own.planned() == {}

    # embeddings without some images are refused before any job; without information they are a
    # hole with its reason, and other rows stay
    (own.folder / "mine").rename(own.folder / "my")
    tiny["datasets"]["shapes"]["file"] = "my/images.csv"
    own.write(tiny)
    write_embeddings(own.folder, "moved.npz", left_out=2)
    output = own.run(expect=1)
    missing = "moved.npz: 2 of 24 test images have no embedding: 7_4.png, 7_5.png"
    assert f"embeddings.best.file: {missing}." in output
    assert "Train" not in output
    write_embeddings(own.folder, "moved.npz", factor=0.0)
    output = own.run(expect=1)
    assert "Train embeddings_best on shapes" in output
    assert "Train normalized_softmax" not in output
    reason = "UnusableEmbeddings: 24 of 24 embeddings are the zero vector"
    assert f"shapes/tiny/embeddings_best/seed0: error: {reason}" in output
    assert reason in leaderboard.read_text()
    assert "| normalized_softmax |" in leaderboard.read_text()

    # a row of the CSV: all of it, in one call
    csv = own.folder / "my/images.csv"
    csv.write_text(csv.read_text().rpartition("\n")[0])
    assert own.planned() == {"pack_store": 1, "train": 2, "evaluate": 2, **REST}


def test_wrong_rows_and_missing_images_are_reported_before_any_job(own):
    csv = own.folder / "my/images.csv"
    text = csv.read_text()
    csv.write_text(text.replace("2_3.png,class 2,train", "2_3.png,class 2,test"))
    output = own.run(expect=1)
    assert "datasets.shapes: my/images.csv: 1 problem:" in output
    assert "line 17: split of class 'class 2' is 'test', and 'train' on line 14" in output
    csv.write_text(text)
    (own.folder / "my/5_0.png").unlink()
    output = own.run(expect=1)
    assert "my/images.csv, line 32: no file 5_0.png" in output
    assert "Pack the images" not in output
    assert "Traceback" not in output


def test_images_that_cannot_be_packed_are_named_by_the_status_until_they_are_replaced(own):
    image = own.folder / "my/5_0.png"
    content = image.read_bytes()
    image.write_bytes(content[:100])
    own.run("data", expect=1)
    failed = own.failed_jobs()
    assert "  pack_store shapes-32-" in failed
    assert "5_0.png" in failed
    image.write_bytes(content)
    own.run("data")
    assert own.failed_jobs() == ""


def test_a_store_of_other_images_with_the_same_names_is_refused(own, tiny):
    own.run("data")
    (own.folder / "other").mkdir()
    for file in (own.folder / "my").iterdir():
        (own.folder / "other" / file.name).write_bytes(file.read_bytes())
    tiny["datasets"]["shapes"]["file"] = "other/images.csv"
    own.write(tiny)
    output = own.run(expect=1)
    packed = f"was packed from {own.folder.resolve()}/my, which is still there"
    assert f"{packed}, and the study names other" in output
    tiny["datasets"]["shapes"]["revision"] = 2
    own.write(tiny)
    assert own.planned()["pack_store"] == 1
