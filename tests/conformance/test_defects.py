"""A loss with one defect fails the check of that defect alone, and the message explains it."""

import re

import pytest

from dmlbench.conformance import kit
from dmlbench.conformance.declaration import DECLARABLE
from dmlbench.conformance.subject import find_loss
from tests.conformance.faults import TEN

FORWARD = """\
    def forward(self, embeddings, labels):
        {}

    def compute("""

# Defect: a text of the good loss, what replaces it, the checks that then fail, their message
DEFECTS = {
    "no header": ("Differs: nothing.", "Nothing differs.", {"header"}, "last a paragraph 'Differs"),
    "an option without annotation": (
        "weight: float = 1.0",
        "weight=1.0",
        {"options"},
        "'weight': it has no annotation",
    ),
    "an option before the star": (
        "Tensor | None = None, *",
        "Tensor | None = None, sharpness: float = 1.0, *",
        {"options"},
        "sharpness: before the star",
    ),
    "a third argument that is not the parents": (
        "parents: Tensor | None = None, *",
        "sharpness: float | None = None, *",
        {"options"},
        "The third is 'sharpness'",
    ),
    "a declaration for a check that allows none": (
        "class Made(Loss):",
        "class Made(Loss):\n    BY_DESIGN = {'precision': 'so'}",
        {"options"},
        "what may be declared is",
    ),
    "a search space of an unknown option": (
        'SEARCH_SPACE = {"temperature"',
        'SEARCH_SPACE = {"temprature"',
        {"search_space"},
        "is no option; those are temperature, weight",
    ),
    "a search space out of bounds": (
        '"low": 0.01',
        '"low": 0.0',
        {"search_space"},
        "must be above 0",
    ),
    "a search space upside down": (
        '"low": 0.01',
        '"low": 2.0',
        {"search_space"},
        "is not below high",
    ),
    "a search space that is not literal": (
        '{"low": 0.01',
        '{"low": float("0.01")',
        {"search_space"},
        "not literal",
    ),
    "a detached factor": (
        "unit @ unit.T",
        "unit @ unit.detach().T",
        {"gradient"},
        r"detaches \(1\) held fixed, both agree",
    ),
    "a wrong backward": ("+ extra", "+ _Wrong.apply(pull)", {"gradient"}, "autograd says"),
    "arithmetic in bfloat16": (
        "    def compute(",
        FORWARD.format(
            "with torch.autocast('cpu', enabled=False): return self.compute(embeddings, labels)"
        ),
        {"precision"},
        "of the same numbers in float32",
    ),
    "one value an image": (
        "+ extra",
        "+ torch.zeros(len(labels), dtype=unit.dtype)",
        {"call"},
        r"shape \(20,\), a loss is one number\. .*\.mean\(\)",
    ),
    "one number in brackets": ("+ extra", "+ torch.zeros(1)", {"call"}, r"shape \(1,\)"),
    "a number of Python": (
        "        return scale *",
        "        return 1.0\n        return scale *",
        {"call"},
        "returned a float, a loss is a tensor of one number",
    ),
    "a value that is nan": ("+ extra", "+ torch.nan", {"call"}, "returned nan"),
    "a value without a gradient": (
        "unit_length(embeddings)",
        "unit_length(embeddings.detach())\n        self.proxies.requires_grad_(False)",
        {"call"},
        r"has no gradient\. .* detach\(\)",
    ),
    "proxies of one dtype": (
        "self.proxies.to(unit.dtype)",
        "self.proxies",
        {"call"},
        r"float64 embeddings .* RuntimeError: .*made.py:\d+: logits = .* "
        r"`self.proxies.to\(embeddings.dtype\)`",
    ),
    "it raises": ("extra = 0", "extra = 1 / 0", {"call"}, r"float32 .* ZeroDivision.*made.py:37"),
    "autocast left on": (
        "    def compute(",
        FORWARD.format(
            "return self.compute(embeddings.to(torch.promote_types(torch.float32, "
            "embeddings.dtype)), labels)"
        ),
        {"autocast"},
        r"torch.autocast\('cpu'",
    ),
    "NaN left out": (
        "unit_length(embeddings)",
        "unit_length(torch.nan_to_num(embeddings))",
        {"divergence"},
        "all entries are nan",
    ),
    "a mean over no positives": (
        "positive.sum().clamp(min=1)",
        "positive.sum()",
        {"no_positives"},
        "The value is nan",
    ),
    "a mean over no negatives": (
        "extra = 0",
        "extra = (cosine * negative).sum() / negative.sum()",
        {"one_class"},
        "20 embeddings of one class",
    ),
    "a bare root": (
        "pull = ((1 - cosine) * positive).sum() / positive.sum().clamp(min=1)",
        "pull = ((unit[:, None] - unit).square().sum(dim=2) * positive).mean()\n"
        "        pull = (pull + (positive.sum() == 0)).sqrt()",
        {"duplicates", "one_point"},
        "its gradient is no number in 20 of 20 rows",
    ),
    "a bare deviation": (
        "extra = 0",
        "extra = unit.var(dim=0, unbiased=False).sum().sqrt()",
        {"one_point"},
        "20 times the same embedding",
    ),
    "a bare length": (
        "unit_length(embeddings)",
        "embeddings / embeddings.norm(dim=1, keepdim=True)",
        {"zero_vectors"},
        "every other embedding is 0",
    ),
    "pairs by place": (
        "extra = 0",
        "extra = cosine.diagonal(1).mean()",
        {"order"},
        "in the other order",
    ),
    "arithmetic with labels": (
        "extra = 0",
        "extra = pull * labels.double().mean().to(unit.dtype)",
        {"numbering", "growth"},
        "by the other numbers",
    ),
    "a penalty of lengths": (
        "extra = 0",
        "extra = 0.01 * embeddings.square().mean()",
        {"length"},
        "Each embedding was made longer",
    ),
    "a parameter that is not used": (
        "self.weight = weight",
        "self.weight = weight; self.bias = nn.Parameter(torch.zeros(1))",
        {"moves"},
        "'bias' has no gradient",
    ),
    "a parameter out of groups": (
        "list(self.parameters())",
        "[]",
        {"param_groups"},
        "'proxies' is in 0 groups",
    ),
    "a parameter in two groups": (
        "list(self.parameters())",
        "2 * list(self.parameters())",
        {"param_groups"},
        "'proxies' is in 2 groups",
    ),
    "a learning rate that ignores the recipe": (
        '"lr": lr',
        '"lr": 0.01',
        {"param_groups"},
        "is not 2",
    ),
    "a parameter that is replaced": (
        "        return ()",
        "        self.proxies = nn.Parameter(self.proxies.clone())\n        return ()",
        {"refresh"},
        "'proxies' is another object",
    ),
    "a parameter that is set and not returned": (
        "        return ()",
        "        self.proxies.mul_(1.01)\n        return ()",
        {"refresh"},
        "has new values, and was not returned",
    ),
    "a tensor that stays behind": (
        "self.weight = weight",
        "self.weight = weight; self.axis = torch.ones(embedding_dim)",
        {"device"},
        r"self\.axis is a plain tensor",
    ),
    "a state that is lost": (
        'self.register_buffer("epoch", torch.tensor(0))',
        "self.epoch = 0",
        {"state"},
        r"Not kept, it seems: self\.epoch",
    ),
    "a statistic that is a tensor": (
        "    def param_groups(",
        "    def statistics(self):\n        return {'n': self.epoch}\n\n    def param_groups(",
        {"statistics"},
        r"'n' is tensor\(0\), of type Tensor",
    ),
    "an artefact that is a tensor": (
        "    def param_groups(",
        "    def artefact(self):\n        return {'n': self.epoch}\n\n    def param_groups(",
        {"statistics"},
        "Object of type Tensor is not JSON serializable",
    ),
    "statistics that count": (
        "    def param_groups(",
        "    def statistics(self):\n        self.epoch += 1\n        return {}\n\n"
        "    def param_groups(",
        {"statistics"},
        "'epoch' of its state is different",
    ),
    "the same batches in every epoch": (
        "default_rng([seed, epoch])",
        "default_rng([seed])",
        {"batches"},
        "another epoch",
    ),
    "batches of another shape": (
        "size=(steps, batch_size)",
        "size=(steps, batch_size - 1)",
        {"batches"},
        r"shape \(3, 15\)",
    ),
    "draws from the model's generator": (
        "random = np.random",
        "torch.rand(1)\n        random = np.random",
        {"batches"},
        "global generator",
    ),
    "a value that the host needs": (
        "self.epoch\n",
        "self.epoch.item()\n",
        {"host"},
        r"made.py:\d+: scale = 1 \+ 0\.1 \* self\.epoch\.item\(\)",
    ),
    "a choice by a mask": (
        "((1 - cosine) * positive).sum()",
        "(1 - cosine)[positive].sum()",
        {"host"},
        "indexing by a mask",
    ),
    "a break of the graph": (
        "extra = 0",
        "extra = 0; torch._dynamo.graph_break()",
        {"compile"},
        "made.py",
    ),
    "the wrong sign": ("self.weight * pull", "-50 * pull", {"learns"}, "it should reach 70%"),
    "labels that are not used": (
        "        return scale *",
        "        return embeddings.pow(2).mean() + 0 * scale *",
        {"length", "moves", "learns"},
        "it should reach 70%",
    ),
}
WARNINGS = {"header", "host", "compile"}  # the checks that only warn about a user's loss


