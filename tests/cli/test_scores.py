"""`dmlbench score FILE --as NAME`."""

import numpy as np
import pytest

from dmlbench.cli.main import main
from dmlbench.evaluation.conventions import CONVENTIONS


@pytest.fixture
def command(capsys):
    """Run a command; its exit code, or its message if it failed, and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return ended.value.code, capsys.readouterr().out

    return run


@pytest.fixture
def file(tmp_path):
    """Each image is there twice, in two classes."""
    images = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 2, axis=0)
    np.savez(tmp_path / "file.npz", embeddings=images, labels=np.arange(40) % 2)
    return tmp_path / "file.npz"


def test_a_number_comes_with_dmlbench_s_and_with_what_moves_it(command, file):
    code, text = command("score", file, "--as", "rdml", "--recall-at", 1)
    assert code == 0
    assert "  e_recall@1   50.00  dmlbench's recall@1 0.00: self_match +50.00\n" in text
    assert "self_match 'first hit dropped', not 'query excluded'" in text


def test_all_conventions_are_shown_and_dmlbench_s_alone_by_default(command, file):
    _, text = command("score", file, "--as", "all")
    assert [line.split(":")[0] for line in text.splitlines() if line[:1].strip()] == [*CONVENTIONS]
    _, text = command("score", file)
    assert text.startswith("dmlbench: ")
    assert "dmlbench's" not in text


def test_a_file_without_labels_and_a_file_that_is_none_are_refused_with_the_fix(command, tmp_path):
    file = tmp_path / "some.npz"
    np.savez(file, embeddings=np.eye(4), id=np.arange(4))
    fix = "Write it with numpy.savez(file, embeddings=..., labels=...)"
    assert f"{file}: it has embeddings, id, and no labels. {fix}" in command("score", file)[0]
    file.write_text("no archive")
    assert f"{file}: it cannot be read as .npz" in command("score", file)[0]
    assert fix in command("score", tmp_path / "missing.npz")[0]
    np.savez(file, embeddings=np.eye(4), labels=[0, 0, 1])
    assert f"{file}: labels: their shape is (3,)" in command("score", file)[0]
