"""Official data sets whose images come from a mirror in Parquet files.

An image is matched by the name of its file to its row in the official data set: its path there, its
class and its split. The mirror's own split belongs to a classification task and does not matter.
Counts of classes and images must be the official ones, so a mirror with other images is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dmlbench.datasets import Row, load
from dmlbench.datasets.annotations import check_counts, check_splits
from dmlbench.datasets.own_images import part_of
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import listed

Match = Callable[[Row], Row | None]
"""From an image of the mirror to its official row; None if it has none. A row of the mirror has the
path in the mirror, the label as its class, and the name of its part in place of the split."""

BIRDS = """
Black_footed_Albatross Laysan_Albatross Sooty_Albatross Groove_billed_Ani Crested_Auklet
Least_Auklet Parakeet_Auklet Rhinoceros_Auklet Brewer_Blackbird Red_winged_Blackbird
Rusty_Blackbird Yellow_headed_Blackbird Bobolink Indigo_Bunting Lazuli_Bunting Painted_Bunting
Cardinal Spotted_Catbird Gray_Catbird Yellow_breasted_Chat Eastern_Towhee Chuck_will_Widow
Brandt_Cormorant Red_faced_Cormorant Pelagic_Cormorant Bronzed_Cowbird Shiny_Cowbird
Brown_Creeper American_Crow Fish_Crow Black_billed_Cuckoo Mangrove_Cuckoo Yellow_billed_Cuckoo
Gray_crowned_Rosy_Finch Purple_Finch Northern_Flicker Acadian_Flycatcher
Great_Crested_Flycatcher Least_Flycatcher Olive_sided_Flycatcher Scissor_tailed_Flycatcher
Vermilion_Flycatcher Yellow_bellied_Flycatcher Frigatebird Northern_Fulmar Gadwall
American_Goldfinch European_Goldfinch Boat_tailed_Grackle Eared_Grebe Horned_Grebe
Pied_billed_Grebe Western_Grebe Blue_Grosbeak Evening_Grosbeak Pine_Grosbeak
Rose_breasted_Grosbeak Pigeon_Guillemot California_Gull Glaucous_winged_Gull Heermann_Gull
Herring_Gull Ivory_Gull Ring_billed_Gull Slaty_backed_Gull Western_Gull Anna_Hummingbird
Ruby_throated_Hummingbird Rufous_Hummingbird Green_Violetear Long_tailed_Jaeger Pomarine_Jaeger
Blue_Jay Florida_Jay Green_Jay Dark_eyed_Junco Tropical_Kingbird Gray_Kingbird Belted_Kingfisher
Green_Kingfisher Pied_Kingfisher Ringed_Kingfisher White_breasted_Kingfisher
Red_legged_Kittiwake Horned_Lark Pacific_Loon Mallard Western_Meadowlark Hooded_Merganser
Red_breasted_Merganser Mockingbird Nighthawk Clark_Nutcracker White_breasted_Nuthatch
Baltimore_Oriole Hooded_Oriole Orchard_Oriole Scott_Oriole Ovenbird Brown_Pelican White_Pelican
Western_Wood_Pewee Sayornis American_Pipit Whip_poor_Will Horned_Puffin Common_Raven
White_necked_Raven American_Redstart Geococcyx Loggerhead_Shrike Great_Grey_Shrike Baird_Sparrow
Black_throated_Sparrow Brewer_Sparrow Chipping_Sparrow Clay_colored_Sparrow House_Sparrow
Field_Sparrow Fox_Sparrow Grasshopper_Sparrow Harris_Sparrow Henslow_Sparrow Le_Conte_Sparrow
Lincoln_Sparrow Nelson_Sharp_tailed_Sparrow Savannah_Sparrow Seaside_Sparrow Song_Sparrow
Tree_Sparrow Vesper_Sparrow White_crowned_Sparrow White_throated_Sparrow Cape_Glossy_Starling
Bank_Swallow Barn_Swallow Cliff_Swallow Tree_Swallow Scarlet_Tanager Summer_Tanager Artic_Tern
Black_Tern Caspian_Tern Common_Tern Elegant_Tern Forsters_Tern Least_Tern Green_tailed_Towhee
Brown_Thrasher Sage_Thrasher Black_capped_Vireo Blue_headed_Vireo Philadelphia_Vireo
Red_eyed_Vireo Warbling_Vireo White_eyed_Vireo Yellow_throated_Vireo Bay_breasted_Warbler
Black_and_white_Warbler Black_throated_Blue_Warbler Blue_winged_Warbler Canada_Warbler
Cape_May_Warbler Cerulean_Warbler Chestnut_sided_Warbler Golden_winged_Warbler Hooded_Warbler
Kentucky_Warbler Magnolia_Warbler Mourning_Warbler Myrtle_Warbler Nashville_Warbler
Orange_crowned_Warbler Palm_Warbler Pine_Warbler Prairie_Warbler Prothonotary_Warbler
Swainson_Warbler Tennessee_Warbler Wilson_Warbler Worm_eating_Warbler Yellow_Warbler
Northern_Waterthrush Louisiana_Waterthrush Bohemian_Waxwing Cedar_Waxwing
American_Three_toed_Woodpecker Pileated_Woodpecker Red_bellied_Woodpecker
Red_cockaded_Woodpecker Red_headed_Woodpecker Downy_Woodpecker Bewick_Wren Cactus_Wren
Carolina_Wren House_Wren Marsh_Wren Rock_Wren Winter_Wren Common_Yellowthroat
"""
"""The species of CUB-200-2011 as its folders spell them, in the order of their numbers."""
TRAIN_MAKES = {
    *("AM", "Acura", "Aston", "Audi", "BMW", "Bentley", "Bugatti", "Buick", "Cadillac"),
    *("Chevrolet", "Chrysler", "Daewoo", "Dodge", "Eagle"),
}
"""The first words of the first 98 models of Cars196. None of the others begins so."""
SOP_TRAIN_PRODUCTS = 11318
"""The products up to this number are those of Ebay_train.txt, the others those of Ebay_test.txt."""
PARTITION = "inshop_list_eval_partition.txt"


def official_rows(name: str, rows: Sequence[Row], archives: Path, where: str) -> list[Row]:
    """The official rows of the images of a mirror, with the origins of the mirror.

    Args:
        name: one of MIRRORED.
        rows: of the mirror, see `Match`.
        archives: folder of the archives; In-Shop's list of images must be there.
        where: the mirror, for messages.

    Raises:
        DatasetError: images are not of the official data set, are there twice, or are missing.
    """
    match = MIRRORED[name](rows, archives)
    facts = load(name).FACTS
    official: dict[str, Row] = {}
    problems = []
    for row in rows:
        matched = match(row)
        if matched is None:
            problems.append(
                f"{row.origin}: {row.path or 'an image without a path'}, {row.class_name}"
            )
        elif matched.path in official:
            problems.append(f"{row.origin}: {row.path} is {official[matched.path].origin} again")
        else:
            official[matched.path] = matched._replace(origin=row.origin)
    if problems:
        title = f"{where}: {len(problems):,} of {len(rows):,} images are not matched to {name}"
        raise DatasetError(listed(title, problems))
    check_splits(name, official.values(), facts["splits"], where)
    roles = Counter(row.role for row in official.values())
    counts = {role: (roles[role], count) for role, count in facts.get("roles", {}).items()}
    if "super_classes" in facts:
        kinds = len({row.levels for row in official.values()})
        counts["super-classes"] = kinds, facts["super_classes"]
    check_counts(name, counts, where)
    return sorted(official.values())


def _cub200(rows: Sequence[Row], archives: Path) -> Match:
    """By the species in the name of the file, as Black_Footed_Albatross_0046_18.jpg."""
    species = BIRDS.split()
    numbers = {name.casefold(): number for number, name in enumerate(species, start=1)}

    def match(row: Row) -> Row | None:
        stem = PurePosixPath(row.path).stem
        parts = re.fullmatch(r"(?P<species>.+?)_\d+_\d+", stem)
        number = numbers.get(parts["species"].casefold()) if parts else None
        if number is None:
            return None
        name = f"{number:03}.{species[number - 1]}"
        return Row(f"{name}/{stem}.jpg", name, (), "train" if number <= 100 else "test")

    return match


def _cars196(rows: Sequence[Row], archives: Path) -> Match:
    """By the number in the name of the file: 00001.jpg of train or test, or 000001.jpg of all."""

    def match(row: Row) -> Row | None:
        stem, part = PurePosixPath(row.path).stem, part_of(row.split)
        name = row.class_name.replace("Ram C-V", "Ram C/V")  # a folder cannot have the slash
        if name.isdecimal():
            return None
        if re.fullmatch(r"\d{6}", stem):
            path = f"car_ims/{stem}.jpg"
        elif re.fullmatch(r"\d{5}", stem) and part:
            folder = name.replace("/", "-")
            path = f"car_data/car_data/{'train' if part == 'train' else 'test'}/{folder}/{stem}.jpg"
        else:
            return None
        return Row(path, name, (), "train" if name.split(" ")[0] in TRAIN_MAKES else "test")

    return match


def _sop(rows: Sequence[Row], archives: Path) -> Match:
    """By the number of the product, which is the label, and the kind in the path or in `levels`."""
    numbers = [int(row.class_name) for row in rows if row.class_name.isdecimal()]
    shift = 1 - min(numbers, default=1)  # some mirrors count from 0

    def match(row: Row) -> Row | None:
        path = PurePosixPath(row.path)
        kind = (row.levels[0] if row.levels else path.parent.name).removesuffix("_final")
        if not (row.class_name.isdecimal() and kind and re.fullmatch(r"\d+_\d+", path.stem)):
            return None
        number = int(row.class_name) + shift
        split = "train" if number <= SOP_TRAIN_PRODUCTS else "test"
        return Row(f"{kind}_final/{path.stem}.JPG", f"{number:05}", (kind,), split)

    return match


def _inshop(rows: Sequence[Row], archives: Path) -> Match:
    """By the end of the path, as in the authors' list: WOMEN/Dresses/id_00000002/02_1_front.jpg.

    Mirrors write a "-" in place of the "/", leave out folders, or have the item as the label.
    """
    from dmlbench.datasets.archives.fetching import fetch
    from dmlbench.datasets.inshop import SOURCES, read_partition

    partition = fetch({PARTITION: SOURCES[PARTITION]}, archives, {})[PARTITION]
    by_end: Mapping[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in read_partition(partition):
        names = _names(row.path)
        for start in range(len(names) - 1):
            by_end[names[start:]].append(row)

    def match(row: Row) -> Row | None:
        names = _names(row.path)
        if len(names) == 1:
            names = (row.class_name, *names)
        found = by_end.get(names[-4:], [])
        return found[0] if len(found) == 1 else None

    return match


def _names(path: str) -> tuple[str, ...]:
    """The folders of a path and its name without suffix; "img" and "train" are no folders here."""
    names = re.split(r"[/-]", str(PurePosixPath(path).with_suffix("")))
    return tuple(names[names.index("img") + 1 :] if "img" in names else names)


MIRRORED: Mapping[str, Callable[[Sequence[Row], Path], Match]] = {
    "cub200": _cub200,
    "cars196": _cars196,
    "sop": _sop,
    "inshop": _inshop,
}
"""The data sets whose images may come from a mirror."""
