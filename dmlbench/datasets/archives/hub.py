"""Files of a data set on the Hugging Face Hub, as archives that `fetching` downloads and verifies.

`huggingface_hub` says which files a commit has, what their checksums are, and who the user is. The
bytes come by `download`, because a download of `huggingface_hub` that breaks off is lost: it does
not go on in a later call. What a commit has is noted beside the files. So once they are there, no
network is needed.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dmlbench.datasets.archives.checksums import GIT
from dmlbench.datasets.archives.spec import Archive, HubFiles
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.text import first_line, listed

LISTING = "files.json"
"""The note of what the commit has: {"files": {path: {"size": bytes, "checksum": ...}}}."""
SUFFIX = ".parquet"
REPO = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(repo: str, revision: object, patterns: tuple[str, ...]) -> HubFiles:
    """The files of one commit. Nothing is asked on the network.

    Raises:
        DatasetError: the repository has no such name, or the revision is no commit.
    """
    if not REPO.fullmatch(repo):
        raise DatasetError(f"repo: '{repo}' is not owner/name, as the hub shows it.")
    if not COMMIT.fullmatch(str(revision)):
        given = f"'{revision}' is no commit, and can change" if revision else "is missing"
        name = "main" if re.fullmatch(r"[0-9a-fA-F]*", str(revision)) else revision
        raise DatasetError(
            f"revision: {given}. Name a commit of {repo}, 40 hex digits in quotes: "
            f"`git ls-remote https://huggingface.co/datasets/{repo} {name}` prints it."
        )
    return HubFiles(repo, str(revision), patterns)


def list_files(source: HubFiles, archives: Path) -> dict[str, Archive]:
    """The files of `source`: as noted in the folder of archives, else as the hub says.

    Raises:
        DatasetError: nothing is noted and the hub gives no answer, or no file fits the patterns.
    """
    note = source.folder(archives) / LISTING
    files = _noted(note)
    if files is None:
        files = _ask(source, note)
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"files": files})
        except OSError as error:
            raise DatasetError(f"{note} cannot be written: {error.strerror}") from None
    names = [name for name in files if _fits(name, source.patterns)]
    if not names:
        title = f"files: {_name(source)} has no Parquet file that fits {', '.join(source.patterns)}"
        there = [*files] or [
            "it has no Parquet files; the hub often has some in the branch refs/convert/parquet: "
            f"`git ls-remote https://huggingface.co/datasets/{source.repo} refs/convert/parquet`"
        ]
        raise DatasetError(listed(title, there))
    page = f"https://huggingface.co/datasets/{source.repo}"
    access = f"If {page} is private or asks you to agree to terms: do so, and set HF_TOKEN."
    return {name: Archive((_url(source, name),), files[name]["checksum"], access) for name in names}


def staged_files(source: HubFiles, archives: Path) -> dict[str, Path]:
    """{name: path} of the files if all of them are there; {} if some are not."""
    folder = source.folder(archives)
    files = _noted(folder / LISTING) or {}
    paths = {name: folder / name for name in files if _fits(name, source.patterns)}
    return paths if all(path.is_file() for path in paths.values()) else {}


def request_headers(source: HubFiles, archives: Path) -> dict[str, str]:
    """The headers of requests for files that are missing: the user's token, if there is one.

    Raises:
        DatasetError: files are missing, and HF_HUB_OFFLINE forbids to ask for them.
    """
    if staged_files(source, archives):
        return {}
    _refuse_offline(source, source.folder(archives))
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _noted(note: Path) -> dict[str, Any] | None:
    """The files as `note` has them; None if there is no note, or a damaged one."""
    listing = read_json_if_whole(note)
    files = listing.get("files") if isinstance(listing, dict) else None
    if not isinstance(files, dict):
        return None
    whole = all(isinstance(file, dict) and "checksum" in file for file in files.values())
    return files if whole else None


def _ask(source: HubFiles, note: Path) -> dict[str, Any]:
    """{path: size and checksum} of the Parquet files of a commit, as the hub says."""
    _refuse_offline(source, note.parent)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.hf_api import RepoFile

    try:
        tree = HfApi().list_repo_tree(
            source.repo, recursive=True, revision=source.commit, repo_type="dataset"
        )
        files = [file for file in tree if isinstance(file, RepoFile)]
    except GatedRepoError:
        reason = "you must agree to its terms on its page, and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "there is no such data set, or it is private: then set HF_TOKEN"
    except RevisionNotFoundError:
        reason = "the data set has no such commit"
    except Exception as error:  # the errors of the connection have other types in each version
        reason = first_line(error)
    else:
        return {
            file.path: {
                "size": file.size,
                "checksum": f"sha256:{file.lfs.sha256}" if file.lfs else f"{GIT}:{file.blob_id}",
            }
            for file in files
            if file.path.endswith(SUFFIX) and not {"", "..", "."} & {*file.path.split("/")}
        }
    raise DatasetError(
        f"{_name(source)} cannot be fetched: {reason}. Where there is internet (on a cluster: the "
        f"login node), run the same command into the same folder, or copy {note.parent} from there."
    )


def _refuse_offline(source: HubFiles, folder: Path) -> None:
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise DatasetError(
            f"{_name(source)}: its files are not in {folder}, and HF_HUB_OFFLINE is set. Fetch "
            f"them where there is internet, or copy that folder whole, with {LISTING}."
        )


def _url(source: HubFiles, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.repo, name, repo_type="dataset", revision=source.commit)


def _name(source: HubFiles) -> str:
    return f"{source.repo} at {source.commit[:12]}"


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern is that of the file `name`, or of a folder that it is in."""
    return any(
        fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('/')}/")
        for pattern in patterns
    )
