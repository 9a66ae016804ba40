"""The model card: its header parses, and no foreign text becomes markup."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_prompting.artifacts import CardContents, installed_versions, model_card
from hf_prompting.artifacts.escaping import fenced, inline, json_line, visible

CONTENTS = CardContents(
    name="tiny",
    description="Tells good from bad.",
    base_model="owner/base",
    base_revision="abc",
    template="{soft:3}Review: {text}\nIt was{mask}",
    fields=["text"],
    label_words={"negative": ["bad"], "positive": ["good", "好"]},
    num_trained=9600,
    results={"zero-shot": {"accuracy": 0.5}, "tuned, seed 0": {"accuracy": 0.75}},
    spread={"accuracy": (0.74, 0.01)},
    tuned={"accuracy": 0.75},
    num_test_rows=1018,
    dataset="reviews",
    credit="By somebody, CC BY 4.0.",
    language=["en"],
    license="cc-by-4.0",
    picture="results.png",
    recipe={"name": "tiny", "template": "a\nb"},
    versions={"torch": "2.13.0"},
)
NASTY = "<script>alert(1)</script> [x](javascript:1) ![y](z) `c` | **b** \x1b[31m\u202e\n# H\n---\n{% raw %} & www.x.y"


def test_the_header_is_what_the_hub_reads() -> None:
    header = ModelCard(model_card(CONTENTS)).data
    assert header.base_model == "owner/base"
    assert header.library_name == "hf_prompting"
    assert header.license == "cc-by-4.0"
    assert header.language == ["en"]
    assert header.eval_results is not None
    assert header.eval_results[0].metric_value == 0.75


def test_the_card_says_numbers_words_template_and_recipe() -> None:
    card = model_card(CONTENTS)
    assert "| mean ± standard deviation | 0.740 ± 0.010 |" in card
    assert "| 1 | positive | good, 好 |" in card
    assert "{soft:3}Review: {text}\nIt was{mask}" in card
    assert 'template: "a\\nb"' in card
    assert "![Learning curve and confusion matrix](results.png)" in card
    assert "1,018 test rows" in card


def test_templates_with_two_or_three_fields_show_how_to_call_them() -> None:
    assert '"text_pair"' in model_card(dataclasses.replace(CONTENTS, fields=["a", "b"]))
    assert "pipeline(" not in model_card(dataclasses.replace(CONTENTS, fields=["a", "b", "c"]))


def test_foreign_text_stays_text_everywhere() -> None:
    nasty = dataclasses.replace(
        CONTENTS,
        name=NASTY,
        description=NASTY,
        base_model=NASTY,
        template=NASTY + "````",
        label_words={NASTY: [NASTY], "b": ["x"]},
        dataset=NASTY,
        credit=NASTY,
        language=[NASTY],
        recipe={"name": NASTY, NASTY: [NASTY]},
        versions={NASTY: NASTY},
    )
    card = model_card(nasty)
    header, body = re.split(r"(?m)^---$", card, maxsplit=2)[1:]
    assert yaml.safe_load(header)["base_model"] == NASTY
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert "<script" not in html
    assert "javascript:1" not in re.sub(r"<code.*?</code>", "", html, flags=re.S) or "href" not in html
    assert html.count("<img") == 1
    assert "<a " not in html
    assert "\x1b" not in body
    assert "\u202e" not in body
    assert html.count("<h1") == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_inline_text_shows_as_written(text: str) -> None:
    html = MarkdownIt("commonmark").render(f"before {inline(text)} after")
    shown = MarkdownIt("commonmark").parse(f"before {inline(text)} after")[1]
    content = "".join(child.content for child in shown.children or [] if child.type in {"text", "text_special"})
    assert {child.type for child in shown.children or []} <= {"text", "text_special"}, html
    assert content == f"before {visible(text)} after"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="-+=1.) ab", max_size=8).filter(str.strip))
def test_any_text_is_one_plain_paragraph(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(inline(text.strip()))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]


def test_a_fence_is_longer_than_any_inside() -> None:
    assert fenced("````").startswith("`````\n")


def test_control_characters_and_half_surrogates_become_visible() -> None:
    assert visible("a\x1b\x9b\u202e\ud800\u2028好é") == "a\\x1b\\x9b\\u202e\\ud800\\u2028好é"


@pytest.mark.parametrize("package", ["torch", "transformers", "peft", "hf_prompting", "python"])
def test_versions_name_what_can_change_a_result(package: str) -> None:
    assert installed_versions()[package] != "unknown"


@given(st.text(max_size=20))
def test_a_line_of_json_hides_nothing_and_is_read_back_as_it_was(text: str) -> None:
    line = json_line({"label": text})
    assert json.loads(line) == {"label": text}
    assert visible(line) == line


def test_a_direction_override_in_a_label_is_escaped_in_json() -> None:
    assert json_line({"label": "好\u202e\u009b\U000e0041"}) == r'{"label": "好\u202e\u009b\udb40\udc41"}'
    assert json_line("好", ascii_only=True) == r'"\u597d"'
