"""A frozen trunk: its features, computed once, and the head that is trained on them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.losses import create_loss
from dmlbench.study.features import Features, features_file, open_features
from dmlbench.study.study import check_study
from dmlbench.training import batches, features
from dmlbench.training.embedding import embed, embed_test
from dmlbench.training.features import compute_features
from dmlbench.training.inputs import TRUNK_SEED, ImageInputs, open_inputs
from dmlbench.training.train import train
from dmlbench.utils.errors import MissingResult

CPU = torch.device("cpu")
RUN = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def frozen(tiny, tmp_path):
    """A study with a frozen trunk, and 12 images of each of 40 classes."""
    lines = ["path,label,split,set"]
    random = np.random.default_rng(0)
    for label in range(40):
        for number in range(12):
            name = f"{label}-{number}.png"
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name)
            lines.append(f"{name},{label},{'train' if label < 20 else 'test'},{label % 4}")
    (tmp_path / "images.csv").write_text("\n".join(lines))
    file = str(tmp_path / "images.csv")
    tiny["datasets"]["letters"] = {"type": "csv", "file": file, "levels": ["set"]}
    tiny["backbones"]["tiny"]["trunk"] = "frozen"
    tiny["recipe"]["augmentation"] = {"crop_scale": [0.5, 1.0]}
    return tiny


@pytest.fixture
def store(frozen, tmp_path):
    """Its packed images."""
    (name,) = check_study(frozen, "tiny").stores
    options = {name: frozen["datasets"]["letters"][name] for name in ("file", "levels")}
    path = tmp_path / "stores" / name
    pack("csv", 32, path, tmp_path, workers=1, options=options)
    return Store(path)


def make(settings, store, views=0, run=RUN):
    """A run, and features that are computed for it."""
    settings["backbones"]["tiny"] |= {"views": views} if views else {}
    made = check_study(settings, "tiny").runs[run]
    for count in {0, views}:
        compute_features(store.path.parent, Features(made, count), CPU)
    return made


def trunk(run, store):
    torch.manual_seed(TRUNK_SEED)
    return EmbeddingModel(run.model, run.recipe, store.channels).eval()


@torch.no_grad()
def test_features_are_those_of_the_trunk_for_the_central_square_of_every_image(frozen, store):
    run = make(frozen, store)
    stored = open_features(store.path.parent, Features(run, 0))
    assert isinstance(stored, np.memmap)
    assert (stored.shape[0], stored.dtype) == (len(store), np.float32)
    rows = np.array([0, 5, len(store) - 1])
    images = torch.from_numpy(np.stack([store[row] for row in rows])).float() / 255  # 32 pixels
    model = trunk(run, store)
    expected = model.head.features(model.trunk, (images - model.mean) / model.std)
    assert stored[rows] == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


def test_each_view_is_another_random_crop_and_the_same_in_every_computation(frozen, store):
    run = make(frozen, store, views=2)
    wanted = Features(run, 2)
    stored = open_features(store.path.parent, wanted)
    rows = store.split("train").rows
    assert stored.shape[:2] == (len(rows), 2)
    random = np.random.default_rng([features.VIEW_SEED, 1, int(rows[0])])
    first = rows[: features.EMBED_BATCH]
    boxes, drawn = batches.draw(store.sizes[first], run.recipe.augmentation, random)
    images = batches.floats(batches.crops(store, first, boxes, 32), **drawn)
    model = trunk(run, store)
    with torch.no_grad():
        expected = model.head.features(model.trunk, (images - model.mean) / model.std)
    assert stored[: len(first), 1] == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)
    assert not np.allclose(stored[:, 0], stored[:, 1])
    before = stored.copy()
    features_file(store.path.parent, wanted.path).unlink()
    compute_features(store.path.parent, wanted, CPU)
    assert np.array_equal(open_features(store.path.parent, wanted), before)


def test_a_computation_that_is_killed_goes_on_and_ends_with_the_same_bits(
    frozen, store, monkeypatch
):
    monkeypatch.setattr(features, "BLOCK", 100)
    run = check_study(frozen, "tiny").runs[RUN]
    wanted, stores = Features(run, 0), store.path.parent
    compute_features(stores, wanted, CPU)
    expected = open_features(stores, wanted).copy()
    for file in features_file(stores, wanted.path).parent.iterdir():
        file.unlink()

    embedded = []

    def killed_at_third(model, inputs, rows, device):
        embedded.append(int(rows[0]))
        if len(embedded) == 3:
            raise KeyboardInterrupt
        return embed(model, inputs, rows, device)

    monkeypatch.setattr(features, "embed", killed_at_third)
    with pytest.raises(KeyboardInterrupt):
        compute_features(stores, wanted, CPU)
    assert not features_file(stores, wanted.path).exists()
    compute_features(stores, wanted, CPU)
    assert embedded[3] == embedded[2]  # no block was computed twice
    assert sorted({*embedded}) == [*range(0, len(store), features.BLOCK)]
    assert np.array_equal(open_features(stores, wanted), expected)
    computed = len(embedded)
    assert compute_features(stores, wanted, CPU).endswith("are there already")
    assert len(embedded) == computed


@pytest.mark.parametrize("views", [0, 3])
def test_a_head_only_training_is_plain_torch_on_the_stored_features(frozen, store, tmp_path, views):
    check_training(frozen, store, tmp_path, views, store.split("train").rows)


def test_a_holdout_trains_on_the_views_of_its_own_images(frozen, store, tmp_path):
    frozen["datasets"]["letters"] |= {"holdout": "level_1", "class_fraction": 0.6}
    (name,) = check_study(frozen, "tiny").stores
    held_out = Store(store.path.rename(store.path.with_name(name)))
    rows = held_out.split("train", Part(0.6, "level_1")).rows
    assert np.setdiff1d(rows, held_out.split("train").rows).size
    check_training(frozen, held_out, tmp_path, 3, rows)


def check_training(frozen, store, tmp_path, views, viewed):
    """Compare a training with one in plain torch; `viewed` are the images with random views."""
    run = make(frozen, store, views)
    split = store.split("train", run.data.part)
    model, _, history = train(run, store, split, CPU, tmp_path / "state", lambda: None)

    torch.manual_seed(run.seed)
    head = torch.nn.Linear(model.head.in_features, run.model.dim)
    torch.manual_seed(run.seed)
    classes = len(split.class_names)
    loss = create_loss("proxy_anchor", num_classes=classes, embedding_dim=16, **run.loss_options)
    groups = [{"params": head.parameters(), "lr": 0.003}, *loss.param_groups(0.003)]
    optimizer = torch.optim.AdamW(groups, weight_decay=run.recipe.weight_decay)
    stored = open_features(store.path.parent, Features(run, views))
    all_rows = viewed.tolist()
    assert len(stored) == (len(all_rows) if views else len(store))
    steps = len(split.rows) // 48
    values = []
    for step, chosen in enumerate(batches.sample(split.labels, steps, 48, 4, run.seed, 0)):
        rows = split.rows[chosen]
        if views:
            drawn = np.random.default_rng([run.seed, 0, step + 1]).integers(views, size=48)
            places = [all_rows.index(row) for row in rows]
            vectors = [stored[place, view] for place, view in zip(places, drawn, strict=True)]
        else:
            vectors = stored[rows]
        embeddings = head(torch.from_numpy(np.stack(vectors)))
        value = loss(embeddings, torch.from_numpy(split.labels[chosen]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert history[0]["loss"] == pytest.approx(np.mean(values), rel=1e-5)
    assert model.head.weight.detach().numpy() == pytest.approx(
        head.weight.detach().numpy(), rel=1e-3, abs=1e-5
    )


@pytest.mark.parametrize("views", [0, 2])
def test_a_head_may_be_trained_in_chunks_too(frozen, store, tmp_path, views):
    histories = []
    for chunk in (None, 20):
        frozen["recipe"]["chunk"] = chunk
        run = make(frozen, store, views)
        split = store.split("train", run.data.part)
        histories.append(train(run, store, split, CPU, tmp_path / str(chunk), lambda: None)[2])
    whole, chunked = (rows[0]["loss"] for rows in histories)
    assert chunked == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_model_that_is_kept_takes_images_and_gives_the_embeddings_of_the_run(
    frozen, store, tmp_path, head
):
    frozen["backbones"]["tiny"]["head"] = head
    run = make(frozen, store)
    split = store.split("train", run.data.part)
    model, _, _ = train(run, store, split, CPU, tmp_path / "state", lambda: None)
    embeddings, rows = embed_test(model, store, CPU, run)
    whole = open_inputs(run, store).whole_model(model).eval()
    again = embed(whole, ImageInputs(run, store), rows.astype(np.int64), CPU)
    assert again == pytest.approx(embeddings, rel=1e-4, abs=1e-5)
    assert functional.normalize(torch.from_numpy(again)).isfinite().all()


def test_features_that_are_missing_are_named_with_their_fix(frozen, store):
    run = check_study(frozen, "tiny").runs[RUN]
    with pytest.raises(MissingResult, match=r"features/letters.*missing or damaged. `snakemake`"):
        open_inputs(run, store)
