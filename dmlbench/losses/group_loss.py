"""The Group Loss for Deep Metric Learning.

Elezi, Vascon, Torcinovich, Pelillo, Leal-Taixé; ECCV 2020; arXiv 1912.00385. A linear classifier
predicts class probabilities (beliefs) for each image. The beliefs about similar images refine them;
those about some images, the anchors, are their true class. The loss is the cross-entropy of the
refined beliefs and of the classifier.

Defaults: the authors' code (dvl-tum/group_loss) for CUB: temperature 24, 2 anchors per class, one
step; Cars has 79 and 3, SOP 54 and 2. Batches are 6 classes x 9 images, 5 x 7 and 10 x 6. A class
teaches nothing through refined beliefs if all its images in the batch are anchors.

Family: classification.

Differs: the authors first fine-tune the network as a classifier of the training classes; the recipe
has no such stage. So their classifier is trained already. It reads the pooled features, which are
also the embedding; here it reads the embedding of the backbone's head. As in their code, an image
is similar to itself, and the first images of a class in the batch are its anchors. An image that is
no anchor and has no similar image keeps its beliefs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, class_mask, unit_length

LEAST = {"anchors": 0, "steps": 0, "classifier_lr_factor": 0, "temperature": 1e-6}
MOST = {"steps": 100}
BELOW_IMAGES_PER_CLASS = ("anchors",)
SEARCH_SPACE = {
    "temperature": {"low": 1.0, "high": 100.0, "log": True},
    "classifier_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class GroupLoss(Loss):
    """-log of the refined belief in the true class + cross-entropy of the classifier, both means.

    Beliefs X (N, C) start as softmax(logits / `temperature`); those about the first `anchors`
    images of each class are one-hot. Each of the `steps` of replicator dynamics is X <- X * (W X);
    then each row is divided by its sum. Similarity W (N, N) is Pearson's correlation of two
    embeddings, or 0 where that is negative. The classifier takes embeddings at their own length.
    """

    BY_DESIGN: ClassVar = {
        "order": "the first images of a class are its anchors",
        "length": "the classifier reads embeddings at their own length, as the paper's does",
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 24.0,
        anchors: int = 2,
        steps: int = 1,
        classifier_lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.anchors = anchors
        self.steps = steps
        self.classifier_lr_factor = classifier_lr_factor
        self.classifier = nn.Linear(embedding_dim, num_classes)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        dtype = embeddings.dtype
        classifier = self.classifier
        logits = embeddings @ classifier.weight.to(dtype).T + classifier.bias.to(dtype)
        beliefs = (logits / self.temperature).softmax(dim=1)
        # The place of each image among those of its class: 1, 2, 3 ...
        nth = (labels[:, None] == labels).tril().sum(dim=1, keepdim=True)
        truth = class_mask(labels, logits.shape[1]).to(dtype)
        beliefs = torch.where(nth <= self.anchors, truth, beliefs)
        centred = unit_length(embeddings - embeddings.mean(dim=1, keepdim=True))
        similarity = (centred @ centred.T).relu()
        for _ in range(self.steps):
            support = beliefs * (similarity @ beliefs)
            total = support.sum(dim=1, keepdim=True)
            alone = total == 0
            beliefs = torch.where(alone, beliefs, support / torch.where(alone, 1, total))
        # Not `gather`: in older torch, its deterministic backward pass waits for the GPU
        refined = beliefs[torch.arange(len(labels), device=labels.device), labels]
        # The authors' 1e-12 keeps the gradient finite where a belief became 0
        return -(refined + 1e-12).log().mean() + functional.cross_entropy(logits, labels)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        parameters = list(self.classifier.parameters())
        return [{"params": parameters, "lr": lr * self.classifier_lr_factor}]
