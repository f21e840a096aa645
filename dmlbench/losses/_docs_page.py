"""The headers of the losses' files, as `dmlbench list losses` and docs/losses.md show them."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dmlbench.losses import list_losses
from dmlbench.losses._bounds import option_bounds
from dmlbench.utils.declarations import read_declarations, read_docstring
from dmlbench.utils.modules import imported_modules

CITATION = re.compile(
    r"(?P<authors>[^;]+); (?P<venue>[^;]+?)(; arXiv (?P<arxiv>\d{4}\.\d{5}))?\. (?P<idea>.+)"
)
WRAPPED = re.compile(r"pytorch_metric_learning\.losses\.(\w+)")
TYPES = {int: "whole number", float: "number", str: "text"}

PAGE = """\
<!-- Written from the headers of dmlbench/losses/*.py by: dmlbench list losses --markdown -->

# Losses

Each loss is one file, `dmlbench/losses/<name>.py`. Its header says where the defaults come from;
its class explains the options. "Native" losses are written in this project. The others wrap a class
of [pytorch-metric-learning](https://kevinmusgrave.github.io/pytorch-metric-learning/) (PML).
To write a loss, see [Add a loss](adding_a_loss.md).

The project is built around four of them:

- **HTL**, and **SoftTriple**.
- **HPL**: on Proxy Anchor, ProxyNCA++, normalised softmax or SoftTriple (`base`), at two levels or
  more, with groups from k-means or from the data set's super-classes. Its details beyond the
  abstract of the paper are our reading.
- **RLL** in the forms of its papers (CVPR, TPAMI and RLL-Simpler), with what the authors' code does
  as options, and with `blocks: 3` for RLL-(L,M,H).

Proxy Anchor, ProxyNCA++, ProxyGML, normalised softmax, Group Loss, Hyp, the recall@k surrogate,
smooth AP and the lifted structure loss are native too. The others are what these are compared with.

`hyp` ranks by the hyperbolic distance of its embeddings, and all others by their cosine: see
[Metrics](metrics.md#hyperbolic-distance).

| name | paper | venue | code | what differs from the original |
|---|---|---|---|---|
{rows}

## A memory of earlier batches

`contrastive`, `multi_similarity`, `triplet` and `rll` compare the images of a batch. `memory: 8192`
lets them also compare these with the embeddings of the last 8,192 images: the [cross-batch
memory](https://arxiv.org/abs/1912.06798) of Wang et al. (CVPR 2020). The loss of the batch against
the memory is added to the loss of the batch. Embeddings drift fast at first, so the memory is used
after `memory_start` batches: a shorter training never uses it. It is a part of the loss's state,
which an interrupted training gets back. `history.parquet` records how many embeddings it holds. It
takes little memory beside the activations of a batch, except for `triplet`.

## Options

Options stand in the loss's entry of a study, beside `type`:

```yaml
losses:
  softtriple_k1: {{type: softtriple, centers_per_class: 1}}
```

| loss | option | allowed | default |
|---|---|---|---|
{options}

{divisors}

## Any other loss

A study can also name losses that have no file here:

```yaml
losses:
  fast_ap: {{type: pml.FastAPLoss, num_bins: 20}}
```

`pml.Name` is any loss of the installed pytorch-metric-learning that learns from labels. Its options
are those of its constructor; the number of classes and the dimension of the embedding are filled in
where the constructor needs them. A number may be from -10,000 to 10,000. `lr_factor` (default 1.0)
multiplies the learning rate of the loss's own parameters. The key of a run holds the name of the
loss and all its options, with their defaults. It does not hold the version of the library: the
result records that, as it records the version of every library.

`type: my_package.my_module.MyLoss` is the import path of your own class, a subclass of
`dmlbench.losses.base.Loss`. It is searched in the current folder and among the installed packages.
Its options are keyword-only arguments with annotations (`float`, `int`, `bool`, `str`, `Literal`);
a number may be from -1,000,000 to 1,000,000. The key of a run holds the code of its file and of all
that it imports from its own package, from the current folder and from dmlbench. A change there
trains the runs of this loss again, and no others.

## Check a loss

```bash
dmlbench check my_loss.py              # a file with a loss in it
dmlbench check my_package.my_module.MyLoss --option sharpness=2.0
dmlbench check rll
dmlbench check pml.CircleLoss
```

`dmlbench check` runs in seconds what every loss of the table above passes:

- the same value at each call, also after hundreds of calls; no random scale, no clock;
- embeddings and labels that stay as they were given;
- gradients against finite differences;
- float32 throughout: gradients against float64, no operator in bfloat16, autocast; divergence;
- batches without positives or negatives, duplicate images, zero vectors;
- the order of the batch and of the classes;
- a mean, which does not grow with the batch or the number of classes;
- every dimension of an embedding, and the labels of 70,000 classes;
- parameters and their groups, a resumed training;
- waiting for the GPU; and whether the loss learns.

A failed check says what was done and seen, why it matters in a training, and the usual cause:

```text
ok        divergence     embeddings that are NaN or infinite give no finite value
FAILED    no_positives   a batch without two images of a class
          Did: At any epoch, it was given 7 embeddings of 7 classes, one each, float32.
          Saw: The value is nan.
          Why: Random batches of many classes often hold no pair; one such batch is one step of NaN,
               and the training is over.
          Fix: A mean over no pairs is 0 / 0, the maximum of an empty row raises or is -inf. Divide
               by count.clamp(min=1), mask with torch.where or masked_fill, and give such a part 0.
```

The exit code is 1 if a check failed. For a loss outside `dmlbench/losses/`, three things are only
warnings: a header of another form, waiting for the GPU, and breaks of the compiled graph. A tensor
that goes to the host and back, as labels by way of numpy, is a failure.

A loss may do on purpose what a check faults, for example stop the gradient at one side of a pair.
Its class declares that, and the check shows the reason:

```python
from typing import ClassVar

from dmlbench.losses.base import Loss


class MyLoss(Loss):
    BY_DESIGN: ClassVar = {{"gradient": "only the query learns from a pair"}}
```

These can be declared in the same way:

- `order`, `numbering`, `length`, `growth` and `refresh`;
- `random`: the loss samples pairs by torch's global generator. A random factor stays a failure, and
  so does any other source of chance.
- `repeats`: a call changes the state, for example a memory of embeddings;
- `host`: the loss waits for the GPU on purpose.

A declared gradient is still checked: the finite differences then hold fixed what the loss detaches.
"""


@dataclass(frozen=True)
class Header:
    """The header of a loss's file, part by part."""

    name: str
    title: str
    authors: str
    venue: str
    arxiv: str | None
    wraps: str | None
    """The class of pytorch-metric-learning; None for a native loss."""
    differs: str

    @property
    def code(self) -> str:
        """Whose code computes the loss."""
        return f"PML's {self.wraps}" if self.wraps else "native"


def header(name: str) -> Header:
    """Read the header of the loss `name`.

    Raises:
        ValueError: the header has another form; the message says which form it should have.
    """
    module = f"dmlbench.losses.{name}"
    return parse(name, module, read_docstring(module), imported_modules(module))


def parse(name: str, module: str, text: str, imports: Iterable[str] = ()) -> Header:
    """Parse the header `text` of `module`, which imports `imports`; raises as `header` does."""
    title, *others = (" ".join(part.split()) for part in text.split("\n\n"))
    cited = CITATION.match(others[0]) if others else None
    if cited is None or not others[-1].startswith("Differs: "):
        raise ValueError(
            f"{module}: a header is a title, 'Authors; Venue; arXiv number. What it does.', and "
            "last a paragraph 'Differs: ...'"
        )
    wrapped = [match[1] for item in imports if (match := WRAPPED.fullmatch(item))]
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
    """For each loss a line with its name, its code and its title; below, a line for each option."""
    headers = [header(name) for name in list_losses()]
    width = max(len(loss.name) for loss in headers)
    return [
        "\n".join([f"{loss.name:{width}}  {loss.code}: {loss.title}", *_option_lines(loss.name)])
        for loss in headers
    ]


def markdown() -> str:
    """The page docs/losses.md."""
    return PAGE.format(
        rows="\n".join(_row(header(name)) for name in list_losses()),
        options="\n".join(line for name in list_losses() for line in _options(name)),
        divisors="\n".join(line for name in list_losses() for line in _divisors(name)),
    )


def _row(loss: Header) -> str:
    paper = f"[{loss.title}](https://arxiv.org/abs/{loss.arxiv})" if loss.arxiv else loss.title
    authors = f"{paper} ({loss.authors})"
    return _cells(f"`{loss.name}`", authors, loss.venue, loss.code, loss.differs)


def _options(name: str) -> Iterator[str]:
    """A row of the table of options for each option of the loss `name`."""
    for option, allowed, default in _described_options(name):
        yield _cells(f"`{name}`", f"`{option}`", allowed, f"`{default}`")


def _option_lines(name: str) -> Iterator[str]:
    """The options of the loss `name` as indented lines of text: `margin = 0.2   number ≥ 0`."""
    options = [*_described_options(name)]
    width = max((len(option) + len(default) for option, _, default in options), default=0)
    for option, allowed, default in options:
        space = " " * (width - len(option) - len(default))
        yield f"    {option} = {default}{space}   {allowed.replace('`', '')}"


def _described_options(name: str) -> Iterator[tuple[str, str, str]]:
    """Each option of the loss `name`, its allowed values, and its default as a study has it."""
    declared = read_declarations(f"dmlbench.losses.{name}")
    for option, (annotation, default) in declared.options.items():
        bounds = zip("≥>≤", option_bounds(option, declared.constants), strict=True)
        limits = [f"{sign} {bound:,}" for sign, bound in bounds if bound is not None]
        *others, last = _allowed(annotation, limits)
        allowed = " or ".join(filter(None, [", ".join(others), last]))
        shown = f"{default:.4g}" if isinstance(default, float) else json.dumps(default).strip('"')
        yield option, allowed, shown


def _allowed(annotation: Any, limits: list[str]) -> list[str]:
    """The values that an option with this annotation may have, in words."""
    if annotation is type(None):
        return ["`null`"]
    if annotation is bool:
        return ["`true`", "`false`"]
    if annotation in TYPES:
        return [f"{TYPES[annotation]} {', '.join(limits)}".rstrip()]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return [f"`{value}`" for value in arguments]
    return [text for argument in arguments for text in _allowed(argument, limits)]


def _divisors(name: str) -> Iterator[str]:
    """A line for each size that options of the loss `name` have to divide."""
    constants = read_declarations(f"dmlbench.losses.{name}").constants
    sizes = {"BATCH_DIVISORS": "the recipe's `batch_size`", "DIM_DIVISORS": "the backbone's `dim`"}
    for constant, size in sizes.items():
        if options := constants.get(constant):
            product = " × ".join(f"`{option}`" for option in options)
            yield f"- `{name}`: {product} must divide {size}."


def _cells(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
