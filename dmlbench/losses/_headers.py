"""What the headers of the losses say, as the list and the table of the docs show it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dmlbench import source
from dmlbench.losses import list_losses

CITATION = re.compile(
    r"(?P<authors>[^;]+); (?P<venue>[^;]+?)(; arXiv (?P<arxiv>\d{4}\.\d{5}))?\. (?P<idea>.+)"
)
WRAPPED = re.compile(r"pytorch_metric_learning\.losses\.(\w+)")

PAGE = """\
<!-- Written from the headers of dmlbench/losses/*.py: dmlbench list losses --markdown -->

# Losses

One file a loss, `dmlbench/losses/<name>.py`; its header says where the defaults come from, its
class which options there are. "Native" losses are written here; the others wrap those of
[pytorch-metric-learning](https://kevinmusgrave.github.io/pytorch-metric-learning/) (PML).

| name | paper | venue | code | what differs from the original |
|---|---|---|---|---|
{rows}

## Any other loss

A study also names losses that have no file here:

```yaml
losses:
  fast_ap: {{type: pml.FastAPLoss, num_bins: 20}}
  mine: {{type: my_package.my_module.MyLoss, sharpness: 2.0}}
```

`pml.Name` is any loss of the installed pytorch-metric-learning that learns from labels, by the
options of its own constructor. The number of classes and the embedding's dimension are filled in
where it needs them; `lr_factor` (1.0) multiplies the learning rate of its own parameters. Its name
and all its options, defaults included, are in the key of a run; the library's version is not: it is
recorded with the result, as are those of all libraries.

An import path leads to a class of one's own, a subclass of `dmlbench.losses.base.Loss` in a file
where `dmlbench` is called, or in an installed package. Its options are keyword-only arguments with
annotations (`float`, `int`, `bool`, `str`, `Literal`). The code of its file is in the key, with all
that it imports from its own package, from that folder and from dmlbench: a change there retrains
its runs alone.

## Check it

```
dmlbench check my_loss.py              # a file with a loss in it
dmlbench check my_package.my_module.MyLoss --option sharpness=2.0
```

runs what every loss of the table above passes, in seconds: gradients by finite differences, batches
without positives or negatives, images that are there twice, zero vectors, bfloat16 and autocast,
divergence, order of the batch and of the classes, parameters and their groups, a resumed training,
waiting for the host, and whether it learns. A check that fails says what was done and seen, why it
matters in a training, and what usually causes it:

```
ok        divergence     embeddings that are NaN or infinite give no finite value
FAILED    no_positives   a batch without two images of a class
          Did: At any epoch, it was given 7 embeddings of 7 classes, one each, float32.
          Saw: The value is nan.
          Why: Random batches of many classes often hold no pair; one such batch is one step of NaN,
               and the training is over.
          Fix: A mean over no pairs is 0 / 0, the maximum of an empty row raises or is -inf. Divide
               by count.clamp(min=1), mask with torch.where or masked_fill, and give such a part 0.
```

It ends with 1 if a check failed. Outside of `dmlbench/losses/`, a header of another form, waiting
for the host and breaks of the compiled graph are warnings. What a loss does on purpose, as a
gradient that stops at one side of a pair, its class declares, and the check then shows:

```python
class MyLoss(Loss):
    BY_DESIGN: ClassVar = {{"gradient": "only the query learns from a pair"}}
```

So may `order`, `numbering`, `length` and `refresh` be declared. A declared gradient is still
checked: by differences that hold fixed what the loss detaches.
"""


@dataclass(frozen=True)
class Header:
    name: str
    title: str
    authors: str
    venue: str
    arxiv: str | None
    wraps: str | None
    """A class of pytorch-metric-learning; None: native."""
    differs: str


def header(name: str) -> Header:
    """What the file of the loss `name` says of itself.

    Raises:
        ValueError: its header has another form; the message says which it should have.
    """
    module = f"dmlbench.losses.{name}"
    return parse(name, module, source.docstring(module), source.imports(module))


def parse(name: str, module: str, text: str, imports: Iterable[str] = ()) -> Header:
    """The header `text` of a `module`, which imports `imports`; as of `header`."""
    title, *others = (" ".join(part.split()) for part in text.split("\n\n"))
    cited = CITATION.match(others[0]) if others else None
    if cited is None or not others[-1].startswith("Differs: "):
        raise ValueError(
            f"{module}: a header is a title, 'Authors; Venue; arXiv number. What it does.', and "
            "last a paragraph 'Differs: ...'"
        )
    wrapped = [found[1] for item in imports if (found := WRAPPED.fullmatch(item))]
    differs = others[-1].removeprefix("Differs: ")
    return Header(
        name=name,
        title=title.removesuffix("."),
        authors=cited["authors"],
        venue=cited["venue"],
        arxiv=cited["arxiv"],
        wraps=wrapped[0] if wrapped else None,
        differs=differs[0].upper() + differs[1:],
    )


def lines() -> list[str]:
    """Name and title of each loss."""
    width = max(map(len, list_losses()))
    return [f"{name:{width}}  {header(name).title}" for name in list_losses()]


def markdown() -> str:
    """The page docs/losses.md."""
    return PAGE.format(rows="\n".join(_row(header(name)) for name in list_losses()))


def _row(of: Header) -> str:
    paper = f"[{of.title}](https://arxiv.org/abs/{of.arxiv})" if of.arxiv else of.title
    code = f"PML's {of.wraps}" if of.wraps else "native"
    cells = [f"`{of.name}`", f"{paper} ({of.authors})", of.venue, code, of.differs]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
