"""What `protocol: reality_check` and `report_optimism` add to the cost of a run."""

from pathlib import Path

import pytest

from dmlbench.planning.cost import estimate_cost
from dmlbench.planning.pending import find_pending
from dmlbench.planning.throughput import Device, ModelSpeed, Throughput
from dmlbench.study.study import check_study

TRAIN, TEST, DIM = 19280, 13180, 16
"""Images of Omniglot, and the dimension of the study's embeddings."""
NO_STORES = Path("none")


class Known(Throughput):
    """Speeds that are all known."""

    def model_speed(self, run):
        return ModelSpeed(train=100.0, embed=400.0, start=5.0, parameters=1000)

    def scoring_time(self, run, images):
        return 2.0


@pytest.fixture
def cost(tiny):
    """A function that gives the cost of a training of one loss."""

    def estimate(**settings):
        tiny["datasets"] = {"letters": {"type": "omniglot"}}
        tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
        tiny["recipe"] |= {"epochs": 3, "batch_size": 48}
        study = check_study(tiny | settings, "tiny")
        pending = find_pending(study, NO_STORES)
        return estimate_cost(study, pending, Known(Device("a machine", 0)), NO_STORES)

    return estimate


def test_the_reality_check_trains_four_models_on_three_quarters_and_validates_each_epoch(cost):
    total = cost(protocol="reality_check")
    (job,) = total.jobs
    quarter = TRAIN // 4
    trained = 4 * 3 * ((TRAIN - quarter) // 48) * 48
    embedded = 4 * TEST + 4 * 3 * quarter
    assert job.seconds == pytest.approx(trained / 100 + embedded / 400 + 5 + 2)
    assert total.embeddings == 4 * TEST * 4 * DIM


def test_the_reality_check_keeps_four_models(cost):
    assert cost(protocol="reality_check", keep_model=True).models == 4 * 4 * 1000
    # two checkpoints of one, and each at its best epoch
    assert cost(protocol="reality_check").checkpoint == 2 * 4 * 3 * 1000 + 4 * 4 * 1000


def test_the_optimism_gap_costs_an_embedding_of_the_test_images_after_each_epoch(cost):
    plain, reporting = cost(), cost(report_optimism=True)
    assert plain.optimism == 0
    assert reporting.optimism == 2 * 3 * TEST * DIM
    assert reporting.embeddings == plain.embeddings
    seconds = reporting.jobs[0].seconds - plain.jobs[0].seconds
    assert seconds == pytest.approx(3 * TEST / 400)


def test_a_tuned_study_embeds_the_test_images_as_often_as_it_validates(cost):
    tuning = {"trials": 1, "every": 2}
    assert cost(report_optimism=True, tuning=tuning).optimism == 2 * 2 * TEST * DIM
