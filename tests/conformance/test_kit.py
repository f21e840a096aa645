"""What can be checked, by which name and with which options; and what the command prints."""

import pytest

from dmlbench import source
from dmlbench.cli import main
from dmlbench.conformance import kit
from dmlbench.conformance.subject import find
from dmlbench.installed import UnusableLoss
from dmlbench.losses import list_losses
from dmlbench.problems import did_you_mean


def test_an_option_changes_the_loss_and_is_checked_as_in_a_study(made):
    assert find("rll", {"gallery_grad": True, "weight_grad": True}).options["weight_grad"] is True
    assert made(given={"weight": 2}).create().weight == 2.0
    with pytest.raises(UnusableLoss, match=r"wieght: unknown key. Did you mean 'weight'\?"):
        made(given={"wieght": 2})
    with pytest.raises(UnusableLoss, match=r"weight: found -1\. Input should be greater"):
        made(given={"weight": -1})
    with pytest.raises(UnusableLoss) as refused:
        find("pml.RankedListLoss", {})
    assert str(refused.value) == (
        "pml.RankedListLoss: --option margin: is missing. --option Tn: is missing. "
        "Add --option margin=... --option Tn=..."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "found: none\\.$"),
        ("{good}\nclass Other(Loss): ...", r"found: Made, Other\. Check each by its import path"),
        (
            "import torch\nclass Made(torch.nn.Module): ...",
            "Made is an nn.Module and no Loss: let it subclass dmlbench.losses.base.Loss",
        ),
        (
            "from dmlbench.losses.base import Loss\n"
            "class Made(Loss):\n    def __init__(self, margin=0.1): super().__init__()",
            r"def __init__\(self, num_classes: int, embedding_dim: int, parents: Tensor \| None = "
            r"None, \*, margin: float = 0\.1\)",
        ),
        ("from .helper import x", "ImportError: .* by its import path: my_package"),
        ("x = 1 / 0", "does not import: ZeroDivisionError"),
        (
            "from dmlbench.losses.rll import RankedList\n"
            "class Made(RankedList):\n    def __init__(self, *sizes): 1 / 0",
            "cannot be made with .* Zero",
        ),
    ],
)
def test_a_file_holds_one_loss_that_can_be_made(tmp_path, good, text, message):
    path = tmp_path / "some.py"
    path.write_text(text.replace("{good}", good))
    with pytest.raises(UnusableLoss, match=message):
        find(str(path), {})


def test_a_file_of_the_zoo_is_its_loss():
    path = source.PACKAGE / "losses/hpl.py"
    subject = find(str(path), {"hierarchy": "given"})
    assert (subject.title, subject.kind) == ("hpl", "native")
    assert len(subject.create().coarse[0].parent) == 7


@pytest.fixture
def called(capsys, monkeypatch):
    for library in ("OMP", "OPENBLAS", "MKL"):  # the command sets them
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments])
        return ended.value.code, capsys.readouterr().out

    return call


def test_the_command_prints_a_line_a_check_and_ends_with_how_it_went(made, called):
    code, printed = called(str(made().path), "--option", "weight=0.5")
    lines = printed.splitlines()
    assert code == 0
    assert lines[0].endswith("made.py: Made, own, temperature 0.1, weight 0.5")
    names = [check.name for check in kit.CHECKS]
    assert [line.split()[:2] for line in lines[2:-2]] == [["ok", name] for name in names]
    assert lines[-1] == f"0 failed, {len(names)} ok"
    code, printed = called(str(made("extra = 0", "extra = 1 / 0").path))
    assert code == 1
    skipped = f"The other {len(names) - 1} checks were skipped"
    assert printed.splitlines()[-2] == "1 failed"
    assert printed.splitlines()[-1].startswith(skipped)
    code, printed = called(str(made("self.weight * pull", "-50 * pull").path))
    assert code == 1
    assert printed.splitlines()[-1] == f"1 failed, {len(names) - 1} ok"


def test_what_cannot_be_checked_is_one_line(called):
    assert called("rl") == (
        "dmlbench: no loss 'rl'. Did you mean 'rll'? " + did_you_mean("", list_losses()),
        "",
    )
    assert called("rll", "--option", "margin")[0] == (
        "dmlbench: --option margin: it has the form key=value."
    )
