"""Backbones as they are stand beside each other, with what is known of their pretraining."""

import pytest


@pytest.fixture
def add(results):
    """A function that adds the frozen features of a backbone with a score."""

    def run(backbone, score, pretrained=False, dim=64, **where):
        model = {"type": f"{backbone}_type", "image_size": 224, "pretrained": pretrained}
        scores = {"map@r": score, "recall@1": score + 0.1, "recall@10": 1.0}
        planned = results.add(
            "control_frozen",
            metrics=scores,
            backbone=backbone,
            settings={"backbone": model},
            **where,
        )
        shape = {"dim": dim, "effective_rank": 9.0, "spread": 0.9}
        if where.get("status") != "error":
            results.edit(f"{planned['path']}/metrics.json", embedding_shape=shape)

    return run


def test_the_best_backbone_is_first_with_its_size_and_its_pretraining(add, sections):
    add("small", 0.2, dim=1280)
    add("clip", 0.5, "timm:vit_base_patch16_clip_224.laion2b_ft_in1k", dim=768)
    add("mine", 0.3, "sha256:0000")
    (section,) = sections("Backbones as they are")
    assert section.title == "Backbones as they are: letters · zero_shot"
    assert section.columns[:4] == ["MAP@R", "Recall@1", "features", "pixels"]
    texts = {row.name: [cell.text for cell in row.cells] for row in section.rows}
    assert [*texts] == ["clip", "mine", "small"]
    assert texts["clip"][:5] == ["50.00", "60.00", "768", "224", "clip_type"]
    assert texts["clip"][5].startswith("vit_base_patch16_clip_224.laion2b_ft_in1k: LAION-2B (from")
    assert texts["clip"][5].endswith(", then ImageNet-1k")
    assert texts["mine"][5] == "a file of the user: not known"
    assert texts["small"][2::3] == ["1,280", "none: random weights"]


def test_one_backbone_is_only_a_control_and_data_sets_have_their_own_sections(add, sections):
    add("small", 0.2)
    add("big", 0.3, status="error")
    assert not sections("Backbones")
    add("other", 0.4)
    add("small", 0.6, dataset="birds")
    add("other", 0.5, dataset="birds")
    of_letters, of_birds = sections("Backbones")
    assert [row.name for row in of_letters.rows] == ["other", "small"]
    assert [row.name for row in of_birds.rows] == ["small", "other"]


def test_a_page_names_the_backbones_of_which_only_a_head_was_trained(results, page):
    results.add("htl", settings={"backbone": {"type": "resnet50"}}, backbone="trained")
    assert "Head only" not in page().head
    results.add("htl", settings={"backbone": {"trunk": "frozen"}}, backbone="vit")
    assert page().head["Head only"].startswith("vit: the backbone is frozen")
