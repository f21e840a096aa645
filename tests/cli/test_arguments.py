"""Numbers on the command line are refused if no one can mean them."""

import pytest

from dmlbench.cli.main import main

REFUSED = {
    "--gpus": (["plan", "x.yaml", "--gpus"], ["-1", "0", "1e9", "1000000", "nan", "9" * 5000]),
    "--budget": (["plan", "x.yaml", "--budget"], ["1e400h", "-1h", "nan", "9" * 400 + "h", "0h"]),
    "--watch": (["status", "x.yaml", "--watch"], ["0", "nan", "-1", "inf", "1e9", "often"]),
    "--max-minutes": (
        ["train", "x.yaml", "a/b/c/seed0", "--max-minutes"],
        ["0", "nan", "inf", "-1", "1e400", "1e9", "soon"],
    ),
    "--cores": (["run", "x.yaml", "--cores"], ["0", "-1", "1e9", "1000000000", "\u0663"]),
    "--side": (["data", "show", "cub200", "--side"], ["0", "-1", "1000000", "1e3"]),
    "side": (["data", "pack", "cub200"], ["0", "1000000", "many"]),
}


@pytest.mark.parametrize("argument", REFUSED)
def test_an_absurd_number_is_refused_with_what_is_allowed(argument, capsys):
    command, values = REFUSED[argument]
    for value in values:
        rest = ["{}", "pixels", "store"] if argument == "side" else []
        arguments = [*command[:-1], f"{argument}={value}"] if command[-1] == argument else command
        with pytest.raises(SystemExit, match="2"):
            main(arguments if arguments is not command else [*command, value, *rest])
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"argument {argument}: " in message
        assert "from " in message or "is not a time. Give a number above 0" in message
        assert len(message) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 50_000, "x" * 50_000, "1" * 5000])
def test_json_without_end_is_refused_in_a_short_line(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "fetch", "cub200", text])
    message = capsys.readouterr().err.splitlines()[-1]
    assert "is not JSON (" in message or "is no JSON object" in message
    assert len(message) < 500
