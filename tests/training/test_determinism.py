"""A GPU computes with deterministic kernels. Where torch has none, a training begins again without.

On a CPU `put_` is refused with the message that a GPU gives for other operators.
"""

import numpy as np
import pytest
import torch

from dmlbench.datasets.store.part import Part
from dmlbench.losses.proxy_anchor import ProxyAnchor
from dmlbench.study.study import check_study
from dmlbench.training import batches
from dmlbench.training import train as training
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.controls import control_embeddings
from dmlbench.training.determinism import (
    allow_other_kernels,
    refused,
    repeatable,
    use_deterministic_kernels,
)
from dmlbench.training.embedding import embed_test
from dmlbench.training.provenance import measurements
from dmlbench.training.time_limit import Stopped
from dmlbench.training.train import train

from .stops import never, stop_after

pytestmark = pytest.mark.filterwarnings("ignore:put_ does not have a deterministic")
CPU = torch.device("cpu")
PATH = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture(autouse=True)
def other_tests():
    """They compute on a CPU with the usual kernels."""
    yield
    refused.clear()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    set_up = training.set_up
    monkeypatch.setattr(training, "set_up", lambda recipe, _: set_up(recipe, torch.device("cuda")))
    monkeypatch.setattr("dmlbench.training.controls.set_up", training.set_up)


@pytest.fixture
def run(tiny):
    tiny["plan"]["losses"] = ["proxy_anchor"]
    return check_study(tiny, "tiny").runs[PATH]


def use_put():
    torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))


class RefusedInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        use_put()
        return gradient


def refuse_in_backward(monkeypatch, after=0):
    """Let the loss refuse in its backward pass, from the step `after` on; return the modes then."""
    compute, modes = ProxyAnchor.compute, []

    def compute_and_refuse(self, embeddings, labels):
        modes.append(torch.is_deterministic_algorithms_warn_only_enabled())
        if len(modes) > after:
            embeddings = RefusedInBackward.apply(embeddings)
        return compute(self, embeddings, labels)

    monkeypatch.setattr(ProxyAnchor, "compute", compute_and_refuse)
    return modes


def state_of(model):
    """Weights and statistics, in one tensor."""
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.fixture(scope="module")
def computed():
    return {}


@pytest.fixture
def expected(run, glyphs, tmp_path, computed):
    """The model of a training in which nothing is refused; trained once."""
    if not computed:
        computed["model"] = train(
            run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "plain", never
        )[0]
    return computed["model"]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_gpu_computes_in_the_strict_mode(run, glyphs, tmp_path, monkeypatch):
    """In the other one, attention has no deterministic backward pass."""
    modes = refuse_in_backward(monkeypatch, after=1000)
    train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, never)
    assert set(modes) == {False}
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert measurements([])["nondeterministic"] == []


