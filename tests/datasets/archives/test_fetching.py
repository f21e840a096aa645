"""Archives are found or downloaded, and always verified."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from dmlbench.cli.main import main
from dmlbench.datasets import omniglot
from dmlbench.datasets.archives import checksums
from dmlbench.datasets.archives.fetching import describe_archives, fetch
from dmlbench.datasets.archives.spec import Archive
from dmlbench.utils.errors import DatasetError

CONTENT = b"an archive" * 1000
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
HAND = "Sign the agreement at https://example.org and ask for it."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server on this machine: its pages, the requested paths, its pauses and its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = SimpleNamespace(
        pages={"/right.zip": CONTENT, "/wrong.zip": b"other"}, requests=[], pause=0.0
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            body = server.pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            for i in range(0, len(body or b""), 1000):
                time.sleep(server.pause)
                self.wfile.write((body or b"")[i : i + 1000])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        yield server
        http.shutdown()


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder


def test_a_missing_archive_is_downloaded_once(
    server: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    sources = {"a.zip": Archive((f"{server.url}/right.zip",), MD5)}
    path = tmp_path / "new" / "folder" / "a.zip"
    for _ in range(2):
        assert fetch(sources, path.parent, {}) == {"a.zip": path}
    assert path.read_bytes() == CONTENT
    assert server.requests == ["/right.zip"]
    assert capfd.readouterr().err == ""
    assert describe_archives(sources, {"a.zip": path}, {}) == {
        "a.zip": {"checksum": MD5, "size": 10_000}
    }


def test_a_wrong_archive_in_the_folder_is_named_and_not_changed(
    server: SimpleNamespace, archives: Path
):
    path = archives / "a.zip"
    path.write_bytes(b"another")
    with pytest.raises(DatasetError) as error:
        fetch({"a.zip": Archive((f"{server.url}/right.zip",), MD5)}, archives, {})
    found = hashlib.md5(b"another").hexdigest()
    for part in (str(path), found, MD5, "Delete the file to have it downloaded", "`checksums`"):
        assert part in str(error.value)
    with pytest.raises(DatasetError, match=rf"Delete the file, or, .*{HAND}"):
        fetch({"a.zip": Archive((), MD5, HAND)}, archives, {})
    assert path.read_bytes() == b"another"
    assert server.requests == []


def test_a_study_may_give_another_checksum_but_only_of_a_known_archive(archives: Path):
    (archives / "a.zip").write_bytes(b"another")
    sources = {"a.zip": Archive((), MD5)}, {"b.zip": Archive((), MD5)}
    own = "sha256:" + hashlib.sha256(b"another").hexdigest()
    assert fetch(sources, archives, {"a.zip": own.upper().replace("SHA", "sha")})
    assert describe_archives(sources, {"a.zip": archives / "a.zip"}, {"a.zip": own})["a.zip"] == {
        "checksum": own,
        "size": 7,
    }
    with pytest.raises(DatasetError, match=r"unknown archive: c\.zip \(known: a\.zip, b\.zip\)"):
        fetch(sources, archives, {"c.zip": own})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (MD5.removeprefix("md5:"), f'does not begin with its algorithm: write "{MD5}"'),
        ("a" * 64, f'write "sha256:{"a" * 64}"'),
        ("", 'does not begin with its algorithm: write "md5:..."'),
        ("no checksum", 'write "md5:..."'),
        (f"crc32:{MD5[4:]}", "'crc32' is not one of the algorithms md5, sha1, sha256, sha512"),
        (f"sha256:{MD5[4:]}", "sha256 has 64 hex digits, and these are 32"),
        (f"{MD5}0", "md5 has 32 hex digits, and these are 33"),
        ("md5:" + "g" * 32, "are no hex digits"),
        ("md5:", "'' are no hex digits"),
        (5, '5 is no text as "md5:..."'),
        (None, 'None is no text as "md5:..."'),
        ([MD5], "is no text as"),
    ],
)
def test_a_text_that_is_no_checksum_is_refused_with_the_name_of_its_archive(
    given: object, problem: str, archives: Path
):
    (archives / "a.zip").write_bytes(CONTENT)
    with pytest.raises(DatasetError) as error:
        fetch({"a.zip": Archive((), None)}, archives, {"a.zip": given})
    assert str(error.value).startswith("checksums: a.zip: ")
    assert problem in str(error.value)


@pytest.mark.parametrize("spell", [str.upper, str.title, lambda text: f" {text} "])
def test_upper_case_and_spaces_of_a_checksum_do_not_matter(spell, archives: Path):
    (archives / "a.zip").write_bytes(CONTENT)
    sources = {"a.zip": Archive((), None)}
    assert fetch(sources, archives, {"a.zip": spell(MD5)}) == {"a.zip": archives / "a.zip"}
    with pytest.raises(DatasetError, match="wrong checksum"):
        fetch(sources, archives, {"a.zip": spell("md5:" + "a" * 32)})


def test_for_a_dead_link_or_a_wrong_file_the_error_says_what_to_put_where(
    server: SimpleNamespace, archives: Path
):
    sources = {
        "dead.zip": Archive((f"{server.url}/1", f"{server.url}/2"), MD5),
        "wrong.zip": Archive((f"{server.url}/wrong.zip",), MD5, HAND),
        "right.zip": Archive((f"{server.url}/right.zip",), MD5),
    }
    with pytest.raises(DatasetError) as error:
        fetch(sources, archives, {})
    assert str(error.value) == "\n".join(
        [
            "dead.zip cannot be downloaded:",
            f"    {server.url}/1: HTTP 404 Not Found",
            f"    {server.url}/2: HTTP 404 Not Found",
            f"    Put it at {archives}/dead.zip (checksum {MD5}).",
            "wrong.zip cannot be downloaded:",
            f"    {server.url}/wrong.zip: gives another file, of 5 bytes and with checksum "
            f"md5:{hashlib.md5(b'other').hexdigest()}",
            f"    Put it at {archives}/wrong.zip (checksum {MD5}).",
            f"    {HAND}",
            "`dmlbench data fetch` does it on a machine with internet, into the same folder.",
        ]
    )
    assert sorted(p.name for p in archives.iterdir() if p.name[0] != ".") == ["right.zip"]


def test_archives_to_get_by_hand_are_named_before_anything_is_downloaded(
    server: SimpleNamespace, archives: Path
):
    sources = {
        "free.zip": Archive((f"{server.url}/right.zip",), MD5),
        "gated.zip": Archive((), None, HAND),
        "gated too.zip": Archive((), SHA, HAND),
    }
    with pytest.raises(DatasetError) as error:
        fetch(sources, archives, {})
    assert str(error.value) == "\n".join(
        [
            "gated.zip is not there, and cannot be fetched for you.",
            f"    Put it at {archives}/gated.zip (its checksum is not published).",
            f"    {HAND}",
            "gated too.zip is not there, and cannot be fetched for you.",
            f"    Put it at {archives}/gated too.zip (checksum {SHA}).",
            f"    {HAND}",
        ]
    )
    assert server.requests == []


class TestGroups:
    """A data set in several layouts, of which one is enough."""

    @pytest.fixture
    def sources(self, server: SimpleNamespace) -> tuple[dict[str, Archive], ...]:
        right, dead = (f"{server.url}/right.zip",), (f"{server.url}/dead.zip",)
        return (
            {"a.zip": Archive(right, MD5), "a.mat": Archive(dead, MD5, "Ask A.")},
            {"b.zip": Archive(right, MD5)},
            {"c.zip": Archive((), MD5, "Ask C.")},
        )

    def test_the_complete_group_is_used(
        self, server: SimpleNamespace, archives: Path, sources: tuple[dict[str, Archive], ...]
    ):
        (archives / "a.zip").write_bytes(CONTENT)
        (archives / "c.zip").write_bytes(CONTENT)
        assert fetch(sources, archives, {}) == {"c.zip": archives / "c.zip"}
        assert server.requests == []

    def test_without_a_complete_group_the_first_that_can_be_downloaded_is_used(
        self, server: SimpleNamespace, archives: Path, sources: tuple[dict[str, Archive], ...]
    ):
        assert fetch(sources, archives, {}) == {"b.zip": archives / "b.zip"}
        assert server.requests == ["/right.zip", "/dead.zip", "/right.zip"]

    def test_if_no_group_can_be_downloaded_all_instructions_are_given(
        self, server: SimpleNamespace, archives: Path, sources: tuple[dict[str, Archive], ...]
    ):
        del server.pages["/right.zip"]
        with pytest.raises(DatasetError, match=r"(?s)Ask A\..*or, instead.*b\.zip.*or.*Ask C\."):
            fetch(sources, archives, {})

    def test_a_complete_group_with_a_wrong_checksum_is_an_error_and_no_other_group_is_used(
        self, archives: Path, sources: tuple[dict[str, Archive], ...]
    ):
        (archives / "c.zip").write_bytes(b"wrong")
        with pytest.raises(DatasetError, match=r"c\.zip: wrong checksum"):
            fetch(sources, archives, {})


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files whose checksums were computed."""
    names: list[str] = []
    compute = checksums.compute

    def counting(path: Path, algorithm: str) -> str:
        names.append(path.name)
        return compute(path, algorithm)

    monkeypatch.setattr(checksums, "compute", counting)
    return names


