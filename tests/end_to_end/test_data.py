"""Archives are fetched once, by a job of this machine, and packed once."""

import fcntl
import hashlib
import io
import os
import shutil
import signal
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest
from PIL import Image

REST = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1}


def omniglot_of_two_halves():
    """4 alphabets in the true layout: 2 train, 2 test; 2 characters of 20 drawings in each."""
    random = np.random.default_rng(0)
    archives = {}
    for half in ("background", "evaluation"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for alphabet in ("A", "B"):
                for character in (1, 2):
                    for drawing in range(20):
                        image = io.BytesIO()
                        Image.fromarray(random.random((40, 40)) < 0.5).save(image, "PNG")
                        name = f"{half}-{alphabet}/character0{character}/0_{drawing:02}.png"
                        archive.writestr(f"images_{half}/{name}", image.getvalue())
        archives[f"images_{half}.zip"] = file.getvalue()
    return archives


@pytest.fixture
def served(project, tiny, tmp_path, monkeypatch):
    """A project whose Omniglot comes from this machine; `asked` counts what came."""
    archives = omniglot_of_two_halves()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.asked.append(self.path)
            body = archives.get(self.path[1:], b"")
            self.send_response(200 if body and served.online else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served, served.archives, served.asked, served.online = project, archives, [], True
    project.environment |= {"DMLBENCH_DATA": str(tmp_path / "data"), "NO_PROXY": "127.0.0.1"}
    file = project.folder / "dmlbench/datasets/omniglot.py"
    text = file.read_text()
    for old, new in {
        '"train": [964, 19280], "test": [659, 13180]': '"train": [4, 80], "test": [4, 80]',
        "md5:68d2efa1b9178cc56df9314c21c6e718": f"md5:{md5(archives['images_background.zip'])}",
        "md5:6b91aef0f799c5bb55b94e3f2daec811": f"md5:{md5(archives['images_evaluation.zip'])}",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        here = f'_URL = "http://127.0.0.1:{http.server_port}"'
        file.write_text("\n".join(here if "_URL =" in x else x for x in text.split("\n")))
        tiny["datasets"] = {"drawings": {"type": "omniglot"}}
        tiny["recipe"] |= {"batch_size": 8, "images_per_class": 2}
        tiny["plan"] |= {"datasets": ["drawings"], "losses": ["proxy_anchor"], "controls": []}
        project.write(tiny)
        yield project
        http.shutdown()


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_data_are_fetched_and_packed_once_even_if_the_archives_are_deleted(served, tiny, tmp_path):
    data = tmp_path / "data"
    served.run("data")
    assert sorted(served.asked) == ["/images_background.zip", "/images_evaluation.zip"]
    (note,) = data.glob("stores/*/archives.json")
    assert md5(served.archives["images_background.zip"]) in note.read_text()
    assert (note.parent / "manifest.json").is_file()
    # what was fetched is noted anew, otherwise
    note.write_text("{}")
    assert served.planned() == {"find_duplicates": 1, **REST}
    # no archive any more, and a store beside it that needs it
    note.unlink()
    for archive in (data / "archives").iterdir():
        archive.unlink()
    tiny["backbones"]["small"] = tiny["backbones"]["tiny"] | {"image_size": 16}
    tiny["plan"]["backbones"] = ["tiny", "small"]
    served.write(tiny)
    twice = {"train": 2, "evaluate": 2, "build_leaderboard": 1, "verdict": 1}
    served.diff({"fetch_archives": 1, "pack_store": 1, "find_duplicates": 2, **twice})


def test_an_archive_that_cannot_be_fetched_is_named_and_can_be_put_in_place_by_hand(
    served, tmp_path
):
    served.online = False
    output = served.run("data", expect=1)
    for part in (
        "images_background.zip cannot be downloaded:",
        "HTTP 404",
        f"Put it at {tmp_path}/data/archives/images_evaluation.zip (checksum md5:",
    ):
        assert part in output
    assert "Traceback" not in output
    assert not list((tmp_path / "data/stores").glob("*/manifest.json"))
    failed = served.failed_jobs()
    assert "fetch_archives drawings" not in failed  # the name of a store begins with its type
    assert "  fetch_archives omniglot-32-" in failed
    assert "images_background.zip cannot be downloaded:" in failed
    assert ".archives.log" in failed
    asked = len(served.asked)
    for name, content in served.archives.items():
        (tmp_path / "data/archives" / name).write_bytes(content)
    assert served.failed_jobs() == ""
    served.run("data")
    assert len(served.asked) == asked
    assert served.failed_jobs() == ""


@pytest.mark.slow
def test_the_store_of_another_study_stays_when_a_pack_that_waits_for_it_is_killed(
    project, tmp_path, data_folder, store_name
):
    data = tmp_path / "data"
    project.environment["DMLBENCH_DATA"] = str(data)
    store, whole = data / "stores" / store_name, data_folder / "stores" / store_name
    store.mkdir(parents=True)
    log = project.folder / f"results/tiny/logs/data/{store_name}.log"
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other study packs it
        call = project.start("data")
        deadline = time.monotonic() + 120
        while not (log.is_file() and "another process packs it" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        shutil.copytree(whole, store, dirs_exist_ok=True)  # it has finished
        (waiting,) = (
            process.pid
            for process in psutil.Process(call.pid).children(recursive=True)
            if "pack" in process.cmdline()
        )
        os.kill(waiting, signal.SIGKILL)
        output, _ = call.communicate(timeout=60)
    assert call.returncode == 1, output
    for file in whole.iterdir():
        assert (store / file.name).read_bytes() == file.read_bytes()
    made = (store / "manifest.json").stat().st_ino
    project.run("data")
    assert (store / "manifest.json").stat().st_ino == made  # it was not packed again
    assert project.planned("data") == {}
