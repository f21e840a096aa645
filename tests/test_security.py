"""No file that is read can run code, no text of a user is a command, no name leaves its folder."""

import ast
import re
from pathlib import Path

import pytest

from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError, UserError

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("dmlbench/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])
RULES = sorted(ROOT.glob("workflow/rules/*.smk"))
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""A call, and the argument without which a file could run code."""
FORBIDDEN = re.compile(
    r"(c?pickle|dill|marshal|shelve|joblib|cloudpickle)\.(loads?|open|Unpickler)"
    r"|yaml\.(load|load_all|unsafe_load|unsafe_load_all|full_load|full_load_all|UnsafeLoader)"
    r"|os\.(system|popen)|subprocess\.(getoutput|getstatusoutput)"
    r"|.*\.(extract|extractall|unpack_archive)|tempfile\.mktemp|eval|exec"
)
"""Calls that run code of a file or a text, or write where an archive says."""
ALLOWED = {"eval: dmlbench/utils/declarations.py"}
"""Annotations of the user's own loss, which is code that runs anyway; without builtins."""


def problems(source):
    """The unsafe calls in Python code."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if FORBIDDEN.fullmatch(name):
            yield name
        if name in NEEDED and keywords.get(NEEDED[name][0]) != str(NEEDED[name][1]):
            yield name
        if keywords.get("shell", "False") != "False":
            yield f"{name} with a shell"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("np.load(path)", "np.load"),
        ("with np.load(path, allow_pickle=True) as f: pass", "np.load"),
        ("pickle.load(file)", "pickle.load"),
        ("yaml.load(text, Loader)", "yaml.load"),
        ("yaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("subprocess.run(line, shell=True)", "subprocess.run with a shell"),
        ("os.system(line)", "os.system"),
        ("archive.extractall(folder)", "archive.extractall"),
        ("tempfile.mktemp()", "tempfile.mktemp"),
        ("eval(text)", "eval"),
    ],
)
def test_an_unsafe_call_is_noticed(source, name):
    assert [*problems(source)] == [name]


def test_safe_calls_are_no_problem():
    source = (
        "torch.load(path, weights_only=True); np.load(path, allow_pickle=False)\n"
        "subprocess.run(words); yaml.safe_load(text); model.eval(); tempfile.mkdtemp()"
    )
    assert [*problems(source)] == []


def test_no_code_of_the_project_makes_an_unsafe_call():
    calls = {
        f"{name}: {path.relative_to(ROOT)}"
        for path in SOURCES
        for name in problems(path.read_text())
    }
    assert calls == ALLOWED


NUMBERS = {"threads", "wildcards.seed", "wildcards.trial", "params.key", "resources.time_limit"}
"""What a rule writes itself, from numbers and hex digits; a constraint holds the seed to digits."""


def commands(text):
    """The shell commands of rules."""
    for block in re.findall(r"^ +shell:\n((?: {8,}.*\n)+)", text, re.MULTILINE):
        yield "".join(ast.literal_eval(line.strip()) for line in block.splitlines())


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_text_in_a_shell_command_is_quoted(path):
    for command in commands(path.read_text()):
        unquoted = set(re.findall(r"\{([^}]*?)\}", command))
        assert {name for name in unquoted if not name.endswith(":q")} <= NUMBERS, command


def test_every_rule_with_a_command_is_looked_at():
    texts = [path.read_text() for path in RULES]
    written = sum(text.count("shell:") for text in texts)
    assert written == sum(len([*commands(text)]) for text in texts) >= 8
    assert 'seed=r"\\d+"' in (ROOT / "workflow/rules/common.smk").read_text()


HOSTILE = (
    "../x",
    "..",
    ".",
    "/etc/x",
    "a/b",
    "a/../../b",
    "$(touch x)",
    "a;b",
    "a b",
    "a'b",
    "a\nb",
)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["study", "datasets", "backbones", "losses"])
def test_a_name_that_leaves_its_folder_or_is_a_command_is_refused(tiny, kind, name):
    if kind == "study":
        tiny["study"] = name
    elif kind == "losses":
        tiny["losses"] = {name: {"type": "triplet"}}
        tiny["plan"]["losses"] = [name]
    else:
        (settings,) = tiny[kind].values()
        tiny[kind] = {name: settings}
        tiny["plan"][kind] = [name]
    with pytest.raises(StudyError):
        check_study(tiny, "tiny")


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "letters/tiny/../../../x/seed0"])
def test_a_job_takes_only_runs_of_the_plan(tiny, path):
    with pytest.raises(UserError):
        check_study(tiny, "tiny").run(path)
