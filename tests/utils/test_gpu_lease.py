"""A lease gives a GPU to no more processes at a time than each of them allows, under whatever
number it is seen."""

import os
import random
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.gpu_lease import hand_down_gpus, lease


class Enough(Exception):
    """Whoever waits has waited long enough."""


def give_up():
    raise Enough


def has_room(devices, runs, folder):
    """The device that a run would get at once; None if it had to wait."""
    try:
        with lease(devices, runs, give_up, folder) as device:
            return device
    except Enough:
        return None


def test_without_gpus_there_is_nothing_to_wait_for(tmp_path):
    with lease([], 1, give_up, tmp_path) as device:
        assert device is None


def test_no_device_ever_has_more_runs_than_each_of_them_allows(tmp_path):
    lock, at_work, seen = threading.Lock(), {"a": [], "b": []}, []

    def work(runs):
        with lease(["a", "b"], runs, folder=tmp_path) as device:
            with lock:
                at_work[device].append(runs)
                seen.append(list(at_work[device]))
            time.sleep(random.uniform(0, 0.02))
            with lock:
                at_work[device].remove(runs)

    allowed = [1, 2, 2, 3, 3, 3, 4, 16] * 4
    random.shuffle(allowed)
    threads = [threading.Thread(target=work, args=(runs,)) for runs in allowed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == len(allowed)
    assert [runs for runs in seen if len(runs) > min(runs)] == []


@pytest.mark.parametrize(
    ("there", "comes", "enters"),
    [
        ([], 1, True),
        ([1], 1, False),
        ([1], 4, False),
        ([4], 1, False),
        ([2], 2, True),
        ([2, 2], 2, False),
        ([2, 2], 4, False),
        ([4, 2], 4, False),
        ([4], 2, True),
        ([4, 4, 4], 4, True),
        ([4, 4], 2, False),
        ([16] * 15, 16, True),
        ([16] * 16, 16, False),
    ],
)
def test_a_run_enters_where_all_allow_it(tmp_path, there, comes, enters):
    with ExitStack() as held:
        for runs in there:
            held.enter_context(lease(["a"], runs, give_up, tmp_path))
        assert (has_room(["a"], comes, tmp_path) == "a") == enters
    assert has_room(["a"], 1, tmp_path) == "a"


def test_an_empty_device_is_taken_before_one_that_is_shared(tmp_path):
    for _ in range(5):
        with ExitStack() as held:
            first = lease(["a"], 3, give_up, tmp_path)
            with first:
                held.enter_context(lease(["a"], 3, give_up, tmp_path))
            # one run is left at the device, on its second place
            assert has_room(["a", "b"], 3, tmp_path) == "b"
            held.enter_context(lease(["a"], 3, give_up, tmp_path))
            held.enter_context(lease(["b"], 3, give_up, tmp_path))
            assert has_room(["a", "b"], 3, tmp_path) == "b"


def test_who_waits_is_not_passed_by_those_who_come_later(tmp_path):
    """Else runs that share a device could keep one that wants it alone out for ever."""
    waits, alone = threading.Event(), []

    def note():
        waits.set()

    def want_it_alone():
        with lease(["a"], 1, note, tmp_path) as device:
            alone.append(device)

    with lease(["a"], 2, give_up, tmp_path):
        assert has_room(["a"], 2, tmp_path) == "a"
        thread = threading.Thread(target=want_it_alone)
        thread.start()
        assert waits.wait(30)
        assert has_room(["a"], 2, tmp_path) is None
        assert not alone
    thread.join(30)
    assert alone == ["a"]
    assert has_room(["a"], 2, tmp_path) == "a"


def test_a_run_that_got_its_place_no_longer_blocks_other_runs(tmp_path):
    with ExitStack() as held:
        first = ExitStack()
        first.enter_context(lease(["a"], 1, give_up, tmp_path))
        held.enter_context(lease(["a"], 2, first.close, tmp_path))
        assert has_room(["a"], 2, tmp_path) == "a"


def test_a_killed_process_leaves_its_device(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from dmlbench.utils.gpu_lease import lease\n"
        "with lease(['a'], int(sys.argv[2]), folder=Path(sys.argv[1])) as device:\n"
        "    print(device, flush=True); time.sleep(60)"
    )
    for runs in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path), runs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "a\n"
        assert has_room(["a"], 1, tmp_path) is None
        process.kill()
        process.wait()
        assert has_room(["a"], 1, tmp_path) == "a"


