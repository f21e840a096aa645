"""A job that trains: its lock, GPU, signals and attempts, and a result in every case.

Exit codes: 0, the result is written (a failure is a result too, with its status); 75, the job was
stopped with its state saved, and must be started again.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dmlbench.study.result_shape import SETTLED
from dmlbench.training.process import begin_log, keep_frames, keep_freed_memory, keep_kernels
from dmlbench.training.provenance import device_facts, measurements, provenance, utc_now
from dmlbench.training.run_state import WAITED, Attempts, hold_state, more_time
from dmlbench.training.time_limit import (
    Stopped,
    StopRequests,
    TimeLimit,
    read_time_limit,
    stop_requests,
    timings,
)
from dmlbench.utils.device import choose_device
from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import NoFreeGpu, UnusableGpu, failure_result, is_gpu_error
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.mps import uses_mps
from dmlbench.utils.startup import heavy_imports
from dmlbench.utils.text import format_duration

if TYPE_CHECKING:
    import torch

    from dmlbench.study.settings import Recipe

TRY_AGAIN = 75
"""EX_TEMPFAIL of the system's sysexits.h."""
MAX_WAIT_SHARE, MAX_WAIT = 0.5, 2.0
"""A time limit that is over is no fault of an attempt that waited for more than this share of it,
and for more than these seconds, which it takes to look for a GPU."""


class Output(Protocol):
    """What a job has computed; a failed one may have a part of it."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row for each epoch that was trained."""


AnyOutput = TypeVar("AnyOutput", bound=Output)


class ResumableJob(ABC, Generic[AnyOutput]):
    """What a job does; `run_job` runs it.

    Args:
        name: of its run in the study.
        key: of its result.
        state: the folder of what it needs to continue.
        folder: the folder of its result.
        log: the file that its output goes to.
        uses_gpu: whether it computes on a GPU, if there is one.
        runs_per_gpu: the jobs that may share a GPU.
    """

    def __init__(
        self,
        name: str,
        key: str,
        state: Path,
        folder: Path,
        log: Path,
        uses_gpu: bool,
        runs_per_gpu: int,
    ) -> None:
        self.name = name
        self.key = key
        self.state = state
        self.folder = folder
        self.log = log
        self.uses_gpu = uses_gpu
        self.runs_per_gpu = runs_per_gpu

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether the result is there, under its key and whole."""

    @abstractmethod
    def begin(self) -> None:
        """Remove what is left of the result that is replaced now."""

    @abstractmethod
    def compute(self, stop: StopRequests, origin: dict[str, Any]) -> AnyOutput:
        """Compute the output, or continue; `origin` notes the device.

        Raises:
            Stopped: `stop` gave a reason.
            Exception: the job has failed; `history` of the error, if it has one, are the epochs
                before.
        """

    @abstractmethod
    def failed(self, history: list[dict[str, Any]]) -> AnyOutput:
        """The output of a job that failed after the epochs of `history`."""

    @abstractmethod
    def write(
        self, result: Mapping[str, Any], output: AnyOutput, origin: Mapping[str, Any]
    ) -> None:
        """Write the result: its "status" and "error", what was computed, and where."""


@contextlib.contextmanager
def training_imports(recipe: Recipe, stores: Path) -> Iterator[None]:
    """In this block a job imports torch; compiled kernels are kept beside the folder `stores`."""
    if recipe.gpu_compile:
        keep_kernels(stores.parent / "compiled")
    with heavy_imports():
        yield


def open_device(recipe: Recipe, uses_model: bool, origin: dict[str, Any]) -> torch.device:
    """The device that a job computes on, which `origin` notes: a GPU, if there is one and a model
    uses it."""
    import torch

    keep_freed_memory()
    device = choose_device(recipe.gpu_precision) if uses_model else torch.device("cpu")
    origin |= device_facts(device)  # now, as a GPU that has failed answers nothing
    return device


def run_job(job: ResumableJob[AnyOutput], max_minutes: float | None) -> int:
    """Run `job`, or continue it, and write its result.

    Args:
        max_minutes: time limit of this job; None: no limit.

    Returns:
        The exit code.
    """
    limit = read_time_limit(max_minutes)
    with hold_state(job.state):
        if job.is_finished():
            print(f"{job.name}: finished under this key already")
            shutil.rmtree(job.state, ignore_errors=True)
            return 0
        begin_log(job.log, job.key)
        job.begin()
        attempts = Attempts(job.state, job.key)
        started, origin = time.monotonic(), provenance()
        output = job.failed([])

        def write(result: Mapping[str, Any]) -> None:
            seconds = round(time.monotonic() - started, 3)
            times = {"finished": utc_now(), "wall_seconds": seconds}
            # without a device, nothing was trained: it was refused, or failed before
            measured = measurements(output.history) if "device" in origin else {}
            job.write(result, output, origin | measured | times)

        with stop_requests(limit) as stop:  # also while results are written
            try:
                result = attempts.failure()
                if not result:
                    output = _attempt(job, stop, attempts, origin)
                    result = {"status": "ok", "error": None}
                write(result)
            except Stopped as stopped:
                print(f"{stopped}; the time limit of this job: {limit}", flush=True)
                attempts.end(*_how_it_ended(stopped, limit))
                return TRY_AGAIN
            except NoFreeGpu as error:
                print(f"{error}; the time limit of this job: {limit}", flush=True)
                attempts.end(WAITED, str(error))
                return TRY_AGAIN
            except UnusableGpu as error:  # the GPU of another node may work
                print(error, flush=True)
                attempts.end(error.status, str(error))
                return TRY_AGAIN
            except Exception as error:
                if is_gpu_error(error):
                    keep_frames(error)
                attempts.forget()  # before the result: maybe it cannot be written
                problem = disk_error(error, job.folder)
                print(problem or traceback.format_exc(), file=sys.stderr, flush=True)
                result = failure_result(problem or error)
                output = job.failed(getattr(error, "history", []))
                write(result)
        if result["status"] in SETTLED:
            shutil.rmtree(job.state, ignore_errors=True)
        else:  # keep the checkpoint for the next time that the job is started
            attempts.forget()
        print(f"{job.name}: {result['status']}")
    return 0


def _attempt(
    job: ResumableJob[AnyOutput], stop: StopRequests, attempts: Attempts, origin: dict[str, Any]
) -> AnyOutput:
    """Compute on a GPU of this machine, if it has any; `origin` notes which, and how it is
    shared."""
    began = time.monotonic()
    leased = (
        lease_gpu(job.runs_per_gpu, lambda: stop.reason)
        if job.uses_gpu
        else contextlib.nullcontext()
    )
    with leased as place:
        timings.wait = time.monotonic() - began
        if place:
            origin |= {"runs_per_gpu": place.runs, "mps": uses_mps()}
        attempts.begin(stop.limit)
        with stop.ending_at_once():
            return job.compute(stop, origin)


def _how_it_ended(stopped: Stopped, limit: TimeLimit) -> tuple[str, str]:
    """How an attempt ended that was stopped, and why it may have come nowhere, if it did."""
    if stopped.reason != "timeout":
        return stopped.reason, str(stopped)
    if timings.wait > max(MAX_WAIT, MAX_WAIT_SHARE * limit.seconds):
        waited = f"it waited {format_duration(timings.wait)} for a GPU"
        return WAITED, f"{waited}, and then its time limit of {limit} was over"
    if timings.start is None:
        why = f"its time limit of {limit} was over before its first step. {more_time({})}"
        return stopped.reason, why
    return stopped.reason, f"its time limit of {limit} was over. {more_time(asdict(timings))}"
