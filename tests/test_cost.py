"""What jobs cost: the arithmetic of their images and speeds, and nothing else."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench import study
from dmlbench.cost import Cost, Job, Work, cost, images, training_seconds, training_work
from dmlbench.due import due
from dmlbench.speeds import Device, Speed, Speeds

PROBED = Speed(train=100.0, embed=400.0, start=5.0, parameters=1000)
counts, rates = st.integers(0, 10**7), st.floats(0.5, 1e5)
works = st.builds(Work, counts, counts, counts)
speeds = st.builds(Speed, rates, rates, st.floats(0, 60), st.just(0))


class Known(Speeds):
    """Speeds of which all is known."""

    def of_model(self, run):
        return PROBED

    def scoring(self, run, images):
        return 2.0


@given(works, speeds)
def test_a_training_takes_the_sum_of_its_parts(work, speed):
    train, embed, start = (Fraction(number) for number in speed[:3])
    parts = start + work.trained / train + (work.tested + work.refreshed) / embed
    assert training_seconds(work, speed) == pytest.approx(float(parts), rel=1e-9)


@given(works, speeds, rates, st.floats(0, 100), st.floats(0, 1))
def test_what_was_measured_counts_more_than_the_probe(work, speed, rate, beside, done):
    whole = work.trained / rate
    assert training_seconds(work, speed, rate, beside) == pytest.approx(whole + beside)
    left = training_seconds(work, speed, rate, beside, done)
    assert left == pytest.approx((1 - done) * whole + beside)
    assert training_seconds(work, None, rate, beside) == training_seconds(work, speed, rate, beside)


def test_nothing_is_known_without_a_speed():
    assert training_seconds(Work(100, 10), None) is None
    assert training_seconds(Work(100, 10), None, beside=3.0) is None


def omniglot(tiny, **recipe):
    tiny["datasets"] = {"letters": {"type": "omniglot"}}
    tiny["recipe"] |= recipe
    return study.check(tiny, "tiny")


def costs(made, gpus=0, stores=Path("none")):
    return cost(made, due(made, stores), Known(Device("it", gpus)), stores)


def job(total, loss):
    (found,) = [job for job in total.jobs if job.run.loss == loss]
    return found


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_steps_come_from_the_data_set_s_facts_and_the_recipe(tiny):
    made = omniglot(tiny, epochs=3, batch_size=48)
    trained = 3 * (19280 // 48) * 48
    found = job(costs(made), "proxy_anchor")
    assert found.seconds == pytest.approx(trained / 100 + 13180 / 400 + 5 + 2)
    tiny["datasets"]["letters"]["class_fraction"] = 0.5
    trained = 3 * (9640 // 48) * 48
    found = job(costs(study.check(tiny, "tiny")), "proxy_anchor")
    assert found.seconds == pytest.approx(trained / 100 + 6590 / 400 + 5 + 2)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 10**6), st.integers(0, 10**6))
def test_more_epochs_or_images_are_no_less_work(one, other, train, more):
    run = RUN.runs["letters/tiny/htl/seed0"]
    few, many = sorted((one, other))
    epochs = {n: run.recipe.model_copy(update={"epochs": n}) for n in (few, many)}
    less, much = (
        training_work(type(run)(**{**vars(run), "recipe": epochs[n]}), size, 7)
        for n, size in ((few, train), (many, train + more))
    )
    assert all(a <= b for a, b in zip(less, much, strict=True))


RUN = study.check(
    {
        "study": "one",
        "plan": {"datasets": ["letters"], "backbones": ["tiny"], "losses": ["htl"], "seeds": [0]},
        "datasets": {"letters": {"type": "glyphs"}},
        "backbones": {"tiny": {"type": "test_resnet", "dim": 16, "image_size": 32}},
        "recipe": {"batch_size": 80},
    },
    "one",
)


def test_a_loss_that_embeds_the_training_set_between_epochs_pays_for_it(tiny):
    tiny["plan"]["losses"] = ["htl", "hpl"]
    total = costs(omniglot(tiny, epochs=4, batch_size=80))
    more = job(total, "htl").seconds - job(total, "hpl").seconds
    assert more == pytest.approx(4 * 19280 / 400)


def test_a_test_on_another_data_set_embeds_its_images_and_trains_on_the_first_one_s(tiny):
    tiny["datasets"] = {"letters": {"type": "omniglot", "test_on": "glyphs"}}
    found = job(costs(study.check(tiny, "tiny")), "proxy_anchor")
    assert found.seconds == pytest.approx((19280 // 48) * 48 / 100 + 7628 / 400 + 5 + 2)


def test_a_gpu_is_busy_with_trainings_alone_and_cores_with_all_of_their_threads(tiny):
    tiny["plan"]["controls"] = ["random", "untrained"]
    tiny["evaluation"] = {"threads": 3}
    made = omniglot(tiny, cpu_threads=2)
    seconds = (19280 // 48) * 48 / 100 + 13180 / 400 + 5
    total = costs(made, gpus=4)
    assert job(total, "proxy_anchor").busy == pytest.approx(seconds)
    assert job(total, "control_random").busy == 0
    assert job(total, "control_untrained").busy == pytest.approx(13180 / 400 + 5)
    assert job(costs(made), "proxy_anchor").busy == pytest.approx(2 * seconds + 3 * 2)


def test_the_scores_of_many_images_keep_a_gpu_busy_too(tiny):
    tiny["datasets"] = {"letters": {"type": "sop"}}
    assert job(costs(study.check(tiny, "tiny"), gpus=4), "control_random").busy == 2


def test_what_is_done_costs_nothing_and_what_is_trained_is_but_scored(tiny, write_results):
    made = omniglot(tiny)
    write_results(made, "letters/tiny/proxy_anchor/seed0")
    write_results(made, "letters/tiny/normalized_softmax/seed0", stage="run.json")
    total = costs(made)
    assert {job.run.loss for job in total.jobs} == {"normalized_softmax", "control_random"}
    assert job(total, "normalized_softmax").seconds == 2.0


def test_of_an_unfinished_training_the_rest_is_to_be_done(tiny):
    made = omniglot(tiny)
    known = Known(Device("it", 0), done={"letters/tiny/proxy_anchor/seed0": 0.75})
    total = cost(made, due(made, Path("none")), known, Path("none"))
    trained = (19280 // 48) * 48
    assert job(total, "proxy_anchor").seconds == pytest.approx(trained / 400 + 13180 / 400 + 5 + 2)


def test_the_disk_takes_images_embeddings_models_and_a_checkpoint_a_training(tiny):
    tiny["plan"]["seeds"] = [0, 1]
    tiny["keep_model"] = True
    total = costs(omniglot(tiny))
    assert total.stores == pytest.approx((19280 + 13180) * 32 * 32 * 4 / 3)
    assert total.embeddings == 5 * 13180 * 16 * 4
    assert total.models == 4 * 1000 * 4
    assert total.checkpoint == 3 * 1000 * 4


def test_a_packed_store_knows_its_images_best(tmp_path):
    run = RUN.runs["letters/tiny/htl/seed0"]
    assert images(run, tmp_path) == {"train": 7502, "test": 7628}
    (tmp_path / "manifest.json").write_text('{"splits": {"train": [2, 30], "test": [1, 20]}}')
    assert images(run, tmp_path) == {"train": 30, "test": 20}


def test_the_glyphs_are_as_many_as_their_file_says(glyphs):
    run = RUN.runs["letters/tiny/htl/seed0"]
    packed = {split: count for split, (_, count) in glyphs.manifest["splits"].items()}
    assert images(run, Path("none")) == pytest.approx(packed, rel=0.1)


def test_images_that_nobody_counted_and_speeds_that_nobody_measured_are_named(tiny, monkeypatch):
    made = omniglot(tiny)
    unknown = Speeds(Device("it", 0))
    monkeypatch.setattr("dmlbench.installed.remembered", lambda *_: None)
    total = cost(made, due(made, Path("none")), unknown, Path("none"))
    assert (total.jobs, len(total.unmeasured), [*total.uncounted]) == ([], 3, [])
    monkeypatch.setattr("dmlbench.cost.images", lambda *_: None)
    total = costs(made)
    assert (total.jobs, total.unmeasured, [*total.uncounted]) == ([], [], ["letters"])


def test_a_study_without_trainings_needs_no_model_s_speed(tiny, monkeypatch):
    monkeypatch.setattr(Known, "of_model", lambda *_: None)
    total = costs(omniglot(tiny))
    assert job(total, "control_random").seconds == 2.0
    assert len(total.unmeasured) == 2


@given(st.lists(st.floats(0, 1e6), max_size=20), st.integers(1, 9))
def test_the_end_is_no_earlier_than_the_longest_job_or_all_devices_at_work(seconds, devices):
    total = Cost(jobs=[Job(None, one, one) for one in seconds])
    end = total.finish(devices)
    assert end >= max(seconds, default=0)
    assert end * devices >= total.busy * (1 - 1e-12)
    assert total.finish(devices + 1) <= end <= total.busy + 1e-9
