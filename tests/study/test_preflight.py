"""What the facts of a study say before any job: refused with file, key, value and fix."""

import numpy as np
import pytest

from dmlbench.losses import _trial as loss_trial
from dmlbench.study import preflight
from dmlbench.training.embedding_trial import problem_of

pytestmark = pytest.mark.usefixtures("in_this_process")
FITTING = (("a", "train", "", 4), ("b", "train", "", 5), ("c", "test", "", 2), ("d", "test", "", 3))


def test_a_study_that_fits_is_accepted(own, write_csv, problems):
    write_csv(*FITTING)
    assert problems(own) == []


def test_a_batch_larger_than_the_training_split_is_refused(own, write_csv, problems):
    write_csv(*FITTING)
    own["recipe"] = {"batch_size": 10, "images_per_class": 5}
    assert problems(own) == [
        "recipe.batch_size: 10 is more than the 9 images that own trains on. Take 5 or less."
    ]


def test_more_images_of_a_class_than_any_class_has_are_refused_where_they_are_set(
    own, write_csv, problems
):
    write_csv(*FITTING)
    own["recipe"] = {"batch_size": 8}
    own["datasets"]["own"]["recipe"] = {"images_per_class": 8, "batch_size": 8}
    own["backbones"]["tiny"]["recipe"] = {"images_per_class": 4}
    fix = "Take 4 or less, or a larger batch_size."
    first = "datasets.own.recipe.images_per_class: 8 fills a batch of 8 with one class"
    assert problems(own) == [f"{first}, which has no negatives. {fix}"]
    own["datasets"]["own"]["recipe"] = {}
    own["backbones"]["tiny"]["recipe"] = {"images_per_class": 6, "batch_size": 6}
    own["recipe"] = {"batch_size": 6, "images_per_class": 3}
    assert problems(own)[0].startswith("backbones.tiny.recipe.images_per_class: 6 fills a batch")


def test_a_class_that_is_too_small_for_its_images_in_a_batch_is_refused(own, write_csv, problems):
    write_csv(("a", "train", "", 4), ("b", "train", "", 9), *FITTING[2:])
    assert problems(own) == []  # an image of class a would come twice, and that is allowed
    own["recipe"] = {"batch_size": 12, "images_per_class": 6}
    assert problems(own) == []
    write_csv(("a", "train", "", 5), ("b", "train", "", 5), ("e", "train", "", 5), *FITTING[2:])
    assert problems(own) == [
        "recipe.images_per_class: 6 is more than any class of own has: the largest that it trains "
        "on has 5 images. Take 5 or less."
    ]


def test_more_classes_of_a_batch_than_there_are_are_refused_once(own, write_csv, problems):
    write_csv(*FITTING)
    own["plan"]["losses"] = ["triplet", "softtriple", "htl"]
    own["losses"] = {"htl": {"neighbours": 1, "images_per_class": 2}}
    own["recipe"] = {"batch_size": 8, "images_per_class": 2}
    assert problems(own) == [
        "recipe.batch_size: on own: 8 / images_per_class 2 = 4 classes a batch, and there are 2 to "
        "train on. Take batch_size: 4 or less, or images_per_class: null.",
        "losses.htl: on own: batch_size 8 / images_per_class 2 = 4 classes, but there are 2. Take "
        "another recipe.batch_size.",
    ]


def test_one_class_is_refused_in_training_and_in_the_test(own, write_csv, problems):
    write_csv(FITTING[0], FITTING[2])
    assert problems(own) == [
        "datasets.own: it trains on 1 class. Give it images of another class in the split train.",
        "datasets.own: its test has 1 class: every embedding would score 100 %, a random one too. "
        "Give it images of another class in the split test.",
    ]


def test_one_class_that_a_fraction_leaves_is_refused(letters, problems):
    letters["plan"]["datasets"] = ["cub200"]
    letters["datasets"] = {"cub200": {"class_fraction": 0.01}}
    assert problems(letters) == [
        "datasets.cub200: it trains on 1 class. Raise class_fraction: 0.01.",
        "datasets.cub200: its test has 1 class: every embedding would score 100 %, a random one "
        "too. Raise class_fraction: 0.01.",
    ]


def test_the_test_of_another_data_set_is_checked_too(own, write_csv, problems):
    write_csv(FITTING[0], FITTING[2])
    own["plan"]["datasets"] = ["cub200"]
    own["datasets"]["cub200"] = {"test_on": "own"}
    assert problems(own)[0].startswith("datasets.own: its test has 1 class: ")


def test_a_test_whose_queries_have_no_image_in_the_gallery_is_refused(own, write_csv, problems):
    write_csv(*FITTING[:2], ("c", "test", "query", 2), ("d", "test", "gallery", 3))
    assert problems(own) == [
        "datasets.own: no query of the test zero_shot has another image of its class in the "
        "gallery, so nothing can be scored. Give both the same classes."
    ]
    write_csv(*FITTING[:2], ("c", "test", "query", 1), ("c", "test", "gallery", 1), FITTING[3])
    assert problems(own) == []


