"""Packing in real processes: killed, interrupted, and two at the same time."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

PROGRAM = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
from dmlbench.datasets import Row
from dmlbench.datasets.store import journal, pack

class Solid:
    def __init__(self, value):
        self.value = value

    def __call__(self, side):
        return Image.new("L", (side, side), self.value)

def images(archives):
    with Path(sys.argv[1] + ".calls").open("a") as calls:
        calls.write("one call ")
    for i in range(200):
        if i == 150 and sys.argv[2] == "hang":
            time.sleep(600)
        yield Row(f"{i:03}", f"class {i % 4}", (), "train" if i % 4 < 2 else "test"), Solid(i)

if __name__ == "__main__":
    journal.COMMIT_SECONDS = 0
    facts = {"version": 1, "channels": 1, "levels": [], "recall_at": [1]}
    pack.code_digest = lambda *_: "code"
    pack.load = lambda name, options: SimpleNamespace(FACTS=facts, SOURCES={}, images=images)
    pack.pack("made", 32, Path(sys.argv[1]), Path("none"), workers=1)
"""


def journal_lines(out: Path) -> int:
    path = out / "partial" / "journal"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_journal(out: Path, process: subprocess.Popen, limit: float) -> None:
    """Wait until some images are noted, at most until the time `limit`."""
    while journal_lines(out) < 2:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_packing_leaves_no_store_and_no_process_and_the_next_packing_resumes(
    tmp_path: Path,
):
    program, out = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(out)]
    limit = time.monotonic() + 40
    with subprocess.Popen([*command, "hang"]) as process:
        wait_for_journal(out, process, limit)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DatasetError, match="no complete store"):
        Store(out)
    assert workers
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < limit
        time.sleep(0.02)
    run = subprocess.run(
        [*command, "finish"], check=True, timeout=40, capture_output=True, text=True
    )
    assert re.search(r"goes on after \d+ images", run.stdout)
    assert [image[0, 0, 0] for image in Store(out)] == list(range(200))
    assert not (out / "partial").exists()


def test_ctrl_c_prints_one_line_and_keeps_finished_work(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    start, _, _ = PROGRAM.rpartition("    pack.pack(")
    program.write_text(
        f"{start}    from dmlbench.cli.main import main\n"
        "    from dmlbench.datasets import decoding\n"
        "    decoding.usable_cores = lambda: 1\n"
        "    main(['data', 'pack', 'made', '32', '{}', 'pixels', sys.argv[1]])\n"
    )
    command = [sys.executable, str(program), str(out), "hang"]
    limit = time.monotonic() + 40
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for_journal(out, process, limit)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=40)
    assert errors == "dmlbench: stopped: the same command goes on from here\n"
    assert process.returncode == 1
    assert journal_lines(out) > 1


def test_two_packings_at_the_same_time_pack_once(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(out), "finish"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert Path(f"{out}.calls").read_text() == "one call "
    assert sum("it is there already" in text for text in outputs) == 1
    assert len(Store(out)) == 200
