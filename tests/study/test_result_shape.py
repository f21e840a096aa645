import pytest

from dmlbench.study.result_shape import check_metrics

METRICS = {
    "status": "ok",
    "error": None,
    "train_key": "t",
    "eval_key": "e",
    "training": "d",
    "metrics": [{"protocol": "zero_shot", "metric": "map@r", "value": 0.5}],
    "settings": {},
    "code": {},
}
FINDING = {"severity": 1, "name": "near-duplicates", "message": "3 of 9"}


def test_findings_are_a_part_of_metrics():
    check_metrics(METRICS | {"findings": [FINDING], "near_duplicates": None})


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"findings": [FINDING | {"severity": 4}]}, "findings.0.severity"),
        ({"findings": [FINDING | {"severity": True}]}, "findings.0.severity"),
        ({"findings": [FINDING | {"message": ""}]}, "findings.0.message"),
        ({"near_duplicates": {"test_images": 9, "leaked": -1}}, "near_duplicates.leaked"),
        ({"embedding_shape": {"dim": 4, "effective_rank": 0.5, "spread": 0.1}},
         "embedding_shape.effective_rank"),
    ],
)  # fmt: skip
def test_other_findings_are_refused_with_their_place(changes, place):
    with pytest.raises(ValueError, match=f"^{place}: "):
        check_metrics(METRICS | changes)
