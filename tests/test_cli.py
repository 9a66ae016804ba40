"""The command line end to end: run, check, predict and show, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_recipes import recipe_values, write_base, write_recipe, write_rows
from typer.testing import CliRunner, Result

from hf_prompting.cli import app

TEXT = "great, moving story"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def recipe(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), recipe_values(base))


@pytest.fixture(scope="module")
def saved(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "saved"
    result = call("run", recipe, "--output-dir", folder, "--seeds", "0,1", "--smoke")
    assert result.exit_code == 0, result.stderr
    assert "mean ± standard deviation" in result.stdout
    assert f"Saved in {folder}" in result.stdout
    return folder


def call(*arguments: object, **options: Any) -> Result:
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment, **options)


def mistake(*arguments: object, **options: Any) -> str:
    """Return the line of an error, after making sure that it is one line, without a traceback, and exit code 2."""
    result = call(*arguments, **options)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in result.output
    return errors[0]


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_check_says_what_a_recipe_holds(recipe: Path) -> None:
    assert call("check", recipe).stdout.strip() == "recipe.yaml is in order: 8 train, 8 dev, 12 test rows, 2 labels"


def test_check_lists_all_mistakes_of_a_recipe(recipe: Path) -> None:
    result = call("check", recipe, "--set", "training.max_step=3", "--set", "trainin.x=1")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "error: recipe.yaml has 2 problems:"
    assert "Did you mean 'max_steps'?" in result.stderr


def test_run_records_the_seeds_and_the_smoke_values(saved: Path) -> None:
    metrics = json.loads((saved / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["recipe"]["training"]["seeds"] == [0, 1]
    assert metrics["recipe"]["training"]["max_steps"] == 2
    assert metrics["zero_shot"]["num_rows"] == 4


def test_predict_prints_one_json_line_for_each_text_file_row_or_input_line(
    saved: Path, base: Path, tmp_path: Path
) -> None:
    texts = [TEXT, "I hated it", "", "好"]
    from_options = lines(
        call("predict", saved, "--base-model", base, *[part for text in texts for part in ("--text", text)])
    )
    file = write_rows(tmp_path / "rows.jsonl", [{"review": text} for text in texts])
    from_file = lines(call("predict", saved, "--base-model", base, "--file", file, "--field", "review"))
    by_column = write_rows(tmp_path / "named.jsonl", [{"text": text} for text in texts])
    by_name = lines(call("predict", saved, "--base-model", base, "--file", by_column, "--batch-size", 3))
    from_lines = lines(call("predict", saved, "--base-model", base, input="".join(f"{text}\n" for text in texts)))
    as_json = "".join(json.dumps({"t": text}) + "\n" for text in texts)
    from_json = lines(call("predict", saved, "--base-model", base, "--field", "t", input=as_json))
    assert from_options == from_file == from_json
    blank = {"label": None, "scores": {}, "skipped": "blank line"}  # a line that is none still has its line of output
    assert from_lines == [blank if not text else row for text, row in zip(texts, from_options, strict=True)]
    assert [row["label"] for row in from_options] == [row["label"] for row in by_name]
    for row in from_options:
        assert set(row["scores"]) == {"negative", "positive"}
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["scores"], key=row["scores"].get)


def test_predict_prints_the_rows_before_a_bad_one_and_names_its_line(saved: Path, base: Path, tmp_path: Path) -> None:
    result = call("predict", saved, "--base-model", base, "--field", "t", input='{"t": "a"}\n{"t": "\\ud800"}\n')
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 1
    assert "error: standard input, line 2: " in result.stderr
    assert "surrogate" in result.stderr
    bad_bytes = mistake("predict", saved, "--base-model", base, input=b"good\n\xff\n")
    assert "standard input, line 2: byte 1 is not UTF-8" in bad_bytes
    file = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": None}])
    assert "rows.jsonl, line 2" in mistake("predict", saved, "--base-model", base, "--file", file)


def test_predict_takes_a_very_long_text_and_control_characters(saved: Path, base: Path) -> None:
    result = call(
        "predict", saved, "--base-model", base, "--text", "great " * 20_000, "--text", "\x1b[31m\x00 [b]x[/b]"
    )
    assert len(lines(result)) == 2


def test_show_tells_the_kinds_of_tokens_apart(saved: Path, recipe: Path) -> None:
    for target in (saved, recipe):
        result = call("show", target, "--text", f"{TEXT} [b]x[/b] \x1b[31m")
        assert result.exit_code == 0, result.stderr
        shown = result.stdout.splitlines()
        assert shown[0].split() == ["soft", "3", "<|soft_0|>", "…", "<|soft_2|>"]
        assert [line.split()[0] for line in shown[:5]] == ["soft", "template", "field", "template", "slot"]
        assert "\x1b" not in result.stdout
        assert "\\x1b" in result.stdout
        assert shown[-1].startswith("Tokenisation ")


def test_show_says_where_tokenisation_differs(recipe: Path) -> None:
    template = "template='{soft:2}{text}ly good{mask}'"
    result = call("show", recipe, "--text", "real", "--set", template)
    assert result.exit_code == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith(("Tokenisation differs from the prompt written as one string: ", "Tokenisation is that"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "/no/such"], "no recipe at /no/such"),
        (["run", "RECIPE", "--seeds", "a"], "--seeds 'a' is not a list of whole numbers"),
        (["run", "RECIPE", "--output-dir", "SAVED"], "add --overwrite"),
        (["run", "RECIPE", "--set", "training.max_steps=0"], "--set training.max_steps"),
        (["run", "RECIPE", "--set", "base_model.path=/no"], "not a folder with a config.json"),
        (["predict", "/no/such", "--text", "a"], "no such folder: /no/such"),
        (["predict", "RECIPE", "--text", "a"], "it is a recipe: run it first"),
        (["predict", "BASE", "--text", "a"], "holds a model of type 'llama'"),
        (["predict", "SAVED", "--text", "a", "--base-model", "/no/such"], "/no/such"),
        (["predict", "SAVED", "--text", "a"], "tests/tiny-llama"),
        (["predict", "SAVED", "--text", "a", "--file", "b.jsonl"], "--text and --file exclude each other"),
        (["predict", "SAVED", "--text", "a", "--field", "text"], "--field names columns"),
        (["predict", "SAVED", "--base-model", "BASE", "--file", "/no.jsonl"], "no such file"),
        (["predict", "SAVED", "--base-model", "BASE", "--text", "a", "--text-pair", "b"], "has one field"),
        (["show", "SAVED", "--text", "a", "--text-pair", "b"], "text_pair"),
        (["show", "SAVED", "--text", "a", "--set", "name=x"], "is no recipe"),
        (["show", "/no/such", "--text", "a"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, saved: Path, recipe: Path, base: Path
) -> None:
    places = {"RECIPE": recipe, "SAVED": saved, "BASE": base}
    assert said in mistake(*(places.get(argument, argument) for argument in arguments))


def test_damaged_folders_are_one_line_each(saved: Path, base: Path, tmp_path: Path) -> None:
    def copy(name: str, file: str, content: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for entry in saved.iterdir():
            (folder / entry.name).write_bytes(content if entry.name == file else entry.read_bytes())
        return folder

    weights = (saved / "model.safetensors").read_bytes()
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    newer = json.dumps({**values, "format_version": 99, "checksums": None})
    cases = {
        "truncated": ("model.safetensors", weights[: len(weights) // 2], "model.safetensors"),
        "newer": ("config.json", newer.encode(), "newer|reads up to"),
        "config": ("config.json", b"{", "unreadable"),
        "tokenizer": ("tokenizer.json", b'{"a": 1}', "tokenizer.json is not as it was saved"),
    }
    for name, (file, content, said) in cases.items():
        line = mistake("predict", copy(name, file, content), "--text", "a", "--base-model", base)
        assert any(part in line for part in said.split("|")), line


def test_debug_shows_the_traceback(recipe: Path) -> None:
    result = call("check", recipe, "--set", "nam=x", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_every_command_has_help_with_examples() -> None:
    for command in ("run", "check", "predict", "show"):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert f"hf-prompting {command} " in result.stdout.replace("\n", " ")
        assert "Examples" in result.stdout
    assert "run" in call("--help").stdout
    assert call("--version").stdout.strip()[0].isdigit()


def test_the_module_is_the_same_command_and_survives_a_closed_pipe(saved: Path, base: Path) -> None:
    command = [sys.executable, "-m", "hf_prompting", "predict", str(saved), "--base-model", str(base)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        [*command, "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"great\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["label"] in {"negative", "positive"}
        process.stdout.close()
        process.stdin.write(b"bad\n" * 3)
        process.stdin.close()
        errors = process.stderr.read().decode()
        assert process.wait(timeout=60) == 1
    assert "Traceback" not in errors


def test_show_says_that_a_recipe_of_another_task_has_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: generation\n", encoding="utf-8")
    assert "recipe of task 'generation'; show is for prompts" in mistake("show", tmp_path, "--text", TEXT)
