"""What the headers of the data sets say, as the page of the docs shows it."""

from __future__ import annotations

import re
from typing import NamedTuple

from dmlbench import source
from dmlbench.datasets import archive_groups, list_datasets, load

PARTS = ("Access", "Split", "Traps")
WITHOUT_ARCHIVE = ("csv",)
"""Types that have a page of their own."""

PAGE = """\
<!-- Written from dmlbench/datasets/*.py: dmlbench list datasets --markdown > docs/datasets.md -->

# Data sets

One file a data set, `dmlbench/datasets/<name>.py`. Your own images are `type: csv`, see
[own_data.md](own_data.md).

| name | images | archives | train | test | super-classes | scores |
|---|---|---|---|---|---|---|
{rows}

Train and test are classes / images. These numbers are asserted when a data set is packed: an
archive that holds another split is refused, with what differs. None are declared of `glyphs`, which
depend on the fonts, and of `vehicleid`, of which the numbers of vehicles alone are confirmed (and
asserted). Wrong or missing lines of annotations are named by archive, member and line.

## Archives

Archives are looked for in `data/archives/` (`DMLBENCH_DATA` names another place for `data/`), and
downloaded where they can be: `dmlbench data fetch <name>`. One that is had by hand is put there
under the name that stands below, which is not always the one under which it is published. Where no
checksum is published, the one that is found is recorded. A file of other bytes with the same images
is used if the study gives its checksum: `datasets: {{sop: {{checksums: {{<file>: "md5:..."}}}}}}`.

## Tested elsewhere

```yaml
datasets:
  faces: {{type: csv, file: my/faces.csv, test_on: lfw}}
plan: {{datasets: [faces], ...}}
```

trains on the training classes of one data set and tests on the test split of another one (an entry
of the study, or a type), which needs as many channels. LFW has a test split alone. The face images
that HTL's authors trained on are no longer distributed; others must be found, and people who are in
LFW left out of them.

## Each data set
{sections}
"""


class Header(NamedTuple):
    """What the file of a data set says of itself."""

    name: str
    title: str
    what: str
    paper: str
    access: str
    split: str
    traps: str


def header(name: str) -> Header:
    """The header of the data set `name`.

    Raises:
        ValueError: it has another form; the message says which it should have.
    """
    module = f"dmlbench.datasets.{name}"
    first, *others = (" ".join(part.split()) for part in source.docstring(module).split("\n\n"))
    title, colon, what = first.partition(": ")
    parts = dict.fromkeys(PARTS, "")
    paper = []
    for text in others:
        part, found, rest = text.partition(": ")
        if found and part in PARTS:
            parts[part] = rest
        else:
            paper.append(text)
    if not (colon and paper and parts["Access"] and parts["Split"]):
        raise ValueError(
            f"{module}: a header is 'Name: what.', the paper, and paragraphs 'Access: ...', "
            "'Split: ...' and, where there are some, 'Traps: ...'"
        )
    return Header(name, title, what.removesuffix("."), " ".join(paper), *parts.values())


def markdown() -> str:
    """The page docs/datasets.md."""
    names = [name for name in list_datasets() if name not in WITHOUT_ARCHIVE]
    return PAGE.format(
        rows="\n".join(_row(header(name)) for name in names),
        sections="\n".join(_section(header(name)) for name in names),
    )


def _row(of: Header) -> str:
    dataset = load(of.name)
    facts = dataset.FACTS
    splits = facts.get("splits", {})
    counts = [" / ".join(f"{n:,}" for n in splits.get(split, [])) for split in ("train", "test")]
    groups = archive_groups(dataset.SOURCES)
    by_hand = all(any(not archive.urls for archive in group.values()) for group in groups)
    access = ("by hand" if by_hand else "downloaded") if groups else "none"
    verified = ["verification of pairs"] if "pairs" in facts else []
    searched = [f"Recall@{', '.join(map(str, facts['recall_at']))}"] if not verified else []
    cells = [
        f"[`{of.name}`](#{of.name})",
        f"{of.title}: {of.what}",
        access,
        *(count or "–" for count in counts),
        ", ".join(facts["levels"]) or "–",
        *searched,
        *verified,
    ]
    return f"| {' | '.join(cells)} |"


def _section(of: Header) -> str:
    texts = {"Access": of.access, "Split": of.split, "Traps": of.traps}
    lines = [f"\n### {of.name}\n", f"{of.title}: {of.what}. {_linked(of.paper)}\n"]
    lines += [f"- {part}: {_linked(text)}" for part, text in texts.items() if text]
    lines += [
        f"- `{file}`: {archive.checksum or 'no published checksum'}"
        + ("" if archive.urls else ", by hand")
        for group in archive_groups(load(of.name).SOURCES)
        for file, archive in group.items()
    ]
    return "\n".join(lines)


def _linked(text: str) -> str:
    return re.sub(r"https?://\S*[\w/]", lambda url: f"<{url[0]}>", text)
