"""The classes that a backbone has been pretrained on, and which classes of a data set they are.

Classes are compared by their WordNet ids and by their names. timm knows the ids of the classes of
ImageNet, and the lemmas of each: all its English names, and for living things the Latin one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dmlbench.backbones.catalogue import imagenet_classes

SUBSETS = {
    "in1k": "imagenet1k",
    "in12k": "imagenet12k",
    "in21k": "imagenet21k",
    "in22k": "imagenet22k",
}
"""The part of a tag of timm's weights -> the classes that they have been trained on."""
_TAG = re.compile(r"(?<![a-z0-9])in(1|12|21|22)k(?![a-z0-9])")
_WORDNET_ID = re.compile(r"(?<![a-z0-9])n\d{8}(?![0-9])")
_NUMBER = re.compile(r"^\d+(?=[\s._-])")
_LAST_WORDS = re.compile(r"[^/]*$")
_NO_LETTERS = re.compile(r"[^\w]+|_")


def pretraining_subsets(weights: str) -> list[str]:
    """The sets of classes that weights of timm have been trained on, by the tag in their name.

    Args:
        weights: their name with its tag.

    Returns:
        Names for `imagenet_classes`; none if the tag names no set that timm has the classes of.

    >>> pretraining_subsets("mobilenetv2_100.ra_in1k")
    ['imagenet1k']
    >>> pretraining_subsets("vit_small_patch16_224.augreg_in21k_ft_in1k")
    ['imagenet21k', 'imagenet1k']
    >>> pretraining_subsets("vit_small_patch14_dinov2.lvd142m")
    []
    """
    tag = weights.partition(".")[2].replace("_", " ")
    return [SUBSETS[f"in{size}k"] for size in dict.fromkeys(_TAG.findall(tag))]


def normalise(name: str) -> str:
    """A class name as it is compared: no number before it, only the last part of a path, lower
    case, and spaces for all that is no letter or digit.

    >>> normalise("001.Black_footed_Albatross"), normalise("Animalia/Chordata/Tinca tinca")
    ('black footed albatross', 'tinca tinca')
    """
    last = _NUMBER.sub("", _LAST_WORDS.findall(name.strip("/"))[0])
    return " ".join(_NO_LETTERS.sub(" ", last).casefold().split())


def find_pretrained(class_names: Iterable[str], subsets: Iterable[str]) -> dict[str, str]:
    """The classes that are also classes of a pretraining.

    Args:
        class_names: of a data set.
        subsets: names for `imagenet_classes`.

    Returns:
        Class name -> the WordNet id and the lemmas of the class of the pretraining.
    """
    by_id: dict[str, str] = {}
    for subset in subsets:
        by_id |= imagenet_classes(subset)
    by_name = _by_name(by_id)
    matches = {}
    for name in class_names:
        id = next((id for id in _WORDNET_ID.findall(name) if id in by_id), None)
        id = id or by_name.get(normalise(name))
        if id:
            matches[name] = f"{id} {by_id[id]}"
    return matches


def _by_name(by_id: Mapping[str, str]) -> dict[str, str]:
    """Normalised lemma -> WordNet id. If two classes share a lemma, the first one has it."""
    names: dict[str, str] = {}
    for id, lemmas in by_id.items():
        for lemma in lemmas.split(","):
            names.setdefault(normalise(lemma), id)
    return names