def test_a_cpu_computes_with_the_usual_kernels(run, glyphs, tmp_path, monkeypatch):
    refuse_in_backward(monkeypatch)
    with pytest.raises(Stopped):
        train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, stop_after(2))
    assert not torch.are_deterministic_algorithms_enabled()
    assert measurements([])["nondeterministic"] == []


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_training_begins_again_with_other_kernels_and_the_same_bits(
    run, glyphs, expected, tmp_path, monkeypatch, capsys
):
    """The refused step leaves no trace: neither in weights, nor in statistics, nor in draws."""
    modes = refuse_in_backward(monkeypatch)
    model, _, history = train(
        run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "refused", never
    )
    assert torch.equal(state_of(model), state_of(expected))
    assert modes == [False] + [True] * history[-1]["step"]
    assert measurements([])["nondeterministic"] == ["put_"]
    line = "put_: torch has no deterministic kernel of it, and takes another one."
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_resumed_training_takes_the_same_decision(run, glyphs, expected, tmp_path, monkeypatch):
    with monkeypatch.context() as refusing:
        refuse_in_backward(refusing)
        with pytest.raises(Stopped):
            train(
                run,
                glyphs,
                glyphs.split("train", Part(0.1)),
                CPU,
                tmp_path / "parts",
                stop_after(5),
            )
    refused.clear()  # as in a new process
    # Even if what refused does not occur again, as an operator of the warm-up
    modes = refuse_in_backward(monkeypatch, after=1000)
    model = train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "parts", never)[0]
    assert torch.equal(state_of(model), state_of(expected))
    assert set(modes) == {True}
    assert measurements([])["nondeterministic"] == ["put_"]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_refusal_in_a_later_step_continues_from_the_checkpoint(
    run, glyphs, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(Checkpoint, "should_save", lambda self: True)
    modes = refuse_in_backward(monkeypatch, after=9)
    model, _, history = train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, never)
    assert torch.equal(state_of(model), state_of(expected))
    assert modes == [False] * 10 + [True] * (history[-1]["step"] - 9)  # one step twice


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_next_training_of_the_process_decides_anew(run, glyphs, tmp_path, monkeypatch):
    with monkeypatch.context() as refusing:
        refuse_in_backward(refusing)
        with pytest.raises(Stopped):
            train(
                run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "one", stop_after(3)
            )
    modes = refuse_in_backward(monkeypatch, after=1000)
    with pytest.raises(Stopped):
        train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "two", stop_after(3))
    assert set(modes) == {False}
    assert measurements([])["nondeterministic"] == []


def test_embeddings_fall_back_alone(run, glyphs, expected, monkeypatch):
    """So `dmlbench embed` takes the kernels of the run, whatever the backward pass needs."""
    embeddings, _ = embed_test(expected, glyphs, CPU, run)
    floats, modes = batches.floats, []

    def floats_and_note(**batch):
        modes.append(torch.is_deterministic_algorithms_warn_only_enabled())
        return floats(**batch)

    monkeypatch.setattr(batches, "floats", floats_and_note)
    use_deterministic_kernels()
    allow_other_kernels(["put_"])  # as when a loss embeds its training set
    assert np.array_equal(embed_test(expected, glyphs, CPU, run)[0], embeddings)
    assert set(modes) == {False}
    assert torch.is_deterministic_algorithms_warn_only_enabled()

    monkeypatch.setattr(batches, "floats", lambda **batch: use_put() or floats(**batch))
    use_deterministic_kernels()
    assert np.array_equal(embed_test(expected, glyphs, CPU, run)[0], embeddings)
    assert refused == {"put_"}


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_control_falls_back_too(tiny, glyphs, monkeypatch):
    tiny["plan"]["controls"] = ["untrained"]
    control = check_study(tiny, "tiny").runs["letters/tiny/control_untrained/seed0"]
    expected, _ = control_embeddings(control, None, glyphs, CPU)
    floats = batches.floats
    monkeypatch.setattr(batches, "floats", lambda **batch: use_put() or floats(**batch))
    assert np.array_equal(control_embeddings(control, None, glyphs, CPU)[0], expected)
    assert refused == {"put_"}


def test_other_errors_are_raised_at_once_and_the_mode_is_restored():
    use_deterministic_kernels()
    calls = []

    @repeatable
    def fail():
        calls.append(0)
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        fail()
    assert len(calls) == 1
    assert not refused
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(
    ("message", "operator"),
    [
        ("adaptive_max_pool2d_backward_cuda", "adaptive_max_pool2d_backward_cuda"),
        ("median CUDA with indices output", "median CUDA with indices output"),
        ("backend='inductor' raised:\nRuntimeError: put_", "put_"),
    ],
)
def test_the_name_of_an_operator_is_that_of_torch(message, operator):
    use_deterministic_kernels()
    tail = "does not have a deterministic implementation, but you set 'torch.use_deterministic"

    @repeatable
    def compute():
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(f"{message} {tail}")
        return "done"

    assert compute() == "done"
    assert refused == {operator}
