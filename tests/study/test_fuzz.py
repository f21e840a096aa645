"""Mutated studies are accepted, or refused with one message that a person can act on.

DMLBENCH_FUZZ_SEED chooses other mutations than those of the default suite.
"""

import copy
import datetime
import json
import math
import os
import random
import re
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from dmlbench.study.settings import Recipe, Settings
from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError

ROOT = Path(__file__).parents[2]
OWN_FILES = """
study: own
track: paper
plan:
  datasets: [cards, letters]
  backbones: [tiny]
  losses: [library, arcface, mine]
  seeds: [0, 1]
  embeddings: [given]
  exclude: [{dataset: cards, loss: arcface}]
datasets:
  cards: {type: csv, file: cards.csv, levels: [], channels: 3, split_seed: 1, store: jpeg}
  letters:
    type: glyphs
    class_fraction: 0.5
    recipe: {augmentation: {flip: false, jitter: {hue: 0.1}}}
backbones:
  tiny: {type: test_resnet, dim: 16, image_size: 32, pretrained: false, recipe: {lr: 1.0e-3}}
losses:
  library: {type: pml.MarginLoss, margin: 0.3, triplets_per_anchor: all}
  mine: {type: softtriple, centers_per_class: 2}
embeddings:
  given: {dataset: letters, file: given.npz}
evaluation: {recall_at: [1, 2], kmeans_seed: 3}
published: {mine: softtriple}
unconfirmed: {losses.mine.centers_per_class: a guess}
"""
CARDS = "path,label,split\na.png,x,train\nb.png,x,train\nc.png,y,test\nd.png,y,test\n"
STUDIES = 3 * [OWN_FILES] + [
    path.read_text("utf-8")
    for folder in ("config", "config/papers")
    for path in sorted((ROOT / folder).glob("*.yaml"))
]
SEED = os.environ.get("DMLBENCH_FUZZ_SEED", "0")
SECONDS = 5
"""The longest time of a processor that a study may take."""
TEXT = """
yes no on off true false null ~ = 0 -1 1 2 7 1.5 -0.0 .5 1. +3 010 0o10 08 0x1F 0b1 1_000 1:30
190:20:30.15 1e1 1e-3 1e400 .inf -.inf .nan nan inf 99999999999999999999999 2024-01-01 2024-13-45
"" "010" "1:30" "on" "a\u0020b" ../x /dev/null a/b . .. - [] {} [[]] [{}] {a:1} {"a":1} [1,2,3]
[a,b] [yes,no] [null] {x:{y:{z:1}}} &a *a &a[*a] &a{b:*a} <<:*a !!set{a,b} !!binary|aGk= !!int"x"
!x @x `x %x ' " [ { ] } : # | > ? htl rll softriple pml.CircleLoss pml.Nope no_such.module.Loss csv
folder resnet18 resnet18.nonsense glyphs control_x embeddings_x recipe lr epochs "\\ud800"
"\\ud83d\\ude00" "\\0" Zürich e\u0301 \u200b \u202e \ufeff \x00 \x07 😀 日本
"""
WORDS = [*TEXT.split(), "a b", "\u2028", "\x85", "#", "- a", "a: b"]
"""Values in a study file, as they are written."""
VALUES = [
    *(None, True, False, "", " ", "010", "08", "1e-3", "1e400", "1:30", "nan", "yes", "on", "None"),
    *(0, -1, 1, 2, 3.5, 1e308, -0.0, float("nan"), float("inf"), 10**400, 10**5000, -(10**30)),
    *([], {}, [[]], [None], [True, 1], [0, 0], ["a"] * 2, {"a": 1}, {1: 2}, {None: {}}, {True: []}),
    *("\ud800", "\x00", "\n", "a" * 5000, "a/b", "../x", "/", "é", "e\u0301", "\u202e", "😀"),
    *(datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), [0.5, 0.2], ["x"] * 400),
    *("htl", "pml.CircleLoss", "pml.Nope", "no_such.module.Loss", "csv", "folder", "resnet18"),
    *({"type": None}, {"type": []}, {"type": "htl", "lr": 1}, {"recipe": {"lr": "x"}}, "recipe"),
]
"""Values in the data of a study."""
EXTREMES = [
    *(1e300, -1e300, 1e-300, -1e-300, 5e-324, -0.0, 1.7e308, 1e15, 1e9, 10**9, 10**15, 10**18, -1),
    *("1e300", "-1e300", "1e-400", "1e999", "inf", "-inf", "nan", ".nan", "NaN", "infinity", "-0"),
    *(2**31, 2**63, 2**64, 1e-7, True, False, "1000000", "-1", "1" * 300, "1" * 5000, "9" * 14),
]
"""Numbers that no study needs, in every way in which they may be written."""
KEYS = [
    *Settings.model_fields,
    "lr",
    "epochs",
    "seeds",
    "dim",
    "type",
    "file",
    "x",
    "",
    "a.b",
    1,
    None,
]
MESSAGE = re.compile(
    r"  (line \d+: |it |this is not YAML: |the key `|an alias |'.*' holds half|\.\.\. and \d+ more"
    r"|(study|\S[^\n]*?): \S)"
)
"""How a problem begins: with its line, or with its key."""
TECHNICAL = re.compile(
    r"NoneType|tuple|<class|Traceback|object at|regex|pydantic|https?://|\bdict\b"
)
"""What a message to a user never has."""


