"""All that is to be known of a GPU machine, by one command of under 8 minutes: first what was never
run on one (smoke.py), then the benchmarks of training, losses and evaluation. Each part is a
process of its own with a limit, and takes no other with it when it fails. Ends with 1 if one did.

    python benchmarks/gpu.py                  # tables to benchmarks/results/*-<name of the GPU>.md
    python benchmarks/gpu.py --device cpu     # the same in miniature, where there is no GPU

The machine needs torch, torchvision and timm with what those need; no network, no data, and neither
an installation of dmlbench nor its other requirements. pytorch-metric-learning is measured beside
us where it is, or where PYTHONPATH names a folder that holds its package.
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
LAST = 12
"""Lines that are shown of what a part that failed said."""


class Part(NamedTuple):
    """A script with its options, and seconds of MINUTES after which it is stopped."""

    name: str
    command: str
    limit: float
    miniature: str | None = ""
    """Its further options where there is no GPU; None: it does not run there."""
    results: str = ""
    """Of its file of results; without, there is none."""


PARTS = (
    Part("machine", "smoke.py about", 40),
    Part("torch-then-faiss", "smoke.py torch_then_faiss", 20),
    Part("faiss-then-torch", "smoke.py faiss_then_torch", 20),
    Part("batches-made-ahead", "smoke.py same_inputs", 20),
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
    parser.add_argument("--out", type=Path, help="folder of the tables; of a CPU: a temporary one")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=names, help=f"of: {', '.join(names)}"
    )
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    out = options.out or (HERE / "results" if on_gpu else Path(tempfile.mkdtemp()))
    out.mkdir(parents=True, exist_ok=True)
    first, *parts = [p for p in PARTS if on_gpu or p.miniature is not None]
    slower = options.minutes / MINUTES
    said, result, seconds = run(first, options.device, slower)
    print(said, flush=True)
    if result:
        other = "; --device cpu runs it in miniature" if on_gpu else ""
        raise SystemExit(f"no {options.device} to be used by torch here: {result}{other}")
    if missing := {*(options.only or ())} - {part.name for part in (first, *parts)}:
        raise SystemExit(f"on a {options.device} there is no {', '.join(missing)}")
    where = re.sub(r"\W+", "-", said.splitlines()[-1]).lower()  # the device's name
    rows = [f"| {first.name} | ok | {seconds:.0f} | |"]
    failed = 0
    for part in parts:
        if options.only and part.name not in options.only:
            continue
        print(f"\n{part.name}:", flush=True)
        said, result, seconds = run(part, options.device, slower)
        print(said, flush=True)
        failed += bool(result)
        told = "" if part.results else (said.splitlines() or [""])[-1]
        told = told if not result else f"**{result}**"
        rows.append(f"| {part.name} | {'FAILED' if result else 'ok'} | {seconds:.0f} | {told} |")
        if part.results and said:
            stopped = f"\nIncomplete: {result}.\n" if result else ""
            path = out / f"{part.results}-{where}.md"
            path.write_text(said + stopped)
    summary = "\n".join(["| part | | seconds | |", "| --- | --- | ---: | --- |", *rows])
    (out / f"gpu-{where}.md").write_text(f"{summary}\n")
    print(f"\n{summary}\n\nThe tables stand in {out}")
    raise SystemExit(1 if failed else 0)


def run(part: Part, device: str, slower: float) -> tuple[str, str, float]:
    """What it printed; what went wrong, or ""; and its seconds."""
    script, *given = part.command.split()
    given += (part.miniature or "").split() if device == "cpu" else []
    command = [sys.executable, str(HERE / script), *given, "--device", device]
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
        finally:  # with the workers that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        said, errors = out.read(), err.read().splitlines()
    seconds = time.monotonic() - start
    if code == 0:
        return said, "", seconds
    print("\n".join(errors[-LAST:]), file=sys.stderr, flush=True)
    if code is None:
        return said, f"stopped after {limit:.0f} s", seconds
    return said, errors[-1] if errors else f"it ended with {code}", seconds


NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""Without bytecode each process compiles torch's thousand files again, which takes 20 s."""


if __name__ == "__main__":
    main()
