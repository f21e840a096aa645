"""How long jobs take on a cluster, and how much memory they need."""

import dataclasses

import pytest

from dmlbench.planning import job_estimates, throughput
from dmlbench.planning.cost import Cell, Work
from dmlbench.planning.job_estimates import (
    EMBEDDED_AT_ONCE,
    Estimate,
    estimate_jobs,
    guess_scoring_seconds,
    guess_speed,
    read_estimates,
    scoring_memory,
    training_memory,
    write_estimates,
)
from dmlbench.planning.model_size import ModelSize
from dmlbench.study.study import check_study
from dmlbench.training.embedding import EMBED_BATCH
from dmlbench.utils import discovery
from dmlbench.utils.gpus import Gpus

PATH = "letters/tiny/proxy_anchor/seed0"
CELL = "letters/tiny/proxy_anchor"
TESTED = 763  # test images of the tiny study
RESNET18 = ModelSize(11_439_168, 8_983_552, 3_627_646_976)
RESNET50 = ModelSize(24_557_120, 34_803_712, 8_176_369_664)


@pytest.fixture(autouse=True)
def _login_node(monkeypatch):
    """The machine that submits has no GPU, and nobody has measured anything."""
    monkeypatch.setattr(throughput, "find_gpus", lambda: Gpus((), ()))
    answer_probes(monkeypatch, lambda name, facts: None)
    monkeypatch.setattr(job_estimates, "model_sizes", FakeSizes(ModelSize(373_952, 84_528, 8e6)))


def answer_probes(monkeypatch, answer):
    """Let what is remembered about speeds be `answer(name, facts)`."""
    usual = discovery.remembered

    def remembered(name, facts):
        return (answer if "probe" in name else usual)(name, facts)

    monkeypatch.setattr(discovery, "remembered", remembered)


class FakeSizes:
    def __init__(self, size):
        self.size = size

    def __call__(self, runs):
        return {job_estimates.size_spec(run): self.size for run in runs if run.uses_model}


@pytest.fixture
def finish_run(write_results, edit_result):
    """Write the result of a training of 100 s at this many images per second."""

    def write(study, path, device, rate):
        write_results(study, path)
        measured = {"images_per_second": rate, "train_seconds": 100.0, "wall_seconds": 130.0}
        edit_result(study.files.run(path).run, provenance=measured | {"device": device})

    return write


def test_a_guess_assumes_a_slow_gpu_and_cores_of_a_slow_cpu(tiny):
    tiny["recipe"] |= {"batch_size": 100, "images_per_class": None, "cpu_threads": 2}
    run = check_study(tiny, "tiny").runs[PATH]
    on_gpu, on_cpu = guess_speed(RESNET50, run, True), guess_speed(RESNET50, run, False)
    assert on_gpu.train == pytest.approx(5e12 / (3 * 8_176_369_664))  # 204 images per second
    assert on_cpu.train == pytest.approx(2 * 15e9 / (3 * 8_176_369_664))
    assert (on_gpu.embed, on_gpu.start) == (3 * on_gpu.train, 60)
    small = guess_speed(ModelSize(1, 1, 1000), run, True)
    assert small.train == 100 / 0.05  # its kernels are started one after the other


def test_a_batch_in_chunks_is_embedded_once_more_and_its_chunks_one_after_the_other(tiny):
    tiny["recipe"] |= {"batch_size": 100, "images_per_class": None, "chunk": 20}
    run = check_study(tiny, "tiny").runs[PATH]
    large, small = (guess_speed(size, run, True) for size in (RESNET50, ModelSize(1, 1, 1000)))
    assert large.train == pytest.approx(5e12 / (4 * 8_176_369_664))
    assert large.embed == 4 * large.train
    assert small.train == 20 / 0.05


def test_an_estimate_is_that_of_the_planner(tiny, stores):
    study = check_study(tiny, "tiny")
    estimates = estimate_jobs(study, stores)
    speed = guess_speed(ModelSize(373_952, 84_528, 8_000_000), study.runs[PATH], True)
    steps = 15 * 48 / speed.train
    expected = steps + 60 + TESTED / speed.embed
    assert estimates[CELL].training_seconds == pytest.approx(expected)
    assert estimates["letters/tiny/control_random"].training_seconds == 0
    assert estimates.keys() == {run.cell for run in study.runs.values()}


