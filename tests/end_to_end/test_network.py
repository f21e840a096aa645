"""Nothing is sent anywhere: a study is made from images to MLflow without one connection."""

import os
import subprocess
import sys

import pytest

HOOK = """
import os, sys

def note(event, arguments):
    if event in {events}:
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if isinstance(address, (str, bytes)) and event == "socket.connect":
            return  # a socket of this machine's file system
        with open({log!r}, "a") as log:
            log.write(f"{{event}} {{address!r}} by {{sys.argv}}\\n")

sys.addaudithook(note)
with open({log!r}, "a"):
    pass
"""
EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


@pytest.fixture
def connections(tmp_path):
    """Where to find the hook, and a function: what each Python process connected to."""
    log = tmp_path / "connections"
    folder = tmp_path / "hook"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(events=EVENTS, log=str(log)))
    return str(folder), lambda: log.read_text().splitlines()


def test_the_hook_notices_connections_and_questions_for_names(connections):
    hook, seen = connections
    code = (
        "import socket\n"
        "try: socket.create_connection(('127.0.0.1', 9), timeout=1)\n"
        "except OSError: pass"
    )
    environment = os.environ | {"PYTHONPATH": hook}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [line.split()[0] for line in seen()] == ["socket.getaddrinfo", "socket.connect"]


@pytest.mark.slow
def test_a_study_from_its_images_to_mlflow_opens_no_connection(
    project, tiny, connections, tmp_path
):
    hook, seen = connections
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI"):
        project.environment.pop(name, None)
    project.environment |= {"PYTHONPATH": hook, "DMLBENCH_DATA": str(tmp_path / "data")}
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
    project.write(tiny | {"tracking": True, "keep_model": True})
    project.run()
    assert (project.folder / "results/tiny/verdict.txt").is_file()
    assert (project.folder / "results/mlflow.db").is_file()
    for command in ("plan", "status", "leaderboard", "track"):
        subprocess.run(
            [sys.executable, "-m", "dmlbench", command, "study.yaml"],
            cwd=project.folder,
            env={**project.environment, "PYTHONPATH": f"{project.folder}:{hook}"},
            check=True,
        )
    assert seen() == []
