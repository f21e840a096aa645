"""Every code block of the docs is executed, checked, or marked as plain text.

The language after the three backticks says what happens to a block; docs/development.md tells
authors the same:

- `yaml`: a study, or a part of one, which is put onto a small study; it must pass the check;
- `python`: a script, which must run; with `>>>`, a doctest;
- `console`: commands after `$`, which run in a copy of the project; what they print must be what
  the block shows, where `...` stands for anything. A command without output must succeed;
- `bash`: commands that are not run. Each must be one that exists, with options that it has;
- `text`: nothing.

A block with a title is a file: it is written into the copy. The blocks of a page run in their
order, in one copy.
"""

import contextlib
import difflib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from dmlbench.cli.main import build_parser
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

ROOT = Path(__file__).parents[2]
SLOW = {
    "adding_a_backbone",
    "adding_a_dataset",
    "adding_a_loss",
    "library",
    "store",
    "troubleshooting",
}
"""Pages whose blocks take half a minute."""
PAGES = [ROOT / "README.md", ROOT / "results/README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?(?P<rest>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=indent)```$",
    re.MULTILINE,
)
INLINE = re.compile(r"(?<!`)`((?:dmlbench|make) [^`]+)`(?!`)")
COPIED = ("Snakefile", "dmlbench", "workflow", "profiles", "config", "envs")
LANGUAGES = {"yaml", "python", "console", "bash", "text", "csv"}
MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
STUDY = {
    "study": "docs",
    "plan": {
        "datasets": ["glyphs"],
        "backbones": ["resnet18"],
        "losses": ["triplet"],
        "seeds": [0],
    },
}
"""What a part of a study is put onto."""
FACES = "path,label,split\na/1.jpg,a,train\na/2.jpg,a,train\nb/1.jpg,b,test\nb/2.jpg,b,test\n"
"""my/faces.csv, which examples name as a file of the user."""
OTHERS = {"conda", "mlflow", "git", "cd", "mkdocs", "uv"}
"""Commands of other programs, which are not checked."""


class Block(NamedTuple):
    language: str
    title: str | None
    body: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The code blocks of a page."""
    assert "```" not in FENCE.sub("", text), "a block that does not begin and end as others"
    for match in FENCE.finditer(text):
        assert not match["rest"].strip(), f"{match['rest'].strip()} is not understood"
        indent, line = match["indent"], text.count("\n", 0, match.start()) + 1
        body = "".join(row.removeprefix(indent) for row in match["body"].splitlines(True))
        yield Block(match["language"], match["title"], body, line)


def execute(block: Block) -> None:
    """Do with a block in the current folder what its language says."""
    assert block.language in LANGUAGES, f"one of {', '.join(sorted(LANGUAGES))} is needed"
    if block.title:
        write(Path(block.title), block.body)
    if block.language == "yaml":
        check_yaml(block.body)
    elif block.language == "python" and not block.title:
        run_python(block.body)
    elif block.language == "console":
        run_console(block.body)
    elif block.language == "bash":
        for command in commands(block.body):
            check_command(command)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the project, which is the current folder."""
    folder = tmp_path / "project"
    for part in COPIED:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy2(ROOT / part, folder)
    write(folder / "my/faces.csv", FACES)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("DMLBENCH_DATA", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.stem in SLOW else page for page in PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_code_block_does_what_the_page_says(page, copy):
    blocks_of_page = list(blocks(page.read_text("utf-8")))
    # a page that adds code to the package checks its studies by its own commands
    own_code = any((block.title or "").startswith("dmlbench/") for block in blocks_of_page)
    for block in blocks_of_page:
        if own_code and block.language == "yaml":
            block = block._replace(language="text")
        try:
            execute(block)
        except Exception as error:
            pytest.fail(f"{page.relative_to(ROOT)}, line {block.line}: {error}")


@pytest.mark.parametrize(
    "text",
    [
        "```\nno language\n```\n",
        "```rust\nfn main() {}\n```\n",
        "```python other=1\n1\n```\n",
        "```yaml\nrecipe: {learning_rate: 1}\n```\n",
        "```python\nassert False\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```console\n$ echo a\nb\n```\n",
        "```console\n$ false\n```\n",
        "```bash\ndmlbench plan my.yaml --no-such-option\n```\n",
        "```bash\ndmlbench embed my.yaml\n```\n",
        "```bash\nsnakemake --no-such-option\n```\n",
        "```bash\nmake no-such-target\n```\n",
        "```bash\npip install -e .[no-such-extra]\n```\n",
        "```bash\npython benchmarks/no_such_file.py\n```\n",
    ],
)
def test_a_block_that_is_wrong_is_noticed(text, copy):
    with pytest.raises((AssertionError, StudyError)):
        execute(*blocks(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_exists(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for command in INLINE.findall(text):
        if "..." not in command:
            check_command(shlex.split(command, comments=True), whole=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def check_yaml(body: str) -> None:
    """Check a study, or a part of one."""
    settings = yaml.safe_load(body)
    check_study(settings if "study" in settings else merged(STUDY, settings), "the block")


def merged(below: dict, above: dict) -> dict:
    """Mappings are merged, all else is replaced: as Snakemake merges configuration files."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = merged(below[name], above[name])
    return both


def run_python(body: str) -> None:
    """Run a script, or a doctest."""
    Path("block.py").write_text(f'r"""{body}"""' if ">>> " in body else body, "utf-8")
    module = ["-m", "doctest", "-o", "ELLIPSIS"] if ">>> " in body else []
    done = subprocess.run([sys.executable, *module, "block.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run_console(body: str) -> None:
    """Run the commands, and compare what they print with the block."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command}\n{more}"
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if not expected.strip():
            assert done.returncode == 0, f"{command}\n{done.stdout}"
        elif not doctest.OutputChecker().check_output(expected, done.stdout, MATCH):
            lines = difflib.unified_diff(
                expected.splitlines(), done.stdout.splitlines(), "the page", "the command", n=99
            )
            raise AssertionError("\n".join([command, *lines]))


def commands(body: str) -> Iterator[list[str]]:
    """The words of each command."""
    for line in body.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words[: words.index(">")] if ">" in words else words


def check_command(words: list[str], whole: bool = True) -> None:
    """Whether such a command exists, with such options. `whole`: it has all its arguments."""
    while "=" in words[0]:  # DMLBENCH_CONDA=gpu snakemake
        words = words[1:]
    program, *arguments = words
    if program == "dmlbench":
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        check_arguments(build_parser(), own, whole)
    elif program == "snakemake":
        from snakemake.cli import get_argument_parser

        check_arguments(get_argument_parser(), arguments, whole)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target: make {target}"
    elif program in ("python", "python3"):
        assert (ROOT / arguments[0]).is_file(), f"no file: {arguments[0]}"
    elif program == "pip":
        extras = re.findall(r"\.\[([\w-]+)\]", " ".join(arguments))
        known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        assert set(extras) <= set(known["optional-dependencies"]), f"no extra: {extras}"
    else:
        assert program in OTHERS, f"{program}: no command that is known here"


def check_arguments(parser, arguments: list[str], whole: bool) -> None:
    message = io.StringIO()
    with contextlib.redirect_stderr(message):
        try:
            parser.parse_args(arguments)
        except SystemExit as ended:
            missing = "arguments are required" in message.getvalue()
            if ended.code and (whole or not missing):
                raise AssertionError(f"{shlex.join(arguments)}: {message.getvalue()}") from None
