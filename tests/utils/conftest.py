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
