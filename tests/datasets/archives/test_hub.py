"""Files of the Hugging Face Hub, from a server on this machine that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading

import pytest
from huggingface_hub import constants

from dmlbench.datasets.archives import download as download_module
from dmlbench.datasets.archives import hub
from dmlbench.datasets.archives.fetching import describe_archives, fetch
from dmlbench.datasets.archives.spec import HubFiles
from dmlbench.utils.errors import DatasetError

from .server import (
    CONTENT,
    ONE_ATTEMPT,
    OTHER,
    QUICK,
    Page,
    Server,
    breaks,
    good,
    html,
    other,
    redirect,
    status,
)

REPO, COMMIT = "owner/birds", "0123456789abcdef0123456789abcdef01234567"
SMALL = b"a file that git keeps itself"
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
ALL = HubFiles(REPO, COMMIT, ("*.parquet",))
TREE_PAGE = f"/api/datasets/{REPO}/tree/{COMMIT}?recursive=true&expand=false"
TREE = [
    {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0},
    {"type": "file", "path": "README.md", "oid": "1" * 40, "size": 5},
    {
        "type": "file",
        "path": TRAIN,
        "oid": "2" * 40,
        "size": len(CONTENT),
        "lfs": {"oid": SHA256, "size": len(CONTENT), "pointerSize": 130},
    },
    {"type": "file", "path": TEST, "oid": BLOB, "size": len(SMALL)},
]


def file_page(name: str) -> str:
    return f"/datasets/{REPO}/resolve/{COMMIT}/{name}"


def small(handler, number):
    handler.give(SMALL)


def error(code: int, kind: str) -> Page:
    return lambda handler, _: handler.answer(
        code, {"X-Error-Code": kind, "Content-Length": "4"}, b"oops"
    )


class Hub(Server):
    """The pages of one data set of the hub."""

    def __init__(self) -> None:
        super().__init__()
        self.set_tree(TREE)
        self.set_file(TRAIN, good)
        self.set_file(TEST, small)

    def set_tree(self, tree: list[dict[str, object]] | Page) -> None:
        page = (
            tree
            if callable(tree)
            else lambda handler, _: handler.answer(
                200,
                {"Content-Type": "application/json"},
                json.dumps(tree).encode(),
            )
        )
        self.serve(page, TREE_PAGE)

    def set_file(self, name: str, page: Page) -> None:
        self.serve(page, file_page(name))

    @property
    def paths(self) -> list[str]:
        """What was requested, without questions of huggingface_hub about its user."""
        return [path for path, _ in self.requests if path != "/api/agent-harnesses"]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub; downloads do not wait."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(
        download_module, "DownloadOptions", lambda headers: QUICK._replace(headers=headers)
    )
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as http:
        monkeypatch.setattr(constants, "ENDPOINT", http.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        pages = template[template.index("/{repo_id}") :]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", http.url + pages)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield http
        http.shutdown()


def test_the_files_of_a_commit_are_fetched_and_verified_once(server, tmp_path):
    paths = fetch(ALL, tmp_path, {})
    folder = tmp_path / "hub/owner--birds" / COMMIT
    assert paths == {TRAIN: folder / TRAIN, TEST: folder / TEST}
    assert (paths[TRAIN].read_bytes(), paths[TEST].read_bytes()) == (CONTENT, SMALL)
    assert describe_archives(ALL, paths, {})[TRAIN] == {
        "checksum": f"sha256:{SHA256}",
        "size": len(CONTENT),
    }
    requests = len(server.paths)
    assert fetch(ALL, tmp_path, {}) == paths
    assert len(server.paths) == requests


def test_only_the_files_that_fit_a_pattern_are_fetched(server, tmp_path):
    assert [*fetch(HubFiles(REPO, COMMIT, ("data/train-*",)), tmp_path, {})] == [TRAIN]
    assert file_page(TEST) not in server.paths
    for folder in ("data", "data/"):
        assert [*fetch(HubFiles(REPO, COMMIT, (folder,)), tmp_path, {})] == [TRAIN, TEST]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', "{"])
def test_a_damaged_note_of_the_files_is_written_anew(server, tmp_path, note):
    paths = fetch(ALL, tmp_path, {})
    (ALL.folder(tmp_path) / hub.LISTING).write_text(note)
    assert hub.staged_files(ALL, tmp_path) == {}
    assert fetch(ALL, tmp_path, {}) == hub.staged_files(ALL, tmp_path) == paths


def test_a_pattern_that_fits_nothing_is_told_what_there_is(server, tmp_path):
    with pytest.raises(DatasetError, match=rf"has no Parquet file that fits x/\*:\n +{TRAIN}"):
        fetch(HubFiles(REPO, COMMIT, ("x/*",)), tmp_path, {})


def test_staged_files_need_no_network(server, tmp_path, monkeypatch):
    paths = fetch(ALL, tmp_path, {})
    server.shutdown()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(ALL, tmp_path, {}) == paths
    assert hub.staged_files(ALL, tmp_path) == paths


def test_offline_the_message_says_what_is_missing_and_where(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DatasetError, match=rf"owner/birds at 0123456789ab: .*{COMMIT}.*OFFLINE"):
        fetch(ALL, tmp_path, {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetch(ALL, tmp_path, {})[TEST].unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set"):
        fetch(ALL, tmp_path, {})
    assert hub.staged_files(ALL, tmp_path) == {}


def test_a_download_that_breaks_off_goes_on_in_the_same_call(server, tmp_path):
    server.set_file(TRAIN, breaks(7000, 5))
    assert fetch(ALL, tmp_path, {})[TRAIN].read_bytes() == CONTENT


def test_a_download_that_breaks_off_for_good_goes_on_in_a_later_call(server, tmp_path, monkeypatch):
    quick = download_module.DownloadOptions
    monkeypatch.setattr(
        download_module, "DownloadOptions", lambda headers: ONE_ATTEMPT._replace(connections=1)
    )
    server.set_file(TRAIN, breaks(7000, 99))
    with pytest.raises(DatasetError, match="broke off"):
        fetch(ALL, tmp_path, {})
    assert server.bytes_sent == 7000 + len(SMALL)
    monkeypatch.setattr(download_module, "DownloadOptions", quick)
    server.set_file(TRAIN, good)
    assert fetch(ALL, tmp_path, {})[TRAIN].read_bytes() == CONTENT
    assert server.bytes_sent == len(CONTENT) + len(SMALL)


@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_other_bytes_than_those_of_the_commit_are_refused(server, tmp_path, name):
    server.set_file(name, other)
    with pytest.raises(DatasetError, match="gives another file, of 200 kB and with checksum"):
        fetch(ALL, tmp_path, {})
    assert not (ALL.folder(tmp_path) / name).exists()


def test_a_staged_file_that_was_damaged_is_named_and_kept(server, tmp_path):
    path = fetch(ALL, tmp_path, {})[TRAIN]
    path.write_bytes(OTHER)
    with pytest.raises(DatasetError, match=rf"(?s){path.name}: wrong checksum\n  found .*{SHA256}"):
        fetch(ALL, tmp_path, {})
    assert path.read_bytes() == OTHER
    own = {TRAIN: f"sha256:{hashlib.sha256(OTHER).hexdigest()}"}
    assert fetch(ALL, tmp_path, own)[TRAIN] == path


def test_a_busy_hub_is_asked_again(server, tmp_path):
    server.set_file(TRAIN, status(429, 2, Retry_After="0"))
    assert fetch(ALL, tmp_path, {})[TRAIN].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (error(403, "GatedRepo"), "you must agree to its terms on its page, and set HF_TOKEN"),
        (error(401, "GatedRepo"), "you must agree to its terms on its page, and set HF_TOKEN"),
        (error(401, "RepoNotFound"), "no such data set, or it is private: then set HF_TOKEN"),
        (error(404, "RepoNotFound"), "no such data set, or it is private: then set HF_TOKEN"),
        (error(404, "RevisionNotFound"), "the data set has no such commit"),
        (error(400, "BadRequest"), "Bad request"),
        (html, "cannot be fetched: "),
    ],
)
def test_a_hub_that_does_not_list_its_files_gives_one_sentence(server, tmp_path, page, message):
    server.set_tree(page)
    with pytest.raises(DatasetError, match=rf"^owner/birds at 0123456789ab.*{message}") as caught:
        fetch(ALL, tmp_path, {})
    assert "\n" not in str(caught.value)
    assert str(ALL.folder(tmp_path)) in str(caught.value)
    assert not [*tmp_path.rglob("*.json")]


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_file_that_is_refused_is_named_with_the_way_to_get_it(server, tmp_path, code):
    server.set_file(TRAIN, status(code))
    with pytest.raises(DatasetError) as caught:
        fetch(ALL, tmp_path, {})
    for part in (f"HTTP {code}", file_page(TRAIN), "agree to terms", "HF_TOKEN", SHA256):
        assert part in str(caught.value)


def test_the_token_goes_to_the_hub_and_not_to_the_host_of_the_bytes(server, tmp_path, monkeypatch):
    seen = {}

    def at(place, page):
        def note(handler, number):
            seen.setdefault(place, set()).add(handler.headers.get("Authorization"))
            page(handler, number)

        return note

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    cdn = server.serve(at("cdn", good), "/cdn").replace("127.0.0.1", "localhost")
    server.set_tree(at("tree", server.pages[TREE_PAGE]))
    server.set_file(TRAIN, at("file", redirect(cdn)))
    assert fetch(ALL, tmp_path, {})[TRAIN].read_bytes() == CONTENT
    assert seen == {"tree": {"Bearer hf_secret"}, "file": {"Bearer hf_secret"}, "cdn": {None}}
    assert not [p for p in tmp_path.rglob("*.json") if "hf_secret" in p.read_text()]


@pytest.mark.parametrize("path", ["../../evil.parquet", "/evil.parquet", "a//evil.parquet"])
def test_a_path_that_leads_out_of_the_folder_is_no_file(server, tmp_path, path):
    server.set_tree([*TREE, {**TREE[-1], "path": path}])
    assert [*fetch(ALL, tmp_path, {})] == [TRAIN, TEST]


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("birds", COMMIT, "repo: 'birds' is not owner/name"),
        ("a/b/c", COMMIT, "is not owner/name"),
        ("https://hub/owner/birds", COMMIT, "is not owner/name"),
        (REPO, "main", r"'main' is no commit, and can change\. .* owner/birds.* main` prints it"),
        (REPO, "", r"revision: is missing\. Name a commit"),
        (REPO, COMMIT[:12], "'0123456789ab' is no commit, .* main` prints it"),
        (REPO, COMMIT.upper(), "is no commit"),
    ],
)
def test_only_a_commit_can_be_repeated(repo, revision, message):
    with pytest.raises(DatasetError, match=message):
        hub.pin(repo, revision, ("*",))
    assert hub.pin(REPO, COMMIT, ("*",)) == HubFiles(REPO, COMMIT, ("*",))


def test_the_command_fetches_from_the_hub_that_the_environment_names(server, tmp_path):
    options = json.dumps({"repo": REPO, "revision": COMMIT, "files": "*/test-*"})
    result = subprocess.run(
        [sys.executable, "-m", "dmlbench", "data", "fetch", "parquet", "--options", options],
        cwd=tmp_path,
        env={**os.environ, "HF_ENDPOINT": server.url, "DMLBENCH_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[TEST]["size"] == len(SMALL)
    assert (ALL.folder(tmp_path / "data/archives") / TEST).read_bytes() == SMALL