def test_controls_and_embeddings_need_no_batches(own, write_csv, problems):
    write_csv(*FITTING)
    own["recipe"] = {"batch_size": 100, "images_per_class": 4}
    own["plan"]["exclude"] = [{"backbone": "other", "loss": "triplet"}]
    own["plan"]["backbones"] = ["tiny", "other"]
    own["backbones"]["other"] = own["backbones"]["tiny"]
    assert problems(own) == [
        "recipe.batch_size: 100 is more than the 9 images that own trains on. Take 8 or less."
    ]
    own["plan"]["exclude"].append({"backbone": "tiny", "loss": "triplet"})
    own["plan"]["losses"] = ["triplet", "softtriple"]
    own["plan"]["exclude"].append({"backbone": "tiny", "loss": "softtriple"})
    assert len(problems(own)) == 1  # of softtriple on `other`


def test_a_k_that_the_gallery_cannot_miss_is_refused_if_the_study_sets_it(own, write_csv, problems):
    write_csv(*FITTING)
    own["datasets"]["own"]["recall_at"] = [1, 4, 5]
    assert problems(own) == [
        "datasets.own.recall_at: Recall@5 is 100 % for every embedding, since the gallery of own "
        "has 5 images. Leave 5 out, or set recall_at for each data set alone."
    ]
    own["evaluation"] = {"recall_at": [8]}
    (problem,) = problems(own)
    assert problem.startswith("evaluation.recall_at: Recall@8 is 100 %")


def test_a_backbone_that_cannot_be_built_is_refused_under_its_entry(letters, problems):
    letters["backbones"]["tiny"]["head"] = "low_mid_high"
    letters["backbones"]["tiny"]["dim"] = 48
    (problem,) = problems(letters)
    assert problem.startswith("backbones.tiny.head: low_mid_high averages 5x5 windows, ")


def test_pooling_is_refused_where_it_is_set(letters, problems):
    letters["datasets"]["letters"]["recipe"] = {"pooling": "maxx"}
    assert problems(letters) == [
        "datasets.letters.recipe.pooling: 'maxx' does not fit test_resnet: Invalid pool type: maxx."
    ]


def test_chunks_with_batch_norm_that_learns_are_refused_where_they_are_set(letters, problems):
    letters["datasets"]["letters"]["recipe"] = {"chunk": 8}
    (problem,) = problems(letters)
    assert problem == (
        "datasets.letters.recipe.chunk: 8 needs a model that embeds each image by itself, and "
        "conv1.1 (BatchNorm2d) computes with the statistics of its batch. Set freeze_bn: true, or "
        "leave chunk out."
    )
    letters["recipe"]["freeze_bn"] = True
    assert problems(letters) == []


def test_weights_are_compared_with_the_model_before_any_job(letters, tmp_path, problems):
    import timm
    import torch

    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "w.pth")
    letters["backbones"]["tiny"]["pretrained"] = str(tmp_path / "w.pth")
    (problem,) = problems(letters)
    assert problem.startswith(
        f"backbones.tiny.pretrained: no weights of test_resnet from {tmp_path}/w.pth: 90 are missi"
    )
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    assert problems(letters) == []


def test_the_options_of_a_loss_are_checked_with_the_classes_of_the_data_set(letters, problems):
    letters["plan"]["losses"] = ["rll", "hpl"]
    letters["losses"] = {"rll": {"margin": 1.5, "alpha": 1}, "hpl": {"coarse_proxies": 500}}
    assert problems(letters) == [
        "losses.rll: on letters: margin 1.5 is above alpha 1.0.",
        "losses.hpl: on letters: coarse_proxies 500 is more than 134 classes.",
    ]


def test_external_embeddings_that_lack_a_test_image_are_refused(
    own, write_csv, problems, monkeypatch
):
    write_csv(*FITTING)
    own["embeddings"] = {"mine": {"dataset": "own", "file": "mine.npz"}}
    own["plan"]["embeddings"] = ["mine"]
    paths = np.array(["c0.png", "c1.png", "d0.png", "d1.png"])
    np.savez("mine.npz", embeddings=np.eye(4), path=paths)
    monkeypatch.setattr(
        preflight,
        "find_problems",
        lambda name, path, questions, facts: [*map(problem_of, questions)],
    )
    (problem,) = problems(own)
    assert problem.startswith("embeddings.mine.file: mine.npz: 1 of 5 test images")
    assert "d2.png" in problem
    np.savez("mine.npz", embeddings=np.eye(5), path=np.append(paths, "d2.png"))
    assert problems(own) == []


def test_thousands_of_runs_ask_each_question_once(letters, problems, monkeypatch):
    asked = []
    monkeypatch.setattr(
        loss_trial,
        "find_problems",
        lambda name, path, questions, facts: asked.extend(questions) or [""] * len(questions),
    )
    letters["plan"]["seeds"] = [*range(2000)]
    assert problems(letters) == []
    assert len(asked) == 2
