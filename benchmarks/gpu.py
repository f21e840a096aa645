"""All checks and benchmarks of a GPU machine, by one command of less than 8 minutes.

First come the checks of the code for GPUs (smoke.py), then the benchmarks of training, losses and
evaluation. Each part is a process with a time limit; if it fails, the other parts still run. The
exit code is 1 if a part failed.

    python benchmarks/gpu.py                  # tables to benchmarks/results/*-<name of the GPU>.md
    python benchmarks/gpu.py --device cpu     # the same in miniature, on a machine without a GPU

The machine needs torch, torchvision and timm, with what those need. It needs no network, no data,
no installation of dmlbench and none of its other requirements. pytorch-metric-learning is measured
too if it is installed, or if PYTHONPATH names a folder with its package.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MINUTES = 7.75
MAX_ERROR_LINES = 12
"""Last lines of the errors of a failed part that are shown."""
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""It is unset for the parts: without bytecode, each process compiles the thousand files of torch
again, which takes 20 s."""


class Part(NamedTuple):
    """A script with its options."""

    name: str
    command: str
    limit: float
    """Seconds after which it is stopped, if all parts together have MINUTES."""
    miniature: str | None = ""
    """Further options on a CPU; None: it does not run there."""
    results: str = ""
    """Name of its file of results; "": it has none."""


PARTS = (
    Part("machine", "smoke.py about", 40),
    Part("torch-then-faiss", "smoke.py torch_then_faiss", 20),
    Part("faiss-then-torch", "smoke.py faiss_then_torch", 20),
    Part("prefetched-batches", "smoke.py same_batches", 20),
    Part("embeddings-as-on-a-cpu", "smoke.py same_embeddings", 20),
    Part("same-seed-same-bits", "smoke.py same_bits", 35),
    Part("resumed-same-bits", "smoke.py resumed", 35),
    Part("steps-that-wait", "smoke.py no_waits", 25),
    Part("ranks-as-by-sorting", "smoke.py same_ranks", 20),
    Part("clusters-as-on-a-cpu", "smoke.py same_clusters", 20),
    Part(
        "training",
        "training.py --seconds 80",
        125,
        "--seconds 1 --images 1120 --window 2",
        "training",
    ),
    Part("losses", "losses.py --classes 11318 98", 40, "--classes 98 --rounds 2", "losses"),
    Part("evaluation", "evaluation.py --size sop", 40, None, "evaluation"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--out", type=Path, help="folder of the tables; for a CPU: a temporary one")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=names, help=f"some of: {', '.join(names)}"
    )
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    out = options.out or (HERE / "results" if on_gpu else Path(tempfile.mkdtemp()))
    out.mkdir(parents=True, exist_ok=True)
    first, *parts = [p for p in PARTS if on_gpu or p.miniature is not None]
    slower = options.minutes / MINUTES
    output, failure, seconds = run(first, options.device, slower)
    print(output, flush=True)
    if failure:
        other = "; --device cpu runs it in miniature" if on_gpu else ""
        raise SystemExit(f"torch can use no {options.device} here: {failure}{other}")
    if missing := {*(options.only or ())} - {part.name for part in (first, *parts)}:
        raise SystemExit(f"--device {options.device} has no part {', '.join(missing)}")
    device = re.sub(r"\W+", "-", output.splitlines()[-1]).lower()  # its name
    rows = [f"| {first.name} | ok | {seconds:.0f} | |"]
    failed = 0
    for part in parts:
        if options.only and part.name not in options.only:
            continue
        print(f"\n{part.name}:", flush=True)
        output, failure, seconds = run(part, options.device, slower)
        print(output, flush=True)
        failed += bool(failure)
        last_line = "" if part.results else (output.splitlines() or [""])[-1]
        remark = f"**{failure}**" if failure else last_line
        rows.append(f"| {part.name} | {'FAILED' if failure else 'ok'} | {seconds:.0f} | {remark} |")
        if part.results and output:
            stopped = f"\nIncomplete: {failure}.\n" if failure else ""
            path = out / f"{part.results}-{device}.md"
            path.write_text(output + stopped)
    summary = "\n".join(["| part | | seconds | |", "| --- | --- | ---: | --- |", *rows])
    (out / f"gpu-{device}.md").write_text(f"{summary}\n")
    print(f"\n{summary}\n\nThe tables are in {out}")
    raise SystemExit(1 if failed else 0)


def run(part: Part, device: str, slower: float) -> tuple[str, str, float]:
    """Run `part`; return its output, the failure ("" if there is none) and its seconds.

    Args:
        slower: factor of the limit of the part.
    """
    script, *arguments = part.command.split()
    arguments += (part.miniature or "").split() if device == "cpu" else []
    command = [sys.executable, str(HERE / script), *arguments, "--device", device]
    environment = {name: os.environ[name] for name in os.environ.keys() - {NO_BYTECODE}}
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    limit, start = part.limit * slower, time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # end the workers too that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        output, errors = out.read(), err.read().splitlines()
    seconds = time.monotonic() - start
    if code == 0:
        return output, "", seconds
    print("\n".join(errors[-MAX_ERROR_LINES:]), file=sys.stderr, flush=True)
    if code is None:
        return output, f"stopped after {limit:.0f} s", seconds
    return output, errors[-1] if errors else f"it ended with {code}", seconds


if __name__ == "__main__":
    main()
