from __future__ import annotations

import numpy
import pytest
from tiny_tokenizers import byte_level_bpe

from hf_prompting.errors import FieldError, TemplateError, TemplateLengthError
from hf_prompting.templates import PromptTemplate, SlotKind, compile_template

THREE = PromptTemplate.parse("{a} then {b}, {c:fixed}.{soft:2} So{mask}")


def test_one_and_two_fields_are_the_two_texts_of_a_tokenizer():
    assert PromptTemplate.parse("{x}{mask}").render({"x": "one"}) == {"text": "one"}
    two = PromptTemplate.parse("{x} and {soft:1} {y}{mask}")
    assert two.render({"y": "2nd", "x": "1st"}) == {"text": "1st", "text_pair": "2nd"}


def test_more_fields_are_joined_with_the_text_between_them():
    assert THREE.render({"a": "x", "b": "y", "c": "z"}) == {"text": "x then y, z"}
    split = PromptTemplate.parse("{a}, {b}{soft:3}{c}: {d}{mask}")
    assert split.render({"a": "1", "b": "2", "c": "3", "d": "4"}) == {"text": "1, 2", "text_pair": "3: 4"}


def test_fields_are_not_joined_over_what_looks_like_a_special_token():
    template = PromptTemplate.parse("{a} {b}<|im_end|>\n{c}{mask}")
    assert template.render({"a": "1", "b": "2", "c": "3"}) == {"text": "1 2", "text_pair": "3"}


def test_fields_in_three_places_cannot_be_rendered():
    template = PromptTemplate.parse("{a}{soft:1}{b}{soft:1}{c}{mask}")
    with pytest.raises(TemplateError, match="3 separate texts"):
        template.render({"a": "1", "b": "2", "c": "3"})


def test_numbers_are_written_out():
    template = PromptTemplate.parse("{x}{mask}")
    assert template.render({"x": 3}) == {"text": "3"}
    assert template.render({"x": 2.5}) == {"text": "2.5"}
    assert template.render({"x": numpy.int64(7)}) == {"text": "7"}
    assert template.render({"x": ""}) == {"text": ""}


@pytest.mark.parametrize("value", [None, float("nan"), ["a"], b"a", True, {"a": 1}])
def test_a_value_that_is_no_text_is_refused_by_its_column(value: object):
    with pytest.raises(FieldError, match="column 'text'"):
        PromptTemplate.parse("{text}{mask}").render({"text": value})


def test_a_missing_column_is_named_with_the_columns_there_are():
    with pytest.raises(FieldError) as caught:
        PromptTemplate.parse("{text}{mask}").render({"txt": "a", "label": 1})
    assert "'text'" in str(caught.value) and "'txt', 'label'" in str(caught.value)
    assert "Did you mean 'txt'?" in str(caught.value)


def test_a_batch_of_columns_is_rendered_row_by_row():
    columns = {"a": ["1", "4"], "b": ["2", "5"], "c": ["3", "6"], "label": [0, 1]}
    assert THREE.render_batch(columns) == {"text": ["1 then 2, 3", "4 then 5, 6"]}
    with pytest.raises(FieldError, match="row 1 of the batch"):
        THREE.render_batch({**columns, "b": ["2", None]})
    with pytest.raises(FieldError, match="names the column 'c'"):
        THREE.render_batch({"a": ["1"], "b": ["2"]})


def test_the_whole_prompt_can_be_written_as_one_string():
    row = {"a": "x", "b": "y", "c": "z"}
    assert THREE.render_string(row) == "x then y, z. So"
    assert THREE.render_string(row, slot=" yes", soft="*") == "x then y, z.** So yes"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("spare", [0, 1, 2, 5, 11, 30])
def test_joined_fields_are_shortened_until_the_prompt_fits_and_fixed_text_stays(side: str, spare: int):
    tokenizer = compile_template(THREE, byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    tokenizer.truncation_side = side
    row = {"a": "The movie was great and the actors were good. 😀😀", "b": "很好，非常好 😀" * 3, "c": "fixed words"}
    shortest = len(tokenizer(**THREE.render({**row, "a": "", "b": ""}))["input_ids"])
    rendered = THREE.render(row, tokenizer=tokenizer, max_length=shortest + spare)
    ids = tokenizer(**rendered, truncation=True, max_length=shortest + spare)["input_ids"]
    assert len(ids) <= shortest + spare
    first, _, rest = rendered["text"].partition(" then ")
    second, _, third = rest.rpartition(", ")
    assert third == "fixed words"
    cut = str.endswith if side == "left" else str.startswith
    assert cut(row["a"], first) and cut(row["b"], second)


def test_a_prompt_that_fits_is_not_shortened():
    tokenizer = compile_template(THREE, byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    row = {"a": "The movie", "b": "was good", "c": "yes"}
    assert THREE.render(row, tokenizer=tokenizer, max_length=100) == THREE.render(row)


def test_fixed_fields_that_leave_no_room_are_an_error():
    tokenizer = compile_template(THREE, byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    with pytest.raises(TemplateLengthError, match="max_length is 12"):
        THREE.render({"a": "x", "b": "y", "c": "many fixed words " * 9}, tokenizer=tokenizer, max_length=12)


def test_shortening_needs_the_tokenizer_of_the_same_template():
    other = compile_template(PromptTemplate.parse("{a}{mask}"), byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    for tokenizer in (None, byte_level_bpe(), other):
        with pytest.raises(TemplateError, match="max_length"):
            THREE.render({"a": "x", "b": "y", "c": "z"}, tokenizer=tokenizer, max_length=9)


def test_the_columns_of_a_batch_must_be_equally_long():
    with pytest.raises(FieldError, match="'b': 1"):
        PromptTemplate.parse("{a} {b}{mask}").render_batch({"a": ["x", "y"], "b": ["z"]})


def test_a_batch_is_shortened_row_by_row_and_long_fields_share_the_loss():
    tokenizer = compile_template(THREE, byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    columns = {"a": ["good " * 4000, "x"], "b": ["很好" * 4000, "y"], "c": ["z", "z"]}
    texts = THREE.render_batch(columns, tokenizer=tokenizer, max_length=60)["text"]
    assert [len(ids) <= 60 for ids in tokenizer(texts)["input_ids"]] == [True, True]
    assert texts[1] == "x then y, z"
    assert texts[0].count("good") > 5 and texts[0].count("很好") > 5


def test_fields_that_are_not_joined_are_left_to_the_tokenizer():
    template = PromptTemplate.parse("{a} or {b}{mask}")
    tokenizer = compile_template(template, byte_level_bpe(), slot=SlotKind.CAUSAL).tokenizer
    row = {"a": "good " * 99, "b": "bad " * 99}
    rendered = template.render(row, tokenizer=tokenizer, max_length=20)
    assert rendered == {"text": row["a"], "text_pair": row["b"]}
    assert len(tokenizer(**rendered, truncation=True, max_length=20)["input_ids"]) == 20