def test_a_verified_archive_is_not_read_again_until_it_is_touched(
    server: SimpleNamespace, archives: Path, computed: list[str]
):
    sources = {"a.zip": Archive((f"{server.url}/right.zip",), MD5)}
    (archives / "a.zip").write_bytes(CONTENT)
    for _ in range(3):
        fetch(sources, archives, {})
        checksums._compute_once.cache_clear()  # like a new process
    assert computed == ["a.zip"]
    os.utime(archives / "a.zip", (1, 1))
    fetch(sources, archives, {})
    assert computed == ["a.zip"] * 2
    (archives / "a.zip").write_bytes(CONTENT + b"x")
    os.utime(archives / "a.zip", (1, 1))
    with pytest.raises(DatasetError, match="wrong checksum"):
        fetch(sources, archives, {})
    (archives / ".a.zip.checksum.json").write_text("{half")
    (archives / "a.zip").write_bytes(CONTENT)
    fetch(sources, archives, {})


def test_a_downloaded_archive_is_verified_once(
    server: SimpleNamespace, archives: Path, computed: list[str]
):
    for _ in range(2):
        fetch({"a.zip": Archive((f"{server.url}/right.zip",), MD5)}, archives, {})
    assert [name for name in computed if name == "a.zip"] == []


def test_an_archive_without_a_published_checksum_gets_its_checksum_printed_and_remembered(
    server: SimpleNamespace, archives: Path, capfd: pytest.CaptureFixture[str], computed: list[str]
):
    sources = {"a.zip": Archive((), None, HAND)}
    (archives / "a.zip").write_bytes(CONTENT)
    for _ in range(2):
        paths = fetch(sources, archives, {})
        assert f"a.zip: {SHA} (no checksum of it is published)" in capfd.readouterr().err
    assert describe_archives(sources, paths, {})["a.zip"]["checksum"] == SHA
    assert computed == ["a.zip"]
    with pytest.raises(DatasetError, match="wrong checksum"):
        fetch(sources, archives, {"a.zip": "md5:" + "0" * 32})


