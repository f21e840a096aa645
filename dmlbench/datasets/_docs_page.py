"""The headers of the data sets' files, as docs/datasets.md shows them."""

from __future__ import annotations

import re
from typing import NamedTuple

from dmlbench.datasets import list_datasets, load
from dmlbench.datasets.archives.spec import archive_groups
from dmlbench.utils.declarations import read_docstring

PARTS = ("Access", "Split", "Traps")
WITHOUT_ARCHIVE = ("csv", "folder", "parquet")
"""Types that have their own page."""

PAGE = """\
<!-- Written from the headers of dmlbench/datasets/*.py by: dmlbench list datasets --markdown -->

# Data sets

Each data set is one file, `dmlbench/datasets/<name>.py`. For your own images, see
[Your own data](own_data.md). To write a data set, see [Add a data set](adding_a_dataset.md).

**Which real files were read.** The tests read synthetic archives in the layout of the real ones,
and Omniglot's real archives if they are there. An earlier version was tried on the authors'
annotation files of CUB, Cars196 (in both layouts), SOP, In-Shop, LFW and VehicleID: every count of
the splits was right. The photographs were those of 50 classes of CUB (2,889), half of Cars196
(8,144) and all of LFW; of the other data sets, not all photographs were there. iNaturalist was
never tried. `glyphs` needs no archive.

| name | images | archives | train | test | super-classes | scores |
|---|---|---|---|---|---|---|
{rows}

The columns "train" and "test" give classes / images. Packing a data set asserts these numbers: it
refuses an archive that holds another split, and says what differs. Two data sets declare no
numbers. `glyphs` depends on the fonts. Of `vehicleid` only the numbers of vehicles are confirmed,
and asserted. If lines of the annotations are wrong, or images are missing, the message names the
archive, the member, the line and the class. It comes before any image is decoded, and what was
decoded in an earlier attempt is kept.

## Archives

Archives are searched in `data/archives/`; `DMLBENCH_DATA` names another folder in place of `data/`.
A missing one is downloaded if it can be: `dmlbench data fetch <name>`. If you must get it by hand,
put it there under the name that this page gives, which is not always the name under which it is
published. If no checksum is published, the checksum that is found is recorded. A file with other
bytes and the same images is used if the study gives its checksum. It may be a zip or a tar,
whatever its name ends with, and other folders may be above the original ones:

```yaml
datasets:
  sop:
    checksums: {{Stanford_Online_Products.zip: "md5:0123456789abcdef0123456789abcdef"}}
```

Files that the lists do not name are left out, because the lists of the authors define the data set:
a stray file in a folder of images changes nothing. LFW and Omniglot have no list. There, names that
do not fit the pattern are left out, and any other surplus or missing image is an error.

## Train on one data set, test on another

```yaml
datasets:
  faces: {{type: csv, file: my/faces.csv, test_on: lfw}}
plan:
  datasets: [faces]
```

This trains on the training classes of one data set and tests on the test split of another one.
`test_on` names an entry of the study or a type. Both data sets need the same number of channels.
LFW has only a test split. The face images that HTL's authors trained on are no longer distributed:
you must find others, and leave out the people who are in LFW.

## The taxonomy ladder

How far does a loss fall as the test gets farther from what was trained on? A data set with
super-classes can be dealt out anew. Each entry is a rung:

```yaml
datasets:
  species: {{type: inat2018, holdout: class}}    # other species of the test's genera train
  genus: {{type: inat2018, holdout: level_1}}    # no species of the test's genera trains
  family: {{type: inat2018, holdout: level_2}}   # no species of the test's families trains
plan:
  datasets: [species, genus, family]
```

**All rungs have the same test classes and equally many training classes**, so only the distance
between them changes. The classes of all splits, of the own test too, are dealt out by digests of
their names, when the packed images are read: the rungs share one store. With two levels or more,
of which the nearest two count:

1. The *region* is half of the level_2 groups: half of those with two level_1 groups, one of which
   has two classes, and half of the others. In each of the former, at most half of the level_1
   groups, all with two classes or more, are the *groups of the test*.
2. Every second class of these is a **test class**. As many classes train as lie outside the
   region, n.
3. `level_2` trains on the classes outside the region. `level_1` takes the classes of the region
   without the groups of the test first, and then classes outside it, until it has n. `class` takes
   the other classes of the groups of the test first, and then as `level_1`. If not all classes of
   a kind are needed, the same share of each level_1 group is taken.

So each test class has relatives at exactly the distance that the rung leaves: classes of its own
group on `class`, other groups of its level_2 group on `level_1`. With one level, the groups of the
test are half of the level_1 groups, and there are two rungs. `class_fraction` takes its share of
each level_1 group first, so the rungs stay equal; but a group that keeps one class has no other one
to train on. A level_1 group is known by its name and that of
its level_2 group: two groups of one name are two.

All test images are queries and gallery (protocol `zero_shot`). Equally many classes may have
different numbers of images, and so of steps: the page says so. It is one draw of classes, the same
for all; a rung is no other data set, and where losses are ranked over several, a ladder counts
once. A holdout is refused with `test_on`, for data sets with official queries or pairs (`inshop`,
`lfw`), and where there are too few groups. Scores of a rung cannot be compared with published ones.

`snakemake --configfile config/ladder.yaml` makes the ladder of the letters. The page then has a
section "Taxonomy ladder" and the plot `ladder`.

## Each data set
{sections}
"""


