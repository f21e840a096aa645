"""A study of one's own images and embeddings, from the CSV to the leaderboard."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

REST = {"evaluate": 1, "tables": 1, "verdict": 1}
STORE = "stores/shapes-32"


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


def write_embeddings(folder, file, right=True):
    """Of all images, by their paths: one direction a class, or a random one an image."""
    paths = [line.split(",")[0] for line in (folder / "my/images.csv").read_text().split("\n")[1:]]
    labels = [int(path[0]) for path in paths]
    random = np.random.default_rng(0).standard_normal((len(paths), 5))
    vectors = np.eye(8)[labels] if right else random
    np.savez(folder / file, embeddings=vectors, path=np.array(paths))


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


def score(project, loss, metric="map@r"):
    metrics = project.json(f"results/tiny/runs/shapes/tiny/{loss}/seed0/metrics.json")["metrics"]
    return {row["metric"]: row["value"] for row in metrics}[metric]


def test_one_s_own_images_and_embeddings_reach_the_leaderboard_and_re_run_by_content(
    own, tiny, tmp_path
):
    own.run()
    table = (own.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "| best (embeddings) | 100.00" in table
    assert "| normalized_softmax |" in table
    assert score(own, "embeddings_best", "queries") == 24
    index = pq.ParquetFile(tmp_path / "data" / STORE / "index.parquet").read().to_pydict()
    assert (index["path"][0], index["class_name"][-1]) == ("0_0.png", "class 7")
    assert own.planned() == {}

    # the same content at another place
    (own.folder / "best.npz").rename(own.folder / "moved.npz")
    (own.folder / "my").rename(own.folder / "mine")
    tiny["embeddings"]["best"]["file"] = "moved.npz"
    tiny["datasets"]["shapes"]["file"] = "mine/images.csv"
    own.write(tiny)
    assert own.planned() == {}

    # other embeddings: their row alone
    (own.folder / "mine").rename(own.folder / "my")
    tiny["datasets"]["shapes"]["file"] = "my/images.csv"
    own.write(tiny)
    write_embeddings(own.folder, "moved.npz", right=False)
    assert own.planned() == {"train": 1, **REST}
    own.run()
    assert score(own, "embeddings_best") < 0.9

    # another study with the same images: no packing
    own.write(tiny | {"study": "other"})
    assert own.planned() == {"train": 2, "evaluate": 2, "tables": 1, "verdict": 1}

    # a row of the CSV: all of it, in one call
    own.write(tiny)
    csv = own.folder / "my/images.csv"
    csv.write_text(csv.read_text().rpartition("\n")[0])
    assert own.planned() == {"store": 1, "train": 2, "evaluate": 2, "tables": 1, "verdict": 1}


def test_embeddings_that_lack_images_are_a_hole_with_its_reason(own):
    with np.load(own.folder / "best.npz") as file:
        arrays = {name: file[name][:-2] for name in file}
    np.savez(own.folder / "best.npz", **arrays)
    output = own.run(expect=1)
    reason = "best.npz: 2 of 24 test images have no embedding: 7_4.png, 7_5.png"
    assert f"shapes/tiny/embeddings_best/seed0: error: {reason}" in output
    table = (own.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert reason in table
    assert "| normalized_softmax |" in table


def test_wrong_rows_and_missing_images_are_said_before_any_job(own):
    csv = own.folder / "my/images.csv"
    text = csv.read_text()
    csv.write_text(text.replace("2_3.png,class 2,train", "2_3.png,class 2,test"))
    output = own.run(expect=1)
    assert "datasets.shapes: my/images.csv: 1 of its rows are wrong" in output
    assert "line 17: split of class 'class 2' is 'test', and 'train' on line 14" in output
    csv.write_text(text)
    (own.folder / "my/5_0.png").unlink()
    output = own.run(expect=1)
    assert "my/images.csv, line 32: no file 5_0.png" in output
    assert "rule store:" not in output
    assert "Traceback" not in output
