import shutil
import subprocess
from pathlib import Path

import pytest

OTHERS = ("3.12", "3.13", "3.14")


def interpreter(version):
    """A Python of this version on this machine, or None."""
    named = [
        shutil.which(f"python{version}"),
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
    ]
    for path in filter(None, named):
        run = subprocess.run([path, "--version"], capture_output=True, text=True)
        if run.returncode == 0 and run.stdout.startswith(f"Python {version}."):
            return str(path)
    return None


@pytest.fixture(params=OTHERS)
def other_python(request):
    """Another version of Python, where the machine has it."""
    path = interpreter(request.param)
    if path is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return path


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a made nvidia-smi at the front of PATH. The answer is the list of its calls so far.

    `cards` are rows of "uuid, compute mode, MIG mode, name"; `slices` are the lines of a card below
    its own in `nvidia-smi -L`, by its UUID.
    """
    tool, calls = tmp_path / "smi/nvidia-smi", tmp_path / "smi/calls"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    for variable in ("CUDA_VISIBLE_DEVICES", "DMLBENCH_GPUS", "DMLBENCH_LEASED_GPU"):
        monkeypatch.setenv(variable, "")  # so that it is as before after the test
        monkeypatch.delenv(variable)

    def install(*cards, slices=None, fails=""):
        rows = [f"{number}, {card}" for number, card in enumerate(cards)]
        listing = []
        for number, card in enumerate(cards):
            uuid, _, _, name = card.split(", ", 3)
            listing += [f"GPU {number}: {name} (UUID: {uuid})", *(slices or {}).get(uuid, ())]
        (tool.parent / "rows").write_text("".join(f"{row}\n" for row in rows))
        (tool.parent / "listing").write_text("".join(f"{line}\n" for line in listing))
        fail = f'echo "{fails}"; exit 9' if fails else ""
        tool.write_text(
            f'#!/bin/sh\ncd "{tool.parent}"\necho "$*" >> calls\n{fail}\n'
            "case $1 in\n-L) cat listing ;;\n"
            "--query-gpu=index,uuid,compute_mode,mig.mode.current,name) cat rows ;;\n"
            '*) echo "Field is not a valid field to query."; exit 2 ;;\nesac\n'
        )
        tool.chmod(0o755)
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return install
