"""The checks of a GPU fail where there is something to find."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = ("bare", "models", "search", "evaluation", "training", "turns", "resident", "losses")
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch):
    """The function that imports a script of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(before)
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def models(script, monkeypatch):
    """The checks of models, of a small one with frozen batch norms."""
    models = script("models")
    monkeypatch.setitem(models.CASES, "cpu", models.CASES["cpu"][:1])
    return models


def test_a_convolution_without_a_gradient_fails(models, tmp_path, monkeypatch, capsys):
    assert "every convolution" in models.steps(CPU, tmp_path)
    # timm's last batch norm of a block has the weight 0
    monkeypatch.setattr(models, "randomise_batch_norms", lambda model, generator: None)
    (tmp_path / "again").mkdir()
    with pytest.raises(AssertionError, match=r"test_resnet at 32, .*no gradient: trunk\.\w+"):
        models.steps(CPU, tmp_path / "again")
    assert "| 0 of 16 |" in capsys.readouterr().out


def test_embeddings_and_gradients_that_differ_from_a_cpu_fail(models, tmp_path, monkeypatch):
    gradient = models.gradient
    gradients = iter(range(10))

    def other_gradient(model, device):
        return gradient(model, device) * (-1) ** next(gradients)

    monkeypatch.setattr(models, "gradient", other_gradient)
    with pytest.raises(AssertionError, match="another result than on a CPU: gradient"):
        models.steps(CPU, tmp_path)


def test_other_bits_fail(models, tmp_path, monkeypatch, capsys):
    embed_test, calls = models.embedding.embed_test, []

    def other_bits(*arguments):
        embeddings, rows = embed_test(*arguments)
        calls.append(embeddings)
        return embeddings + np.float32(1e-6 * (len(calls) == 3)), rows  # after the resume

    monkeypatch.setattr(models.embedding, "embed_test", other_bits)
    with pytest.raises(AssertionError, match="other bits"):
        models.bits(CPU, tmp_path)
    assert "| equal | **differs by up to " in capsys.readouterr().out


def test_a_model_that_fails_does_not_stop_the_next(models, tmp_path, monkeypatch):
    folded = models.CASES["cpu"][0]
    broken = folded._replace(backbone=models.backbone("no_such_model", 32, 16))
    monkeypatch.setitem(models.CASES, "cpu", [broken, folded])
    checked = []

    def check(case, run, store, state):
        checked.append(case)
        assert case is not broken

    with pytest.raises(AssertionError, match=r"^no_such_model at 32, frozen batch norm: "):
        models.for_each_case(CPU, tmp_path, models.THREE_STEPS["cpu"], check)
    assert checked == [broken, folded]


def test_a_search_with_other_answers_fails(script, capsys):
    search = script("search")
    first = np.arange(100)
    ways = [lambda: first, lambda: np.where(first == 7, 0, first)]
    assert search.compare("k-means", ways, 0.99, CPU) > 0
    with pytest.raises(AssertionError, match=r"k-means: 99\.0000% of the answers are equal"):
        search.compare("k-means", ways, 0.9999, CPU)


def test_a_choice_of_kernels_is_offered_if_deterministic_ones_cost_more_than_5_percent(script):
    resident = script("resident")
    deterministic = resident.Kernels(freeze_bn=True)
    fastest = resident.Kernels(freeze_bn=False, deterministic=False, benchmark=True)
    benchmark = resident.Kernels(freeze_bn=True, benchmark=True)  # it does not count
    speeds = {deterministic: 1.0, benchmark: 1.3}
    assert resident.verdict({**speeds, fastest: 1.06}).endswith("offer gpu_deterministic: false")
    assert resident.verdict({**speeds, fastest: 1.04}).endswith("no setting is needed")


def test_two_small_trainings_cannot_share_a_gpu_that_takes_one_process(
    script, tmp_path, monkeypatch
):
    resident = script("resident")
    gpus = SimpleNamespace(find_exclusive=lambda runs: ["GPU-7"] if runs == 2 else [])
    monkeypatch.setattr(resident, "find_gpus", lambda: gpus)
    assert resident.two_runs(torch.device("cuda"), tmp_path).startswith("skipped: ")


def test_losses_that_wait_are_not_finite_or_fail_are_named(script, monkeypatch, capsys):
    losses = script("losses")
    answers = {
        "htl": (["1 ms", "2 ms"], True, "called a synchronizing CUDA operation"),
        "hpl": (["1 ms", "2 ms"], False, ""),
    }

    monkeypatch.setattr(losses, "native", lambda name, *_: answers[name])
    monkeypatch.setattr(losses, "list_losses", lambda: ["hpl", "htl", "proxy_anchor"])
    faults = losses.natives(50, torch.device("cuda"), 1)
    assert faults == ["hpl is not finite", "htl waits", "proxy_anchor: KeyError: 'proxy_anchor'"]
    table = capsys.readouterr().out
    assert "| htl | 1 ms | 2 ms | yes | **called a synchronizing CUDA operation** |" in table
    assert "| hpl | 1 ms | 2 ms | **no** | no |" in table


def test_a_training_that_ends_before_its_turn_is_over_is_an_error(script, capfd):
    turns = script("turns")

    def broken(setting, turn):
        turn()
        raise ValueError("no such kernel")

    pipe = turns.start(broken, SimpleNamespace(device="cpu", window=1))
    pipe.send(turns.TURN)
    with pytest.raises(RuntimeError, match="ended before its turn was over"):
        turns.window(pipe)
    turns.end([pipe])
    assert "no such kernel" in capfd.readouterr().err