def test_a_good_loss_passes_all_checks(write_loss, failures):
    assert failures(write_loss()) == {}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_by_its_check_alone_and_explained(defect, write_loss, failures):
    old, new, checks, message = DEFECTS[defect]
    results = failures(write_loss(old, new))
    assert results.keys() == checks, "\n".join(map(str, results.values()))
    for name, result in results.items():
        assert result.verdict == ("warning" if name in WARNINGS else "FAILED")
        assert {"Did", "Saw", "Why", "Fix"} <= result.lesson.keys()
    text = " ".join(" ".join(str(result).split()) for result in results.values())
    assert re.search(message, text), text


def test_every_check_has_a_defect_that_it_finds():
    covered = set().union(*(checks for _, _, checks, _ in DEFECTS.values()))
    covered |= {name for name, *_ in TEN.values()}
    assert covered == {check.name for check in kit.CHECKS}


def test_the_declarable_checks_are_those_that_a_loss_may_declare():
    assert set(DECLARABLE) == {check.name for check in kit.CHECKS if check.declarable}


def test_a_detached_part_can_be_declared_and_a_wrong_gradient_cannot(write_loss, failures):
    declaration = "    BY_DESIGN = {'gradient': 'one side learns'}\n    def param_groups("
    for defect in ("a detached factor", "a wrong backward"):
        subject = write_loss(*DEFECTS[defect][:2])
        text = subject.path.read_text().replace("    def param_groups(", declaration)
        subject.path.write_text(text)
        (result,) = failures(find_loss(str(subject.path), {})).values()
        if "detached" in defect:
            assert str(result).split() == ["declared", "gradient", "one", "side", "learns"]
        else:
            assert result.verdict == "FAILED"
            assert "Or" not in result.lesson


def test_a_loss_of_the_library_gets_warnings_and_no_failures():
    subject = find_loss("pml.NPairsLoss", {})
    verdicts = {check.name: check(subject).verdict for check in kit.CHECKS}
    assert verdicts["order"] == "warning"
    assert verdicts["header"] == verdicts["host"] == "-"
    assert "FAILED" not in verdicts.values()


def test_the_line_at_which_a_loss_raises_is_shown(write_loss, failures):
    results = failures(write_loss("extra = 0", "extra = 0 if len(labels) > 7 else labels[99]"))
    assert results.keys() == {"no_positives"}
    assert "IndexError" in results["no_positives"].lesson["Saw"]
    assert "made.py:37: extra = 0 if" in results["no_positives"].lesson["Saw"]
