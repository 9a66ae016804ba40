"""``hf-prompting demo``: mistakes are one line, and the Space is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hf_prompting.cli import app


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such"], "no such folder: /no/such"),
        (["SAVED", "--examples", "/no/such.jsonl"], "no such file: /no/such.jsonl"),
        (["SAVED", "--base-model", "/no/such"], "/no/such"),
        (["SAVED", "--write-space", "SAVED"], "folder of this machine"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(saved: Path, arguments: list[str], said: str) -> None:
    result = call(*(saved if argument == "SAVED" else argument for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


def test_without_gradio_it_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = call(saved)
    assert result.exit_code == 2
    assert 'pip install "hf_prompting[demo]"' in result.stderr


def test_a_space_is_written_instead_of_a_page_opened(saved: Path, tmp_path: Path) -> None:
    result = call(saved, "--write-space", tmp_path / "space", "--base-model", "tests/tiny-llama")
    assert result.exit_code == 0, result.stderr
    assert "python app.py" in result.stdout
    assert (tmp_path / "space" / "app.py").is_file()


def test_help_has_examples() -> None:
    result = call("--help")
    assert "hf-prompting demo outputs/movie-reviews-soft-prompt" in result.stdout
    assert "Examples" in result.stdout
