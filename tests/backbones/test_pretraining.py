import pytest

from dmlbench.backbones import pretraining
from dmlbench.backbones.catalogue import imagenet_classes
from dmlbench.backbones.pretraining import find_pretrained, normalise, pretraining_subsets

CLASSES = {
    "n01440764": "tench, Tinca tinca",
    "n07749582": "lemon",
    "n02058747": "black-footed albatross, gooney, Diomedea nigripes",
    "n07742313": "Granny Smith",
    "n04965179": "orange, orangeness",
    "n07747607": "orange",
}


@pytest.fixture(autouse=True)
def few_classes(monkeypatch):
    monkeypatch.setattr(pretraining, "imagenet_classes", lambda subset: CLASSES)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("001.Black_footed_Albatross", "n02058747"),
        ("Animalia/Chordata/Actinopterygii/Tinca tinca", "n01440764"),
        ("Granny-Smith", "n07742313"),
        ("LEMON", "n07749582"),
        ("n01440764", "n01440764"),
        ("n01440764_something", "n01440764"),
        ("orange", "n04965179"),
    ],
)
def test_a_class_is_found_by_its_name_or_its_wordnet_id(name, id):
    assert find_pretrained([name], ["imagenet1k"]) == {name: f"{id} {CLASSES[id]}"}


@pytest.mark.parametrize("name", ["lemonade", "n99999999", "Audi A5 2012", "", "/", "<b>", "12"])
def test_other_names_are_no_class(name):
    assert find_pretrained([name], ["imagenet1k"]) == {}


def test_no_set_of_classes_gives_no_match():
    assert find_pretrained(["lemon"], []) == {}


@pytest.mark.parametrize(
    ("weights", "subsets"),
    [
        ("resnet50.a1_in1k", ["imagenet1k"]),
        ("bn_inception.caffe_in1k", ["imagenet1k"]),
        ("convnext_base.fb_in22k_ft_in1k_384", ["imagenet22k", "imagenet1k"]),
        ("vit_base.sw_in12k", ["imagenet12k"]),
        ("vit_small_patch14_dinov2.lvd142m", []),
        ("begin1k.openai", []),
    ],
)
def test_the_tag_of_the_weights_names_the_classes(weights, subsets):
    assert pretraining_subsets(weights) == subsets


@pytest.mark.parametrize("name", ["", "///", "1.", "___", "007"])
def test_any_name_can_be_normalised(name):
    assert normalise(name) == normalise(normalise(name))


def test_timm_knows_the_classes():
    classes = imagenet_classes("imagenet1k")
    assert len(classes) == 1000
    assert classes["n07749582"] == "lemon"
