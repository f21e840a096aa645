"""All checks and benchmarks of a GPU machine, by one command of less than 8 minutes.

First come the checks of what was never run on a GPU, then the measurements, in the order of what
would be lost if the time ran out. Each part is a process with a time limit; if it fails, the other
parts still run. The exit code is 1 if a part failed.

    python benchmarks/gpu.py                  # the page benchmarks/results/gpu-<name of the GPU>.md
    python benchmarks/gpu.py --device cpu     # the same in miniature, on a machine without a GPU

The machine needs torch, torchvision and timm, with what those need. It needs no network, no data,
no installation of dmlbench and none of its other requirements. faiss and pytorch-metric-learning
are measured too if they are installed, or if PYTHONPATH names a folder with them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MINUTES = 7.75
SLOWER_CPU = 4
"""Factor of all limits on a CPU, where other programs may run."""
MAX_ERROR_LINES = 12
"""Last lines of the errors of a failed part that are shown."""
LEAST_SECONDS = 15
"""The first part has so many after torch is imported, however long that took."""
ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}
PRELOADED = ["preload"]
"""The modules that the server of processes imports."""


class Part(NamedTuple):
    """A script with its options."""

    name: str
    limit: float
    """Seconds after which it is stopped, if all parts together have MINUTES."""
    command: str
    miniature: str | None = ""
    """Further options on a CPU; None: it does not run there."""


PARTS = (
    Part("machine", 90, "smoke machine"),  # with the imports, which come from a cold disk
    Part("three-steps", 40, "models steps"),
    Part("same-bits", 50, "models bits"),
    Part("batches-ahead", 15, "smoke batches_ahead"),
    Part("ranks-and-clusters", 15, "search ranks clusters"),
    Part("torch-then-faiss", 10, "search torch_then_faiss"),
    Part("faiss-then-torch", 10, "search faiss_then_torch"),
    Part("faiss-beside-torch", 20, "search faiss_beside_torch"),
    Part("losses", 40, "losses --classes 98 11318", "--classes 98 --rounds 1"),
    Part("resident-batch", 75, "resident kernels"),
    Part(
        "training",
        55,
        "training --batch-norm frozen --window 40 --seconds 25",
        "--images 1120 --window 2 --rounds 1",
    ),
    Part("evaluation", 30, "evaluation --size sop", "--size tiny --device cpu:0"),
    Part("two-runs", 15, "resident two_runs"),
)


class Outcome(NamedTuple):
    """What became of a part."""

    output: str
    failure: str
    """Empty if there is none."""
    errors: str
    """Its last lines of errors, if it failed."""
    is_stopped: bool
    """Whether it reached its limit."""
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--out", type=Path, help="folder of the page; for a CPU: a temporary one")
    parser.add_argument("--minutes", type=float, help="for all parts together")
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=names, help=f"some of: {', '.join(names)}"
    )
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    out = options.out or (HERE / "results" if on_gpu else Path(tempfile.mkdtemp()))
    out.mkdir(parents=True, exist_ok=True)
    prepare_environment(options.device)
    slower = options.minutes / MINUTES if options.minutes else 1 if on_gpu else SLOWER_CPU
    first, *others = PARTS
    parts = [first, *(p for p in others if not options.only or p.name in options.only)]
    outcomes: dict[str, Outcome] = {}
    path = Path()
    with held_gpu(on_gpu):
        for part in parts:
            print(f"\n{part.name}:", flush=True)
            outcome = outcomes[part.name] = run(part, options.device, slower)
            print(outcome.output, flush=True)
            print(outcome.errors, file=sys.stderr, flush=True)
            if part is first:
                described = re.search(r"^- device: (.+)$", outcome.output, re.M)
                name = described[1] if described else options.device
                file_name = re.sub(r"\W+", "-", name).strip("-").lower()
                path = out / f"gpu-{file_name}.md"
            path.write_text(page(name, parts, outcomes))  # each time, as a call may be killed
            if part is first and outcome.failure and not outcome.is_stopped:
                other = "; --device cpu runs it in miniature" if on_gpu else ""
                reason = f"{outcome.failure}{other}"
                raise SystemExit(f"torch can use no {options.device} here: {reason}")
    print(f"\n{summary(parts, outcomes)}\n\nThe page is {path}")
    raise SystemExit(any(outcome.failure for outcome in outcomes.values()))


def summary(parts: Iterable[Part], outcomes: dict[str, Outcome]) -> str:
    """The table of all parts, with the last line of each that is ok."""
    rows = ["| part | | seconds | limit | |", "| --- | --- | ---: | ---: | --- |"]
    for part in parts:
        if outcome := outcomes.get(part.name):
            last_line = (outcome.output.splitlines() or [""])[-1]
            own_remark = "" if last_line.startswith("|") else last_line  # no row of a table
            remark = f"**{outcome.failure}**" if outcome.failure else own_remark
            status = "FAILED" if outcome.failure else "ok"
            cells = [status, f"{outcome.seconds:.0f}", f"{part.limit:g}", remark.replace("|", "/")]
        else:
            cells = ["not run", "", f"{part.limit:g}", ""]
        rows.append(f"| {part.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def page(name: str, parts: Iterable[Part], outcomes: dict[str, Outcome]) -> str:
    """The report, as Markdown: the summary, then what each part printed."""
    sections = [
        f"# {name}",
        "`python benchmarks/gpu.py` wrote this page.",
        summary(parts, outcomes),
    ]
    for part_name, outcome in outcomes.items():
        sections += [f"## {part_name}", outcome.output.strip()]
        if outcome.failure:
            sections += [f"**Failed: {outcome.failure}**", f"```text\n{outcome.errors}\n```"]
    return "\n\n".join(filter(None, sections)) + "\n"


def prepare_environment(device: str) -> None:
    """Set what the processes of the parts read when they start."""
    folders = [str(HERE), str(HERE.parent)]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    os.environ |= ENVIRONMENT
    if device == "cpu":  # the miniature shall run beside other work
        os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    multiprocessing.set_forkserver_preload(PRELOADED)


@contextlib.contextmanager
def held_gpu(on_gpu: bool) -> Iterator[None]:
    """Hold one GPU for all parts, as each training of the workflow does."""
    if not on_gpu:
        yield
        return
    from dmlbench.utils.errors import UserError
    from dmlbench.utils.gpu_lease import lease_gpu

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lease_gpu())
        except UserError as error:
            raise SystemExit(str(error)) from None
        yield


def run(part: Part, device: str, slower: float) -> Outcome:
    """Run `part` in a process that has torch already.

    Args:
        slower: factor of the limit of the part.
    """
    module, *arguments = [*part.command.split(), "--device", device]
    arguments += (part.miniature or "").split() if device == "cpu" else []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, "out"), Path(folder, "err")]
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=work, args=(module, arguments, streams))
        process.start()  # the first one waits until the server has imported torch
        waited = time.monotonic() - begin
        try:
            process.join(max(part.limit - waited / slower, min(part.limit, LEAST_SECONDS)) * slower)
            code = process.exitcode
        finally:  # end the processes too that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # it may not have become the leader of a group yet
            process.join()
        output, errors = (path.read_text() if path.exists() else "" for path in streams)
    seconds = time.monotonic() - begin
    if code == 0:
        return Outcome(output, "", "", False, seconds)
    lines = errors.splitlines()[-MAX_ERROR_LINES:]
    if code is None:
        failure = f"stopped after {seconds:.0f} s"
    else:
        failure = lines[-1] if code > 0 and lines else f"it ended with {code}"
    return Outcome(output, failure, "\n".join(lines), code is None, seconds)


def work(module: str, arguments: Sequence[str], streams: Sequence[Path]) -> None:
    """Call the command `module` in this process, which writes to the files `streams`."""
    os.setsid()
    for descriptor, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # what was printed stays if it is stopped
    sys.argv = [f"{module}.py", *arguments]
    importlib.import_module(module).main()


if __name__ == "__main__":
    main()