def test_archives_in_a_read_only_folder_are_used(archives: Path, computed: list[str]):
    (archives / "a.zip").write_bytes(CONTENT)
    for name in (".a.zip.lock", ".a.zip.checksum.json", ".b.zip.lock"):
        (archives / name).mkdir()
        (archives / name / "in the way").touch()
    for _ in range(2):
        assert fetch({"a.zip": Archive((), MD5)}, archives, {}) == {"a.zip": archives / "a.zip"}
    assert computed == ["a.zip"]
    with pytest.raises(DatasetError, match=r"b\.zip cannot be written: Is a directory"):
        fetch({"b.zip": Archive(("http://127.0.0.1:9/b.zip",), MD5)}, archives, {})


def test_one_of_several_processes_downloads_and_the_others_use_its_archive(
    server: SimpleNamespace, archives: Path
):
    server.pause = 0.05
    code = (
        "import sys; from pathlib import Path\n"
        "from dmlbench.datasets.archives.fetching import fetch\n"
        "from dmlbench.datasets.archives.spec import Archive\n"
        "fetch({'a.zip': Archive((sys.argv[1],), sys.argv[2])}, Path(sys.argv[3]), {})"
    )
    command = [sys.executable, "-c", code, f"{server.url}/right.zip", MD5, str(archives)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert server.requests == ["/right.zip"]
    assert (archives / "a.zip").read_bytes() == CONTENT
    assert set(errors) <= {"", "a.zip: another process works on it: waiting\n"}


class TestCommand:
    """The command `dmlbench data fetch`."""

    @pytest.fixture(autouse=True)
    def data_folder(
        self, server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path / "data"))
        source = {"a.zip": Archive((f"{server.url}/right.zip",), MD5)}
        monkeypatch.setattr(omniglot, "SOURCES", source)
        monkeypatch.setattr(signal, "signal", lambda *_: None)

    def test_prints_checksum_and_size_of_each_archive(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        with pytest.raises(SystemExit, match="0"):
            main(["data", "fetch", "omniglot"])
        assert f'"checksum": "{MD5}"' in capsys.readouterr().out
        assert (tmp_path / "data/archives/a.zip").read_bytes() == CONTENT

    def test_accepts_other_checksums(self):
        with pytest.raises(SystemExit, match="gives another file"):
            main(["data", "fetch", "omniglot", f'{{"a.zip": "sha256:{"0" * 64}"}}'])

    @pytest.mark.parametrize("type", ["glyphs", "csv"])
    def test_does_nothing_for_a_data_set_without_archives(
        self, type: str, capsys: pytest.CaptureFixture[str]
    ):
        with pytest.raises(SystemExit, match="0"):
            main(["data", "fetch", type])
        assert capsys.readouterr().out == "{}\n"


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_that_it_was_stopped(
    server: SimpleNamespace, tmp_path: Path, signal_number: signal.Signals
):
    server.pause = 0.2
    code = (
        "import sys; from dmlbench.datasets import omniglot\n"
        "from dmlbench.datasets.archives.spec import Archive\n"
        "from dmlbench.cli.main import main\n"
        "omniglot.SOURCES = {'a.zip': Archive((sys.argv[1],), sys.argv[2])}\n"
        "main(['data', 'fetch', 'omniglot'])"
    )
    command = [sys.executable, "-c", code, f"{server.url}/right.zip", MD5]
    environment = {**os.environ, "DMLBENCH_DATA": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while not (tmp_path / "archives/a.zip.part").exists():
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=60)
    assert errors == "dmlbench: stopped: the same command goes on from here\n"
    assert process.returncode == 1
