"""How a command ends."""

import pytest

from dmlbench.cli import listings
from dmlbench.cli.main import main


def raises(error):
    def fail(options):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it"),
        MemoryError("Unable to allocate 9 TiB"),
    ],
)
def test_a_memory_that_is_too_small_is_one_message_without_a_traceback(monkeypatch, error):
    monkeypatch.setattr(listings, "_list", raises(error))
    with pytest.raises(SystemExit) as ended:
        main(["list", "losses"])
    reason = " ".join(str(error).split())
    assert ended.value.code == (
        f"dmlbench: the memory is too small: {reason}. End other programs that use it; or if it is "
        "a GPU's, set DMLBENCH_DEVICE=cpu."
    )


def test_an_error_that_nobody_expected_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(listings, "_list", raises(RuntimeError("shape is invalid")))
    with pytest.raises(RuntimeError, match="shape is invalid"):
        main(["list", "losses"])
