"""Calls at which the host waits for a GPU are seen on a machine without one, and no others."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from dmlbench.conformance.waits import NoHost, NoReading, Waits

ROWS = torch.tensor([2, 0, 1, 1])


def watched(call):
    """Call with a tensor (4, 5) that needs a gradient, and go backward from the result."""
    tensor = torch.rand(4, 5, requires_grad=True)
    with NoReading(), NoHost():
        result = call(tensor)
        if isinstance(result, torch.Tensor) and result.requires_grad:
            result.sum().backward()


class ReadsBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor):
        return tensor * 2

    @staticmethod
    def backward(context, gradient):
        return gradient * gradient.sum().item()


WAITS = {
    "item": lambda x: x.sum().item(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "bool": lambda x: bool(x.any()),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().numpy(),
    "to cpu": lambda x: x.to("cpu"),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "bincount": lambda x: torch.bincount(ROWS),
    "repeat_interleave": lambda x: x.repeat_interleave(ROWS, 0),
    "equal": lambda x: torch.equal(x, x),
    "mask written": lambda x: x.detach().index_put_((x > 0,), x.detach()[0, 0]),
    "multinomial": lambda x: torch.multinomial(x, 2),
    "inverse": lambda x: torch.linalg.inv(x[:, :4]),
    "list of rows": lambda x: x[[0, 1]],
    "tensor of numbers": lambda x: torch.tensor([1.0, 2.0]),
    "number on a device": lambda x: torch.tensor(1.0, device=x.device),
    "new_tensor": lambda x: x.new_tensor(1.0),
    "read in backward": ReadsBackward.apply,
    "gather": lambda x: x.gather(1, ROWS[:, None]),
    "take_along_dim": lambda x: x.take_along_dim(ROWS[:, None], 1),
    "topk": lambda x: x.topk(2).values,
    "sort": lambda x: x.sort(dim=1).values,
    "max of a dimension": lambda x: x.max(dim=1).values,
    "median": lambda x: x.median(dim=1).values,
    "cummax": lambda x: x.cummax(dim=1).values,
    "scatter_add": lambda x: torch.zeros(4, 5).scatter_add(1, ROWS[:, None], x),
}
GOES_ON = {
    "rows and columns": lambda x: x[torch.arange(4), ROWS],
    "index_select": lambda x: x.index_select(0, ROWS),
    "index_add": lambda x: torch.zeros(4, 5).index_add(0, ROWS, x),
    "gather without a gradient": lambda x: x.detach().gather(1, ROWS[:, None]),
    "topk without a gradient": lambda x: x.detach().topk(2).indices,
    "scatter of a number": lambda x: x.detach().scatter(1, ROWS[:, None], 1.0),
    "scatter in one dimension": lambda x: torch.zeros(5).scatter_add(0, ROWS, x[:, 0]),
    "amax": lambda x: x.amax(dim=1),
    "max of all": lambda x: x.max(),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "number under a mask": lambda x: x.detach().__setitem__(x > 0, 0.0),
    "where": lambda x: torch.where(x > 0, 1, x),
    "cross entropy": lambda x: functional.cross_entropy(x, ROWS),
    "pooling": lambda x: functional.adaptive_avg_pool2d(x[None], 1),
    "number of the CPU": lambda x: x * torch.tensor(2.0),
    "made on the device": lambda x: x * torch.arange(5, device=x.device),
    "another type": lambda x: x.to(torch.bfloat16),
}


@pytest.mark.parametrize("name", WAITS)
def test_calls_that_wait_for_the_gpu_are_detected(name):
    with pytest.raises(Waits):
        watched(WAITS[name])


@pytest.mark.parametrize("name", GOES_ON)
def test_calls_that_do_not_wait_pass(name):
    watched(GOES_ON[name])


COPIES = {
    "from the CPU": lambda x: torch.arange(5).to(x.device) + x,
    "to the CPU": lambda x: x.cpu(),
    "to the CPU later": lambda x: x.to("cpu", non_blocking=True),
    "from numbers": lambda x: torch.tensor(1.0, device=x.device) + x,
    "into a tensor": lambda x: x.copy_(torch.zeros(4, 5)),
    "rows of the CPU": lambda x: x[torch.arange(2)],
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_to_and_from_a_gpu_that_is_not_there_are_detected(name):
    reports = []
    with FakeTensorMode():
        tensor = torch.empty(4, 5, device="cuda")
        with NoHost(reports.append):
            COPIES[name](tensor)
    assert reports


def test_a_copy_to_a_gpu_that_need_not_end_at_once_does_not_wait():
    with FakeTensorMode(), NoHost():
        torch.arange(5).to("cuda", non_blocking=True)
        torch.empty(4, 5, device="cuda").bfloat16().fill_(torch.tensor(2.0))
