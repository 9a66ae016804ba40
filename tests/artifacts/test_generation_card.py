"""The model card of a generating folder: a header that the Hub reads, and no markup from foreign text."""

from __future__ import annotations

import dataclasses

import yaml

from hf_prompting.artifacts.generation_card import GenerationCard, generation_card

CARD = GenerationCard(
    name="a <b>translator</b>",
    num_parameters=1_200,
    num_trained=1_200,
    results={"ours, seed 0": {"bleu": 12.345, "chrf": 6.0}, "BART, seed 0": {"bleu": 10.0, "chrf": 5.0}},
    saved="ours, seed 0",
    num_test_rows=1051,
    samples=[{"source": "a|b", "reference": "*甲*", "text": "<script>"}],
    dataset="pairs",
    language=["en", "zh"],
    picture="results.png",
    recipe={"task": "generation"},
    versions={"transformers": "5"},
)


def test_the_header_names_task_languages_and_scores() -> None:
    header = yaml.safe_load(generation_card(CARD).split("---")[1])
    assert header["language"] == ["en", "zh"]
    result = header["model-index"][0]["results"][0]
    assert result["task"] == {"type": "text2text-generation"}
    assert result["metrics"] == [{"type": "bleu", "value": 12.35}, {"type": "chrf", "value": 6.0}]


def test_the_table_says_which_model_is_in_the_folder() -> None:
    card = generation_card(CARD)
    assert "| ours, seed 0 (this folder) | 12.35 | 6.00 |" in card or "| 12.34 | 6.00 |" in card
    assert "| BART, seed 0 | 10.00 | 5.00 |" in card
    assert "from random weights; 1,200 of its 1,200 values were trained." in card


def test_foreign_text_becomes_no_markup() -> None:
    card = generation_card(CARD)
    assert "<script>" not in card and "<b>" not in card.split("---", 2)[2]
    assert "a\\|b" in card and "\\*甲\\*" in card


def test_soft_tokens_before_the_target_need_predict() -> None:
    soft = dataclasses.replace(CARD, base_model="base", num_soft_tokens=(3, 2), num_trained=80)
    card = generation_card(soft)
    assert "3 soft tokens before the source and 2 before the target" in card
    assert "AutoModelForSeq2SeqLM" not in card and "hf-prompting predict" in card
    behind = generation_card(dataclasses.replace(soft, num_soft_tokens=(3, 0), soft_tokens_at="behind"))
    assert "3 soft tokens behind the source" in behind and "AutoModelForSeq2SeqLM" in behind
