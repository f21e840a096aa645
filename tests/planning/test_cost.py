"""The cost of jobs is the arithmetic of their images and of the speeds."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.planning.cost import (
    Cost,
    Job,
    Work,
    estimate_cost,
    training_seconds,
    training_work,
)
from dmlbench.planning.pending import find_pending
from dmlbench.planning.throughput import Device, ModelSpeed, Throughput
from dmlbench.study.study import check_study

PATH = "letters/tiny/proxy_anchor/seed0"
PROBED = ModelSpeed(train=100.0, embed=400.0, start=5.0, parameters=1000)
NO_STORES = Path("none")
counts, rates = st.integers(0, 10**7), st.floats(0.5, 1e5)
works = st.builds(Work, counts, counts, counts)
model_speeds = st.builds(ModelSpeed, rates, rates, st.floats(0, 60), st.just(0))


class Known(Throughput):
    """Speeds that are all known."""

    def model_speed(self, run):
        return PROBED

    def scoring_time(self, run, images):
        return 2.0


@given(works, model_speeds)
def test_a_training_takes_the_sum_of_its_parts(work, speed):
    train, embed, start = (Fraction(number) for number in speed[:3])
    embedded = work.tested + work.refreshed + work.embedded
    parts = start + work.trained / train + embedded / embed
    assert training_seconds(work, speed) == pytest.approx(float(parts), rel=1e-9)


@given(works, model_speeds, rates, st.floats(0, 100), st.floats(0, 1))
def test_measured_trainings_count_more_than_the_probe(work, speed, rate, overhead, done):
    steps = work.trained / rate
    assert training_seconds(work, speed, rate, overhead) == pytest.approx(steps + overhead)
    left = training_seconds(work, speed, rate, overhead, done)
    assert left == pytest.approx((1 - done) * steps + overhead)
    without_probe = training_seconds(work, None, rate, overhead)
    assert without_probe == training_seconds(work, speed, rate, overhead)


def test_the_time_of_a_training_is_not_known_without_a_speed():
    assert training_seconds(Work(100, 10), None) is None
    assert training_seconds(Work(100, 10), None, overhead=3.0) is None


def omniglot(tiny, **recipe):
    tiny["datasets"] = {"letters": {"type": "omniglot"}}
    tiny["recipe"] |= recipe
    return check_study(tiny, "tiny")


def cost_of(study, gpus=0, speeds=None):
    speeds = speeds or Known(Device("a machine", gpus))
    return estimate_cost(study, find_pending(study, NO_STORES), speeds, NO_STORES)


def job_of(cost, loss):
    (job,) = [job for job in cost.jobs if job.run.loss == loss]
    return job


def test_the_steps_come_from_the_facts_of_the_data_set_and_the_recipe(tiny):
    job = job_of(cost_of(omniglot(tiny, epochs=3, batch_size=48)), "proxy_anchor")
    trained = 3 * (19280 // 48) * 48
    assert job.seconds == pytest.approx(trained / 100 + 13180 / 400 + 5 + 2)


def test_a_fraction_of_the_classes_has_that_fraction_of_the_images(tiny):
    tiny["datasets"]["letters"]["class_fraction"] = 0.5
    tiny["datasets"]["letters"]["type"] = "omniglot"
    job = job_of(cost_of(check_study(tiny, "tiny")), "proxy_anchor")
    trained = (9640 // 48) * 48
    assert job.seconds == pytest.approx(trained / 100 + 6590 / 400 + 5 + 2)


@pytest.fixture(scope="module")
def htl_run():
    settings = {
        "study": "one",
        "plan": {"datasets": ["letters"], "backbones": ["tiny"], "losses": ["htl"], "seeds": [0]},
        "datasets": {"letters": {"type": "glyphs"}},
        "backbones": {"tiny": {"type": "test_resnet", "dim": 16, "image_size": 32}},
        "recipe": {"batch_size": 80},
    }
    return check_study(settings, "one").runs["letters/tiny/htl/seed0"]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 10**6), st.integers(0, 10**6))
def test_more_epochs_or_images_are_no_less_work(htl_run, first, second, train, more):
    def work(epochs, images):
        recipe = htl_run.recipe.model_copy(update={"epochs": epochs})
        return training_work(type(htl_run)(**{**vars(htl_run), "recipe": recipe}), images, 7)

    few, many = sorted((first, second))
    less, much = work(few, train), work(many, train + more)
    assert all(a <= b for a, b in zip(less, much, strict=True))


def test_a_loss_that_embeds_the_training_set_between_epochs_pays_for_it(tiny):
    tiny["plan"]["losses"] = ["htl", "hpl"]
    cost = cost_of(omniglot(tiny, epochs=4, batch_size=80))
    more = job_of(cost, "htl").seconds - job_of(cost, "hpl").seconds
    assert more == pytest.approx(4 * 19280 / 400)


def test_a_test_on_other_data_embeds_those_images(tiny):
    tiny["datasets"] = {"letters": {"type": "omniglot", "test_on": "glyphs"}}
    job = job_of(cost_of(check_study(tiny, "tiny")), "proxy_anchor")
    assert job.seconds == pytest.approx((19280 // 48) * 48 / 100 + 7628 / 400 + 5 + 2)


def test_a_gpu_works_for_models_alone_and_cores_work_for_all_threads(tiny):
    tiny["plan"]["controls"] = ["random", "untrained"]
    tiny["evaluation"] = {"threads": 3}
    study = omniglot(tiny, cpu_threads=2)
    seconds = (19280 // 48) * 48 / 100 + 13180 / 400 + 5
    cost = cost_of(study, gpus=4)
    assert job_of(cost, "proxy_anchor").device_seconds == pytest.approx(seconds)
    assert job_of(cost, "control_random").device_seconds == 0
    untrained = job_of(cost, "control_untrained").device_seconds
    assert untrained == pytest.approx(13180 / 400 + 5)
    on_cores = job_of(cost_of(study), "proxy_anchor").device_seconds
    assert on_cores == pytest.approx(2 * seconds + 3 * 2)


def test_a_control_that_whitens_embeds_the_training_images_too(tiny):
    tiny["plan"]["controls"] = ["untrained", "untrained_pca", "frozen"]
    cost = cost_of(omniglot(tiny))
    seconds = {name: job_of(cost, f"control_{name}").seconds for name in tiny["plan"]["controls"]}
    assert seconds["untrained_pca"] - seconds["untrained"] == pytest.approx(19280 / 400)
    assert seconds["frozen"] == seconds["untrained"]


def test_the_embeddings_of_frozen_are_as_long_as_the_features(tiny, monkeypatch):
    tiny["plan"]["controls"] = ["frozen"]
    assert cost_of(omniglot(tiny)).embeddings == 3 * 13180 * 16 * 4
    monkeypatch.setattr(Known, "model_speed", lambda *_: PROBED._replace(features=96))
    assert cost_of(omniglot(tiny)).embeddings == 13180 * (2 * 16 + 96) * 4


def test_a_gpu_scores_many_images(tiny):
    tiny["datasets"] = {"letters": {"type": "sop"}}
    cost = cost_of(check_study(tiny, "tiny"), gpus=4)
    assert job_of(cost, "control_random").device_seconds == 2


def test_a_finished_run_costs_nothing_and_a_trained_one_is_only_scored(tiny, write_results):
    study = omniglot(tiny)
    write_results(study, PATH)
    write_results(study, "letters/tiny/normalized_softmax/seed0", stage="run.json")
    cost = cost_of(study)
    assert {job.run.loss for job in cost.jobs} == {"normalized_softmax", "control_random"}
    assert job_of(cost, "normalized_softmax").seconds == 2.0


def test_an_unfinished_training_only_pays_for_the_rest_of_its_steps(tiny):
    speeds = Known(Device("a machine", 0), progress={PATH: 0.75})
    job = job_of(cost_of(omniglot(tiny), speeds=speeds), "proxy_anchor")
    trained = (19280 // 48) * 48
    assert job.seconds == pytest.approx(trained / 400 + 13180 / 400 + 5 + 2)


def test_the_disk_needs_space_for_images_embeddings_models_and_checkpoints(tiny):
    tiny["plan"]["seeds"] = [0, 1]
    tiny["keep_model"] = True
    cost = cost_of(omniglot(tiny))
    assert cost.stores == pytest.approx((19280 + 13180) * 32 * 32 * 4 / 3)
    assert cost.embeddings == 5 * 13180 * 16 * 4
    assert cost.models == 4 * 1000 * 4
    assert cost.checkpoint == 2 * 3 * 1000 * 4  # the last one and the one before


def test_runs_whose_speed_is_not_known_are_unmeasured(tiny, monkeypatch):
    monkeypatch.setattr("dmlbench.utils.discovery.remembered", lambda *_: None)
    cost = cost_of(omniglot(tiny), speeds=Throughput(Device("a machine", 0)))
    assert (cost.jobs, len(cost.unmeasured), [*cost.uncounted]) == ([], 3, [])


def test_data_sets_whose_images_nobody_counted_are_uncounted(tiny, monkeypatch):
    monkeypatch.setattr("dmlbench.planning.cost.count_used_images", lambda *_: None)
    cost = cost_of(omniglot(tiny))
    assert (cost.jobs, cost.unmeasured, [*cost.uncounted]) == ([], [], ["letters"])


def test_a_run_without_a_model_needs_no_speed_of_one(tiny, monkeypatch):
    monkeypatch.setattr(Known, "model_speed", lambda *_: None)
    cost = cost_of(omniglot(tiny))
    assert job_of(cost, "control_random").seconds == 2.0
    assert len(cost.unmeasured) == 2


@given(st.lists(st.floats(0, 1e6), max_size=20), st.integers(1, 9))
def test_the_end_is_bounded_by_the_longest_job_and_by_all_devices_at_work(seconds, devices):
    cost = Cost(jobs=[Job(None, time, time) for time in seconds])
    end = cost.finish(devices)
    assert end >= max(seconds, default=0)
    assert end * devices >= cost.device_seconds * (1 - 1e-12)
    assert cost.finish(devices + 1) <= end <= cost.device_seconds + 1e-9
