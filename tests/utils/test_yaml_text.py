"""YAML of a user is read as it is meant, or refused with its line."""

import re
import time

import pytest

from dmlbench.utils.errors import UnreadableYaml
from dmlbench.utils.yaml_text import MAX_DEPTH, MAX_VALUES, check_data, read_yaml

DUPLICATES = {
    "a section": (
        "recipe: {lr: 1}\nplan: {}\nrecipe: {lr: 2}",
        "the key `recipe` is on line 1 and on line 3. Remove one of them.",
    ),
    "an entry": (
        "losses:\n  a: {type: htl}\n  b: {}\n  a: {type: rll}",
        "the key `a` is on line 2 and on line 4.",
    ),
    "on one line": ("recipe: {lr: 1, lr: 2}", "the key `lr` is twice in the mapping on line 1."),
    "in a list": ("exclude:\n- loss: a\n  loss: b", "the key `loss` is on line 2 and on line 3."),
    "with equal values": ("lr: 1\nlr: 1", "the key `lr` is on line 1 and on line 2."),
    "in quotes": ("lr: 1\n'lr': 2", "the key `lr` is on line 1 and on line 2."),
    "two words for true": ("yes: 1\non: 2", "the key `on` is on line 1 and on line 2."),
    "two merges": (
        "a: &a {x: 1}\nb: {<<: *a, <<: *a}",
        "the key `<<` is twice in the mapping on line 2. Write `<<: [*one, *two]`.",
    ),
    "JSON": ('{"lr": 1,\n\t"lr": 2}', "the key `lr` is on line 1 and on line 2."),
}


@pytest.mark.parametrize("case", DUPLICATES)
def test_a_key_that_stands_twice_is_refused_with_both_lines(case):
    text, message = DUPLICATES[case]
    with pytest.raises(UnreadableYaml, match=re.escape(message)):
        read_yaml(text)


def test_everything_that_is_misread_is_named():
    with pytest.raises(UnreadableYaml) as refused:
        read_yaml("a: {d: 010}\na: 2\nb: {c: 1, c: 2}")
    assert [problem[:15] for problem in sorted(refused.value.problems)] == [
        "line 1: YAML re",
        "the key `a` is ",
        "the key `c` is ",
    ]


def test_anchors_and_merge_keys_work_and_may_be_overridden():
    text = """
      base: &base {lr: 1, epochs: 2}
      other: &other {lr: 3, eps: 4}
      own: {<<: *base, lr: 5}
      both: {<<: [*base, *other]}
      same: *base
      chained: {<<: {<<: *base, eps: 6}, lr: 7}
    """
    assert read_yaml(text) == {
        "base": {"lr": 1, "epochs": 2},
        "other": {"lr": 3, "eps": 4},
        "own": {"lr": 5, "epochs": 2},
        "both": {"lr": 1, "epochs": 2, "eps": 4},
        "same": {"lr": 1, "epochs": 2},
        "chained": {"lr": 7, "epochs": 2, "eps": 6},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "8"),
        ("-017", "-15"),
        ("1:30", "90"),
        ("1:30.5", "90.5"),
        ("0x1F", "31"),
        ("0b11", "3"),
        ("1_000", "1000"),
        ("1_0.5", "10.5"),
        ("!!int '010'", "8"),
    ],
)
def test_a_number_that_reads_as_another_one_is_refused_with_its_line(text, value):
    with pytest.raises(UnreadableYaml) as refused:
        read_yaml(f"a: 1\nb: [2, {text}]")
    written = text.removeprefix("!!int ").strip("'")
    (problem,) = refused.value.problems
    assert problem.startswith(f"line 2: YAML reads `{written}` as {value}. Write a number in plain")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-3", -3),
        ("+3", 3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5e+3", 1500.0),
        ("-.inf", float("-inf")),
        ("1e-3", "1e-3"),  # text in YAML 1.1; a setting reads the number
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("10:00 to 11:00", "10:00 to 11:00"),
        ("no", False),
        ("~", None),
        ("=", "="),
        (r'"\ud83d\ude00"', "😀"),  # as JSON writes it
    ],
)
def test_everything_else_is_read_as_yaml_has_it(text, value):
    assert read_yaml(f"a: {text}") == {"a": value}


NO_YAML = {
    "tab": ("a:\n\tb: 1", r"line 2: .* found a tab that cannot start.* not with tabs"),
    "no space": ("study:mine\nplan: {}", r"line 2: mapping values .* A colon needs a space after"),
    "bracket": ("a: 1\nb: [1, 2", r"line 2: .*A bracket or a comma is missing"),
    "quote": ("a: 'x", r"line 1: .*A quote is not closed"),
    "two documents": ("a: 1\n---\nb: 1", r"line 2: .*Remove the line `---`"),
    "control character": ("a: 1\nb: \x00", r"line 2 holds the character U\+0000\. Remove it"),
    "alias": ("a: *b", r"line 1: found undefined alias"),
    "a list as key": ("a: 1\n? [b]\n: 1", r"line 2: a key is a word, and this one is a list"),
    "a template": ("{{ name }}: 1", r"line 1: a key is a word.* needs quotes"),
    "tag": ("a: !!set {b, c}", r"line 1: the tag \S*set is not known"),
    "Python": ("a: !!python/name:os.system", r"line 1: the tag \S*os\.system is not known"),
    "no date": ("a: 2024-13-45", r"line 1: `2024-13-45` cannot be read as a date\. Put it in"),
    "no number": ("a: !!int x", r"line 1: `x` cannot be read as a number"),
    "digits": (f"a: {'9' * 5000}", r"line 1: `9{57}\.\.\.` cannot be read as a number"),
    "deep": (f"a: {'[' * 3000}", rf"nested deeper than {MAX_DEPTH} levels"),
}


@pytest.mark.parametrize("case", NO_YAML)
def test_what_is_no_yaml_is_refused_with_its_line_and_the_fix(case):
    text, message = NO_YAML[case]
    with pytest.raises(UnreadableYaml, match=message):
        read_yaml(text)


def test_tabs_in_json_are_no_mistake():
    assert read_yaml('{\n\t"a":\t1\n}') == {"a": 1}


def test_mappings_that_are_merged_again_and_again_stay_small():
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 8)]
    start = time.process_time()
    assert read_yaml("\n".join(lines))["a7"] == {"x": 1, "y": 2}
    assert time.process_time() - start < 1


def nested(depth):
    value = [1]
    for _ in range(depth - 1):
        value = [value]
    return value


def test_data_that_is_too_large_or_too_deep_is_refused():
    check_data({"a": nested(MAX_DEPTH - 1), "b": [0] * 1000})
    with pytest.raises(UnreadableYaml, match=f"deeper than {MAX_DEPTH} levels"):
        check_data({"a": nested(MAX_DEPTH)})
    bomb = ["x"]
    for _ in range(9):
        bomb = [bomb] * 9
    with pytest.raises(UnreadableYaml, match=f"more than {MAX_VALUES:,} values"):
        check_data({"a": bomb})


def test_data_that_holds_itself_is_refused():
    with pytest.raises(UnreadableYaml, match="inside the value that it repeats"):
        check_data(read_yaml("a: &a {b: [*a]}"))


@pytest.mark.parametrize("data", [{"a": "\ud800"}, {"\udfff": 1}, [["\ud800x"]]])
def test_half_a_character_is_refused(data):
    with pytest.raises(UnreadableYaml, match=r"'\\ud[8f].* holds half a character"):
        check_data(data)
