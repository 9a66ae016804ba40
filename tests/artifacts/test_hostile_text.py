"""Text of a template, label or card cannot break out of the card, the export's README, or the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from classifier_parts import TOKENIZERS, classifier
from markdown_it import MarkdownIt
from tiny_models import tiny_model
from typer.testing import CliRunner

from hf_prompting import Verbalizer
from hf_prompting.artifacts.escaping import visible
from hf_prompting.artifacts.export_card import export_card
from hf_prompting.artifacts.prompt_record import prompt_record
from hf_prompting.artifacts.push import prepare
from hf_prompting.cli import app

SCRIPT = "<script>alert(1)</script>"
ANSI = "\x1b[2J\x1b[31mred\x9b1m\x07"
TURNED = "\u202etxt.exe\u2066\u200b"
YAML = "\n---\nlicense: mit\n---\n# Owned\n```\n[link](javascript:alert(1)) ![x](http://x/y) | cell |"
NASTY = SCRIPT + ANSI + TURNED + YAML
LABELS = {NASTY: ["great"], f"b{NASTY}": ["bad"]}
TEMPLATE = "{soft:2}" + NASTY.replace("{", "{{") + "{text} It was{mask}"
PAGES: dict[str, Callable[[Path], str]] = {
    "card": lambda folder: (folder / "README.md").read_text(encoding="utf-8"),
    "plain": lambda folder: export_card("plain", json.loads((folder / "record.json").read_text(encoding="utf-8"))),
    "embeds": lambda folder: export_card("embeds", json.loads((folder / "record.json").read_text(encoding="utf-8"))),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved folder as somebody else might have put it on the Hub, with the card that a push writes."""
    tokenizer = TOKENIZERS["gpt2"]()
    base = Path(tmp_path_factory.mktemp("under_hostile") / "base")
    tiny_model("gpt2", vocab_size=len(tokenizer), n_positions=1024).save_pretrained(base)
    tokenizer.save_pretrained(base)
    model, compiled = classifier(str(base), "gpt2", template=TEMPLATE, verbalizer=Verbalizer(LABELS))
    saved, folder = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("pushed")
    model.save_pretrained(saved)
    compiled.save_pretrained(saved)
    prepare(saved, folder, repo_id="me/x", base_model="org/base")
    record = {**prompt_record(model, compiled), "base_model": NASTY}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def steers(text: str) -> str:
    """Characters that move a cursor, hide or reorder text; line breaks are wanted."""
    return "".join(one for one in text if one != "\n" and visible(one) != one)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_breaks_out_of_a_page(hostile: Path, page: str) -> None:
    text = PAGES[page](hostile)
    assert steers(text) == ""
    body = text
    if page == "card":
        header, body = re.split(r"(?m)^---$", text, maxsplit=2)[1:]
        assert "license" not in yaml.safe_load(header)
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert "<script" not in html and "<img" not in html and "<a " not in html
    assert html.count("<h1") == 1 and "<h1>Owned" not in html
    assert html.count("<table>") == 1 and html.count("<tr>") == 3


def test_the_card_of_a_run_escapes_what_turns_the_reading_order_in_its_header_too() -> None:
    from test_model_card import CONTENTS

    from hf_prompting.artifacts import model_card

    values: dict[str, Any] = {
        **vars(CONTENTS),
        "name": NASTY,
        "base_model": NASTY,
        "dataset": NASTY,
        "language": [NASTY],
    }
    card = model_card(type(CONTENTS)(**values))
    assert steers(card) == ""
    header = yaml.safe_load(re.split(r"(?m)^---$", card, maxsplit=2)[1])
    assert header["base_model"] == header["language"][0] == header["model-index"][0]["name"] == NASTY


@pytest.mark.parametrize("command", [["show", "--text", NASTY], ["predict", "--text", NASTY]], ids=["show", "predict"])
def test_nothing_breaks_out_into_the_terminal(hostile: Path, tmp_path: Path, command: list[str]) -> None:
    base = next(hostile.parent.glob("under_hostile*")) / "base"
    extra = ["--base-model", str(base)] if command[0] == "predict" else []
    result = CliRunner().invoke(app, [command[0], str(hostile), *command[1:], *extra])
    assert result.exit_code == 0, result.output
    assert steers(result.stdout) == ""
    if command[0] == "predict":
        assert json.loads(result.stdout)["label"] in LABELS


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_nothing_breaks_out_of_an_error(hostile: Path, tmp_path: Path, name: str) -> None:
    for file in hostile.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    changed = {"config.json": {"model_type": NASTY}, "tokenizer_config.json": {"prompt_template_source": NASTY + "{x"}}
    (tmp_path / name).write_text(json.dumps({**values, **changed[name]}), encoding="utf-8")
    for arguments in (["predict", str(tmp_path), "--text", "x"], ["push", str(tmp_path), "--repo-id", "me/x"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert steers(result.stderr) == "" and len(result.stderr.splitlines()) == 1