def test_users_of_a_machine_share_its_locks(tmp_path, monkeypatch):
    """Another user must be able to read the files, and to make some."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.umask(0o077)
    try:
        with lease(["a"]):
            pass
    finally:
        os.umask(before)
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == {0o644}


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The folder that all users of the machine share, before anybody made it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary/dmlbench-gpus"


@pytest.fixture
def victim(tmp_path):
    """A private file of this user."""
    file = tmp_path / "victim"
    file.write_text("private")
    file.chmod(0o600)
    yield file
    assert file.read_text() == "private"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def refused(match):
    return pytest.raises(WrongEnvironment, match=match)


def test_a_link_in_place_of_a_lock_is_not_followed(shared, victim, tmp_path):
    shared.mkdir(0o1777)
    for target in (victim, tmp_path / "missing"):
        (shared / "a.0").symlink_to(target)
        with refused(rf"{shared}/a.0: this is a link of user \w+\..*remove it"), lease(["a"]):
            pass
        (shared / "a.0").unlink()
    assert not (tmp_path / "missing").exists()


def test_without_gpus_nobody_can_keep_a_study_from_running(shared, tmp_path, monkeypatch):
    for variable in ("CUDA_VISIBLE_DEVICES", "DMLBENCH_GPUS"):
        monkeypatch.setenv(variable, "0")
    shared.symlink_to(tmp_path)
    hand_down_gpus([], 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_link_in_place_of_the_folder_is_not_followed(shared, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shared.symlink_to(tmp_path / "elsewhere")
    with refused(rf"^{shared}: this is a link of user \w+\."), lease(["a"]):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("kind", ["folder", "pipe", "file in place of the folder"])
def test_what_is_no_plain_file_is_refused_at_once(shared, kind):
    if kind == "file in place of the folder":
        shared.touch()
    else:
        shared.mkdir(0o1777)
        (shared / "a.door").mkdir() if kind == "folder" else os.mkfifo(shared / "a.door")
    with refused(r"this is (no plain file|Not a directory) of user"), lease(["a"]):
        pass


def test_a_folder_in_which_others_could_remove_locks_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with refused("everybody can remove what others made"), lease(["a"], folder=tmp_path):
        pass


def test_an_own_folder_with_another_mode_is_opened_for_all(shared):
    shared.mkdir(0o700)
    with lease(["a"]) as device:
        assert device == "a"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


@pytest.fixture
def folder_of_all_users():
    """pytest's own temporary folders are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become two users")
def test_two_users_share_a_gpu(folder_of_all_users):
    """The second one uses the folder and the locks of the first one, and waits for it."""
    shared = folder_of_all_users
    code = (
        "import os, sys, tempfile; from dmlbench.utils.gpu_lease import lease\n"
        "tempfile.tempdir = sys.argv[2]; os.setgid(60000); os.setuid(int(sys.argv[1]))\n"
        "def give_up(): sys.exit('waits')\n"
        "with lease(['a'], 1, give_up) as device:\n"
        "    print(device, flush=True); sys.stdin.read()"
    )

    def start(user):
        command = [sys.executable, "-c", code, str(user), str(shared)]
        return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)

    first = start(60001)
    assert first.stdout.readline() == "a\n"
    assert start(60002).communicate() == ("", "waits\n")
    first.communicate()
    assert start(60002).communicate() == ("a\n", "")
    owners = {file.stat().st_uid for file in (shared / "dmlbench-gpus").iterdir()}
    assert owners == {60001}