def test_a_trial_takes_the_time_of_its_folds_and_of_their_validations(tiny, stores):
    tiny["datasets"]["letters"] = {"type": "omniglot"}
    tiny["tuning"] = {"trials": 2, "folds": 4, "use_folds": 3}
    study = check_study(tiny, "tiny")
    estimate = estimate_jobs(study, stores)[CELL]
    speed = guess_speed(ModelSize(373_952, 84_528, 8_000_000), study.runs[PATH], True)
    fold = (14460 // 48) * 48 / speed.train + 4820 / speed.embed + guess_scoring_seconds(4820, 16)
    assert estimate.trial_seconds == pytest.approx(60 + 3 * fold)
    estimates = {CELL: estimate}
    write_estimates(estimates, stores.parent / "estimates.json")
    assert read_estimates(stores.parent / "estimates.json") == estimates


def test_finished_runs_on_the_gpus_of_the_cluster_replace_the_guess(tiny, stores, finish_run):
    study = check_study(tiny, "tiny")
    finish_run(study, PATH, "NVIDIA H200", 10.0)
    finish_run(study, "letters/tiny/normalized_softmax/seed0", "cpu (of a laptop)", 1.0)
    estimates = estimate_jobs(study, stores)
    assert estimates[CELL].training_seconds == pytest.approx(15 * 48 / 10 + 30)


def test_on_cpus_the_finished_runs_on_cpus_count(tiny, stores, finish_run):
    study = check_study(tiny | {"cluster": {"device": "cpu"}}, "tiny")
    finish_run(study, PATH, "cpu (of the cluster)", 20.0)
    assert estimate_jobs(study, stores)[CELL].training_seconds == pytest.approx(15 * 48 / 20 + 30)


def test_a_probe_on_a_node_of_the_cluster_replaces_the_guess(tiny, stores, monkeypatch):
    study = check_study(tiny, "tiny")
    answer = {"train": 40.0, "embed": 80.0, "start": 9.0, "parameters": 1}

    def remembered(name, facts):
        if name == "probed":
            return {"gpu": "NVIDIA L4"}.get(facts)
        return answer if name.endswith("probe_training") and facts[0] == "NVIDIA L4" else None

    answer_probes(monkeypatch, remembered)
    seconds = estimate_jobs(study, stores)[CELL].training_seconds
    assert seconds == pytest.approx(15 * 48 / 40 + 9 + TESTED / 80)


def test_the_time_for_images_that_nobody_counted_is_not_known(tiny, stores, monkeypatch):
    monkeypatch.setattr("dmlbench.planning.cost.count_used_images", lambda *_: None)
    estimate = estimate_jobs(check_study(tiny, "tiny"), stores)[CELL]
    assert (estimate.training_seconds, estimate.scoring_seconds) == (None, None)
    assert estimate.training_mb > 0


SMALL = Work(1000, 500)


def cell(tiny, work=SMALL, **settings):
    run = check_study(tiny, "tiny").runs[PATH]
    model = run.model.model_copy(update={"image_size": 224, "dim": 512})
    recipe = run.recipe.model_copy(update=settings)
    run = dataclasses.replace(run, model=model, recipe=recipe, facts={"channels": 3})
    return Cell(run, work, [], None, None, None, None)


@pytest.mark.parametrize(
    ("size", "batch", "measured"),
    # peaks of real trainings on a CPU, in MB; that of ResNet-50 had no 256 images to embed
    [(RESNET18, 16, 3150), (RESNET18, 48, 3150), (RESNET50, 8, 2452)],
)
def test_the_memory_on_a_cpu_is_enough_for_measured_trainings(tiny, size, batch, measured):
    memory = training_memory(cell(tiny, batch_size=batch), size, on_gpu=False)
    assert memory > measured + 500
    if size is RESNET18:
        assert memory < 2 * (measured + 500)


def test_the_memory_on_a_cpu_grows_with_the_batch(tiny):
    small, large = (
        training_memory(cell(tiny, batch_size=batch), RESNET18, on_gpu=False)
        for batch in (100, 200)
    )
    # 100 images more: 1.3 times their activations, and 8 copies of no image, with a reserve
    assert large - small == pytest.approx(1.25 * 4 * 130 * 8.98, abs=200)


def test_a_batch_in_chunks_has_the_activations_of_one_chunk_in_memory(tiny):
    whole, chunked, larger = (
        training_memory(cell(tiny, batch_size=batch, chunk=chunk), RESNET50, on_gpu=False)
        for batch, chunk in ((4000, None), (4000, 56), (4000, 112))
    )
    # 1.3 times the activations of 3944 images less, with a reserve; an embedding has those of 77
    assert whole - chunked == pytest.approx(1.25 * 4 * (1.3 * 4000 - 77) * 34.8, rel=0.01)
    assert larger - chunked == pytest.approx(1.25 * 4 * (1.3 * 112 - 77) * 34.8, rel=0.05)


def test_the_memory_on_a_gpu_grows_with_parameters_images_and_embeddings(tiny):
    base = training_memory(cell(tiny), RESNET18, on_gpu=True)
    assert 5_500 <= base <= 7_000
    more = [
        training_memory(cell(tiny), RESNET18._replace(parameters=10**9), on_gpu=True),
        training_memory(cell(tiny, batch_size=4096), RESNET18, on_gpu=True),
        training_memory(cell(tiny, Work(1000, 10**6)), RESNET18, on_gpu=True),
        training_memory(cell(tiny, Work(1000, 500, 10**7, 10**6)), RESNET18, on_gpu=True),
    ]
    # 5 copies of 1e9 numbers; 8 batches of bytes; two copies of 1e6 vectors of 512 numbers
    added = [25_000, 5_800, 5_100, 5_100]
    assert [x - base for x in more] == pytest.approx(added, rel=0.03, abs=200)


@pytest.mark.parametrize(
    ("control", "features"), [("untrained", 512), ("frozen", 2048), ("untrained_pca", 2048)]
)
def test_a_control_holds_features_or_embeddings_in_memory(tiny, control, features):
    base = cell(tiny)
    run = dataclasses.replace(base.run, loss=f"control_{control}")
    few, many = (
        training_memory(dataclasses.replace(base, run=run, work=Work(0, tested)), size, on_gpu=True)
        for tested in (500, 10**6)
        for size in [RESNET50._replace(features=2048)]
    )
    # two copies of 1e6 vectors of float32, with a reserve
    assert many - few == pytest.approx(1.25 * 2 * 4 * features, rel=0.03)


def test_the_number_of_images_that_are_embedded_at_once_is_that_of_the_training():
    assert EMBEDDED_AT_ONCE == EMBED_BATCH


def test_an_unknown_model_gets_a_usual_amount_of_memory(tiny):
    assert training_memory(cell(tiny), None, on_gpu=True) == 8_000


@pytest.mark.parametrize(
    ("images", "dim", "seconds"),
    [(60_502, 512, 480), (30_251, 512, 120), (60_502, 64, 480), (60_502, 1024, 960)],
)
def test_scoring_time_grows_with_the_square_of_the_images(images, dim, seconds):
    assert guess_scoring_seconds(images, dim) == pytest.approx(seconds)


def test_scoring_memory_holds_the_embeddings_several_times():
    assert scoring_memory(0, 512) == 1800
    assert scoring_memory(10**6, 512) == pytest.approx(1800 + 1.25 * 4 * 8 * 512, abs=100)


def test_estimates_are_read_as_they_were_written(tmp_path):
    estimates = {
        "a/b/c": Estimate(12.5, None, 100, 200),
        "a/b/d": Estimate(None, 1.0, 300, 400),
    }
    write_estimates(estimates, tmp_path / "new/estimates.json")
    assert read_estimates(tmp_path / "new/estimates.json") == estimates
    assert read_estimates(tmp_path / "missing.json") == {}
