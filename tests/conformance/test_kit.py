"""Which losses can be checked, with which options, and what the command prints."""

import pytest

from dmlbench.cli.main import main
from dmlbench.conformance import kit, precision
from dmlbench.conformance.subject import find_loss
from dmlbench.losses import list_losses
from dmlbench.utils.errors import UnusableGpu, UnusableLoss
from dmlbench.utils.modules import PACKAGE
from dmlbench.utils.text import did_you_mean


def test_options_are_given_to_the_loss_and_checked_as_in_a_study(write_loss):
    subject = find_loss("rll", {"gallery_grad": True, "weight_grad": True})
    assert subject.options["weight_grad"] is True
    assert write_loss(options={"weight": 2}).create().weight == 2.0
    with pytest.raises(UnusableLoss, match=r"wieght: unknown key. Did you mean 'weight'\?"):
        write_loss(options={"wieght": 2})
    with pytest.raises(UnusableLoss, match=r"weight: found -1\. Allowed: a number of at least 0"):
        write_loss(options={"weight": -1})
    with pytest.raises(UnusableLoss) as caught:
        find_loss("pml.RankedListLoss", {})
    assert str(caught.value) == (
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
            "cannot be created with .* Zero",
        ),
    ],
)
def test_a_file_that_does_not_hold_one_usable_loss_is_refused(tmp_path, good, text, message):
    path = tmp_path / "some.py"
    path.write_text(text.replace("{good}", good))
    with pytest.raises(UnusableLoss, match=message):
        find_loss(str(path), {})


def test_a_file_of_the_package_means_the_loss_of_that_name():
    path = PACKAGE / "losses/hpl.py"
    subject = find_loss(str(path), {"hierarchy": "given"})
    assert (subject.title, subject.kind) == ("hpl", "native")
    assert len(subject.create().coarse[0].parent) == 7


@pytest.fixture
def run_check(capsys, monkeypatch):
    """Run `dmlbench check`; gives the exit code and what it prints."""
    for library in ("OMP", "OPENBLAS", "MKL"):  # the command sets them
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["check", *arguments])
        return caught.value.code, capsys.readouterr().out

    return run


def test_the_command_prints_a_line_per_check_and_a_summary(write_loss, run_check):
    code, printed = run_check(str(write_loss().path), "--option", "weight=0.5")
    lines = printed.splitlines()
    assert code == 0
    assert lines[0].endswith("made.py: Made, own, temperature 0.1, weight 0.5")
    names = [check.name for check in kit.CHECKS]
    assert [line.split()[:2] for line in lines[2:-2]] == [["ok", name] for name in names]
    assert lines[-1] == f"0 failed, {len(names)} ok"
    code, printed = run_check(str(write_loss("extra = 0", "extra = 1 / 0").path))
    assert code == 1
    skipped = f"The other {len(names) - 1} checks were skipped"
    assert printed.splitlines()[-2] == "1 failed"
    assert printed.splitlines()[-1].startswith(skipped)
    code, printed = run_check(str(write_loss("self.weight * pull", "-50 * pull").path))
    assert code == 1
    assert printed.splitlines()[-1] == f"1 failed, {len(names) - 1} ok"


def test_an_unknown_loss_or_a_malformed_option_is_answered_in_one_line(run_check):
    assert run_check("rl") == (
        "dmlbench: no loss 'rl'. Did you mean 'rll'? " + did_you_mean("", list_losses()),
        "",
    )
    assert run_check("rll", "--option", "margin")[0] == (
        "dmlbench: --option margin: it has the form key=value."
    )


def test_the_checks_of_a_loss_that_has_to_be_prepared_do_not_warn(recwarn):
    for _ in kit.run_checks(find_loss("hpl", {})):
        pass
    assert [str(entry.message) for entry in recwarn if "used without" in str(entry.message)] == []


def test_a_gpu_that_cannot_be_used_ends_the_check_and_is_no_fault_of_the_loss(
    write_loss, monkeypatch
):
    def refuse():
        raise UnusableGpu("torch cannot compute on the GPU")

    monkeypatch.setattr(precision, "choose_device", refuse)
    with pytest.raises(UnusableGpu, match="torch cannot compute on the GPU"):
        precision.precision(write_loss())
