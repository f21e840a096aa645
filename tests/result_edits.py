"""Edits of result files that the files' own digests do not reveal."""

import json

from dmlbench.study.result_files import RunFiles
from dmlbench.utils.digests import write_with_digest


def edit_result(file, **changes):
    """Change keys of a result file, and give it the digest of its new content.

    A key that becomes None is removed, but for "error". The scores of an edited run.json stay those
    of this training.
    """
    content = json.loads(file.read_text()) | changes | {"digest": None}
    kept = {key: value for key, value in content.items() if value is not None or key == "error"}
    write_with_digest(file, kept)
    metrics = file.with_name("metrics.json")
    if file.name == "run.json" and metrics.is_file():
        edit_result(metrics, training=json.loads(file.read_text())["digest"])


def describe_again(files: RunFiles):
    """Let run.json say that the other files of its training are as they are now."""
    content = json.loads(files.run.read_text())
    del content["digest"]
    files.write_run(content)
    edit_result(files.run)
