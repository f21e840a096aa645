import math

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss


def reference(embeddings, labels, alpha, beta, la, epsilon):
    unit = functional.normalize(embeddings)
    cosine = (unit @ unit.T).tolist()
    total = 0.0
    for i, row in enumerate(cosine):
        positives = [s for j, s in enumerate(row) if j != i and labels[j] == labels[i]]
        negatives = [s for j, s in enumerate(row) if labels[j] != labels[i]]
        kept_p = [s for s in positives if s < max(negatives) + epsilon]
        kept_n = [s for s in negatives if s > min(positives) - epsilon]
        total += math.log1p(sum(math.exp(-alpha * (s - la)) for s in kept_p)) / alpha
        total += math.log1p(sum(math.exp(beta * (s - la)) for s in kept_n)) / beta
    return total / len(cosine)


def test_oracle_value(batch):
    assert create_loss("multi_similarity", 2, 2)(*batch).item() == pytest.approx(
        0.43381381, abs=1e-8
    )


@pytest.mark.parametrize("options", [{}, {"alpha": 5.0, "beta": 20.0, "la": 0.2, "epsilon": 0.3}])
def test_agrees_with_a_loop(options):
    x, labels = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 4
    defaults = {"alpha": 2.0, "beta": 50.0, "la": 0.5, "epsilon": 0.1}
    value = create_loss("multi_similarity", 4, 4, **options)(x, labels)
    assert value.item() == pytest.approx(reference(x, labels, **{**defaults, **options}), abs=1e-9)