def mutate_text(draw):
    """The text of a study after a few changes of its lines."""
    lines = draw.choice(STUDIES).splitlines()
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(lines))
        kind = draw.choice(("delete", "repeat", "swap", "value", "indent", "insert", "cut", "join"))
        if kind == "delete":
            del lines[at]
        elif kind == "repeat":
            lines.insert(draw.randrange(len(lines) + 1), lines[at])
        elif kind == "swap":
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "value":
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {draw.choice(WORDS)}"
        elif kind == "indent":
            lines[at] = draw.choice((" ", "  ", "\t", "- ", "\u00a0")) + lines[at]
        elif kind == "insert":
            place = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + draw.choice(WORDS) + lines[at][place:]
        elif kind == "cut":
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        else:
            lines += draw.choice(STUDIES).splitlines()
        lines = lines or [""]
    return draw.choice(("\n", "\n", "\r\n")).join(lines)


def number_places(data):
    """Each container and the key in it of every number inside `data`."""
    places = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in places:
        if isinstance(value, dict | list):
            yield from number_places(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield data, key


def mutate_numbers(draw):
    """The content of a study with extreme values in place of some of its numbers."""
    data = yaml.safe_load(draw.choice(STUDIES))
    data.setdefault("recipe", {})
    for key in draw.sample([*Recipe.model_fields], 3):
        data["recipe"].setdefault(key, 1)
    places = [*number_places(data)]
    for container, key in draw.sample(places, min(len(places), draw.choice((1, 1, 2)))):
        container[key] = draw.choice(EXTREMES)
    return data


def containers(data):
    """All mappings and lists inside `data` that are not empty."""
    found = [data] if data else []
    for value in data.values() if isinstance(data, dict) else data:
        if isinstance(value, dict | list):
            found += containers(value)
    return found


def mutate_data(draw):
    """The content of a study after a few changes of values and keys."""
    data = yaml.safe_load(draw.choice(STUDIES))
    for _ in range(draw.choice((1, 1, 2, 3))):
        inner = draw.choice(containers(data) or [data])
        key = draw.choice([*inner] if isinstance(inner, dict) else [*range(len(inner))] or [0])
        kind = draw.choice(("value", "value", "delete", "key", "wrap", "deep", "loop", "bomb"))
        if not inner or kind == "value":
            new = copy.deepcopy(draw.choice(VALUES))
        elif kind == "wrap":
            new = draw.choice(([inner[key]], {"x": inner[key]}))
        elif kind == "deep":
            new = inner[key]
            for _ in range(draw.choice((5, 49, 60, 200))):
                new = draw.choice(([new], {"a": new}))
        elif kind == "loop":
            new = inner if draw.random() < 0.2 else inner[key]
        elif kind == "bomb":
            new = ["x"]
            for _ in range(draw.choice((2, 9))):
                new = [new] * 9
        elif isinstance(inner, dict) and kind == "key":
            inner[draw.choice(KEYS)] = inner.pop(key)
            continue
        else:
            del inner[key]
            continue
        if isinstance(inner, dict):
            inner[key] = new
        else:
            inner[key : key + 1] = [new]
        if kind in ("deep", "loop", "bomb"):  # too much to walk through again
            break
    return data


def check_message(error, file):
    text = str(error)
    title, *lines = text.splitlines()
    assert title == f"{file}: the study cannot be run:", title
    assert lines, "it says nothing"
    assert len(text) < 40_000
    assert not TECHNICAL.search(text), TECHNICAL.search(text)
    for line in lines:
        snippet = line.startswith("    ")
        assert snippet or MESSAGE.match(line), line
        assert len(line) < 2_500, line[:300]


def check_accepted(study):
    """The runs have keys, and are the same in every job, which reads the settings again."""
    again = check_study(json.loads(json.dumps(study.settings.model_dump(mode="json"))), "again")
    run = next(iter(study.runs.values()))
    assert again.runs[run.path].eval_key == run.eval_key
    assert again.runs.keys() == study.runs.keys()
    for number in derived_numbers(study):
        assert math.isfinite(number)
        assert abs(number) < 1e13


def derived_numbers(study):
    """What is computed from the settings of each run: sizes, steps, learning rates."""
    for run in study.runs.values():
        recipe, model = run.recipe, run.model
        yield recipe.batch_size * model.image_size**2 * run.facts["channels"]
        yield recipe.lr * recipe.head_lr_factor
        if recipe.schedule == "step":
            yield recipe.lr * recipe.step_factor ** len(recipe.step_epochs)
        yield from (value for value in run.loss_options.values() if isinstance(value, int | float))
        yield from run.metric_settings["recall_at"]


def check_mutation(number, read):
    """Call `read`; whether it accepts its study."""
    try:
        check_accepted(read())
    except StudyError as error:
        try:
            check_message(error, "fuzz.yaml")
        except AssertionError as problem:
            pytest.fail(f"mutation {number} of seed {SEED}: {problem}")
        return False
    except Exception as error:
        raise AssertionError(f"mutation {number} of seed {SEED}: no message") from error
    return True


def check_mutations(numbers, tmp_path, monkeypatch):
    """Read the studies of these `numbers`: mutated as text, as data, or in their numbers alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cards.csv").write_text(CARDS)
    (tmp_path / "given.npz").write_text("vectors")
    path, accepted = tmp_path / "fuzz.yaml", 0
    print(f"DMLBENCH_FUZZ_SEED={SEED}")  # pytest shows it if the test fails
    for number in numbers:
        draw = random.Random(f"{SEED}-{number}")
        if number % 3 == 1:
            path.write_bytes(mutate_text(draw).encode("utf-8", "surrogatepass"))
            read = partial(read_study, "fuzz.yaml")
        else:
            data = mutate_data(draw) if number % 3 else mutate_numbers(draw)
            read = partial(check_study, data, "fuzz.yaml")
        for _ in range(2):  # a pause of the machine counts as work of this process
            start = time.process_time()
            is_accepted = check_mutation(number, read)
            if time.process_time() - start < SECONDS:
                break
        else:
            pytest.fail(f"mutation {number} of seed {SEED} takes long")
        accepted += is_accepted
    assert 0.05 < accepted / len(numbers) < 0.95  # neither kind is rare


def test_mutated_studies_are_accepted_or_refused_in_words(tmp_path, monkeypatch):
    check_mutations(range(150), tmp_path, monkeypatch)


@pytest.mark.slow
def test_10000_mutated_studies_are_accepted_or_refused_in_words(tmp_path, monkeypatch):
    check_mutations(range(10_000), tmp_path, monkeypatch)
