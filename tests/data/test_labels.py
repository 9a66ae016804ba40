"""Label columns, few-shot draws and tokenised rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from tiny_recipes import labelled_rows, write_rows
from tiny_tokenizers import smollm_bpe

from hf_prompting.data import Rows, encode_labels, label_text, load_rows, sample_few_shot, tokenize_rows
from hf_prompting.errors import DataError, HfPromptingError
from hf_prompting.templates import PromptTemplate, SlotKind, compile_template


def rows_of(labels: list[object]) -> Rows:
    return Rows(Dataset.from_dict({"label": labels}), "made.jsonl")


def test_numbers_and_booleans_are_labels_as_a_recipe_writes_them() -> None:
    assert [label_text(value) for value in (1, 1.0, 1.5, True, False, "no")] == ["1", "1", "1.5", "true", "false", "no"]


def test_labels_are_numbered_in_the_verbalizers_order() -> None:
    assert encode_labels(rows_of([1, 0, 1]), "label", {"0": 0, "1": 1}) == [1, 0, 1]
    named = Dataset.from_dict({"label": [1, 0]}, features=Features({"label": ClassLabel(names=["neg", "pos"])}))
    assert encode_labels(Rows(named, "imdb[test]"), "label", {"pos": 0, "neg": 1}) == [0, 1]


def test_an_unknown_label_is_named_with_line_and_nearest_label(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"label": "positive"}, {"label": "postive"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: label 'postive'.*Did you mean 'positive'"):
        encode_labels(load_rows(file.parent, file.name), "label", {"negative": 0, "positive": 1})


def test_a_few_shot_draw_is_balanced_repeatable_and_in_file_order() -> None:
    rows = Rows(Dataset.from_dict({"label": ["a", "b"] * 20, "n": list(range(40))}), "made.jsonl")
    drawn = list(sample_few_shot(rows, column="label", num_per_label=3, seed=0).table["n"])
    assert drawn == sorted(drawn)
    assert sum(n % 2 for n in drawn) == 3
    assert drawn == list(sample_few_shot(rows, column="label", num_per_label=3, seed=0).table["n"])
    assert drawn != list(sample_few_shot(rows, column="label", num_per_label=3, seed=1).table["n"])


def test_too_few_rows_for_a_draw_is_an_error() -> None:
    with pytest.raises(DataError, match="2 rows of label 'b', fewer than the 3"):
        sample_few_shot(rows_of(["a"] * 3 + ["b"] * 2), column="label", num_per_label=3, seed=0)


def test_tokenised_rows_are_those_of_the_tokenizer_itself(tmp_path: Path) -> None:
    template = PromptTemplate.parse("{soft:2}Review: {text}\nThe movie was{mask}")
    tokenizer = compile_template(template, smollm_bpe(), slot=SlotKind.CAUSAL).tokenizer
    rows = load_rows(write_rows(tmp_path / "a.jsonl", labelled_rows(4)).parent, "a.jsonl")
    table = tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=24, labels=[0, 1, 0, 1])
    assert table.column_names == ["input_ids", "attention_mask", "length", "labels"]
    for row, text in zip(table, rows.table["text"], strict=True):
        assert row["input_ids"] == tokenizer(text, truncation=True, max_length=24)["input_ids"]
        assert row["length"] == len(row["input_ids"]) <= 24
    assert table["labels"][:] == [0, 1, 0, 1]


def test_two_texts_across_many_batches_are_those_of_the_tokenizer_itself() -> None:
    template = PromptTemplate.parse("{soft:1}{a} 是 {soft:1}{b}?{mask}")
    tokenizer = compile_template(template, smollm_bpe(), slot=SlotKind.CAUSAL).tokenizer
    texts = ["good", "", "很好 👍", "a long text " * 4, "0"]
    columns = {"a": [texts[n % 5] for n in range(600)], "b": [texts[n % 3] for n in range(600)]}
    rows = Rows(Dataset.from_dict(columns), "made.csv").select(range(599, -1, -1))
    table = tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=16, labels=range(600))
    for row, a, b in zip(table, rows.values("a"), rows.values("b"), strict=True):
        assert row["input_ids"] == tokenizer(a, b, truncation=True, max_length=16)["input_ids"]
        assert row["attention_mask"] == [1] * row["length"]
    assert table["labels"][:] == list(range(600))


def test_a_row_that_cannot_be_tokenised_is_named_by_its_line(tmp_path: Path) -> None:
    template = PromptTemplate.parse("{text:fixed} {soft:2}{mask}")
    tokenizer = compile_template(template, smollm_bpe(), slot=SlotKind.CAUSAL).tokenizer
    rows = load_rows(write_rows(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "long " * 50}]).parent, "a.jsonl")
    with pytest.raises(HfPromptingError, match=r"a\.jsonl, line 2: "):
        tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=16)


def test_a_column_of_numbers_is_a_field_too() -> None:
    template = PromptTemplate.parse("{n} {soft:2}{mask}")
    tokenizer = compile_template(template, smollm_bpe(), slot=SlotKind.CAUSAL).tokenizer
    rows = Rows(Dataset.from_dict({"n": [1, 2]}, features=Features({"n": Value("int64")})), "made.csv")
    assert len(tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=16)) == 2
