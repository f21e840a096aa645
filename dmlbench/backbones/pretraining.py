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
FROM_THE_WEB = {
    "openai": "400 million pictures with texts, OpenAI",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laiona": "LAION-A",
    "webli": "WebLI",
    "metaclip": "MetaCLIP's pictures with texts",
    "metaclip2": "MetaCLIP 2's pictures with texts",
    "dfn2b": "DFN-2B",
    "dfndr2b": "DFN-DR-2B",
    "dfn5b": "DFN-5B",
    "datacompxl": "DataComp-XL",
    "datacomp1b": "DataComp-1B",
    "merged2b": "Merged-2B",
    "m30m": "Merged-30M",
    "m38m": "Merged-38M",
    "cc12m": "CC12M",
    "yfcc15m": "YFCC15M",
    "yfcc100m": "YFCC100M",
    "ig1b": "Instagram-1B",
    "swag": "Instagram-3.6B",
    "seer": "Instagram-1B",
    "jft": "JFT-300M",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "sa1b": "SA-1B",
}
"""The part of a tag of timm's weights -> data of the web, whose classes nobody can list."""
WEB = "from the web: nobody knows which test classes it held"
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


def describe_pretraining(weights: str) -> list[str]:
    """The data that weights of timm have been trained on, by the tag in their name, in its order.

    Args:
        weights: their name with its tag.

    Returns:
        The data sets in words; none if the tag names none that is known here.

    >>> describe_pretraining("vit_base_patch16_clip_224.laion2b_ft_in1k")
    ['LAION-2B (from the web: nobody knows which test classes it held)', 'ImageNet-1k']
    >>> describe_pretraining("resnet50.a1_in1k"), describe_pretraining("resnet50")
    (['ImageNet-1k'], [])
    """
    found = []
    for part in dict.fromkeys(weights.partition(".")[2].split("_")):
        if part in FROM_THE_WEB:
            found.append(f"{FROM_THE_WEB[part]} ({WEB})")
        elif part in SUBSETS:
            found.append(f"ImageNet-{part.removeprefix('in')}")
        elif part == "inw21k":  # its classes are in no list of timm
            found.append("ImageNet-W21 (Winter 2021)")
    return found


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