class Header(NamedTuple):
    """The header of a data set's file, part by part."""

    name: str
    title: str
    summary: str
    paper: str
    access: str
    split: str
    traps: str


def header(name: str) -> Header:
    """Read the header of the data set `name`.

    Raises:
        ValueError: the header has another form; the message says which form it should have.
    """
    module = f"dmlbench.datasets.{name}"
    first, *others = (" ".join(part.split()) for part in read_docstring(module).split("\n\n"))
    title, colon, summary = first.partition(": ")
    parts = dict.fromkeys(PARTS, "")
    paper = []
    for text in others:
        part, part_colon, rest = text.partition(": ")
        if part_colon and part in PARTS:
            parts[part] = rest
        else:
            paper.append(text)
    if not (colon and paper and parts["Access"] and parts["Split"]):
        raise ValueError(
            f"{module}: a header is 'Name: what.', the paper, and paragraphs 'Access: ...', "
            "'Split: ...' and, if there are any, 'Traps: ...'"
        )
    return Header(name, title, summary.removesuffix("."), " ".join(paper), *parts.values())


def lines() -> list[str]:
    """A line for each data set: its name, what it is, its splits, and where archives come from."""
    names = list_datasets()
    width = max(map(len, names))
    return [f"{name:{width}}  {_line(name)}" for name in names]


def _line(name: str) -> str:
    if name in WITHOUT_ARCHIVE:
        return "your own images; see docs/own_data.md"
    dataset, facts = header(name), load(name).FACTS
    splits = "; ".join(
        f"{split} {classes:,} classes, {images:,} images"
        for split, (classes, images) in facts.get("splits", {}).items()
    )
    access = {"by hand": "get the archives by hand", "downloaded": "downloaded", "none": ""}
    parts = [f"{dataset.title}: {dataset.summary}", splits, access[_access(name)]]
    return "; ".join(filter(None, parts))


def markdown() -> str:
    """The page docs/datasets.md."""
    names = [name for name in list_datasets() if name not in WITHOUT_ARCHIVE]
    return PAGE.format(
        rows="\n".join(_row(header(name)) for name in names),
        sections="\n".join(_section(header(name)) for name in names),
    )


def _row(dataset: Header) -> str:
    facts = load(dataset.name).FACTS
    splits = facts.get("splits", {})
    counts = [" / ".join(f"{n:,}" for n in splits.get(split, [])) for split in ("train", "test")]
    if "pairs" in facts:
        scores = "verification of pairs"
    else:
        scores = f"Recall@{', '.join(map(str, facts['recall_at']))}"
    cells = [
        f"[`{dataset.name}`](#{dataset.name})",
        f"{dataset.title}: {dataset.summary}",
        _access(dataset.name),
        *(count or "–" for count in counts),
        ", ".join(facts["levels"]) or "–",
        scores,
    ]
    return f"| {' | '.join(cells)} |"


def _access(name: str) -> str:
    """How the archives of a data set are had: by hand, downloaded, or there are none."""
    groups = archive_groups(load(name).SOURCES)
    if not groups:
        return "none"
    by_hand = all(any(not archive.urls for archive in group.values()) for group in groups)
    return "by hand" if by_hand else "downloaded"


def _section(dataset: Header) -> str:
    texts = {"Access": dataset.access, "Split": dataset.split, "Traps": dataset.traps}
    title = f"{dataset.title}: {dataset.summary}. {_linked(dataset.paper)}"
    lines = [f"\n### {dataset.name}\n", f"{title}\n"]
    lines += [f"- {part}: {_linked(text)}" for part, text in texts.items() if text]
    lines += [
        f"- `{file}`: {archive.checksum or 'no published checksum'}"
        + ("" if archive.urls else ", by hand")
        for group in archive_groups(load(dataset.name).SOURCES)
        for file, archive in group.items()
    ]
    return "\n".join(lines)


def _linked(text: str) -> str:
    return re.sub(r"https?://\S*[\w/]", lambda url: f"<{url[0]}>", text)
