from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prompting.errors import TemplateSyntaxError
from hf_prompting.templates import AnswerSlot, Field, PromptTemplate, SoftTokens, Text
from hf_prompting.templates.parser import parse_segments, write_segments
from hf_prompting.templates.segments import MAX_SOFT_TOKENS

READINGS = {
    "{mask}": (AnswerSlot(),),
    "{ mask }": (AnswerSlot(),),
    "It was {mask}.": (Text("It was "), AnswerSlot(), Text(".")),
    "{text}{mask}": (Field("text"), AnswerSlot()),
    "{ my column }{mask}": (Field("my column"), AnswerSlot()),
    "{评论}：{mask}": (Field("评论"), Text("："), AnswerSlot()),
    "{text:fixed}{mask}": (Field("text", may_shorten=False), AnswerSlot()),
    "{text : fixed }{mask}": (Field("text", may_shorten=False), AnswerSlot()),
    "{soft:20}{mask}": (SoftTokens(20), AnswerSlot()),
    "{soft: 007 }{mask}": (SoftTokens(7), AnswerSlot()),
    "{soft:2:good or bad?}{mask}": (SoftTokens(2, "good or bad?"), AnswerSlot()),
    "{soft:2:a: b}{mask}": (SoftTokens(2, "a: b"), AnswerSlot()),
    "{soft:2: spaces stay }{mask}": (SoftTokens(2, " spaces stay "), AnswerSlot()),
    "{soft:2:a {{b}} c}{mask}": (SoftTokens(2, "a {b} c"), AnswerSlot()),
    "{soft:1}a{soft:1}{mask}": (SoftTokens(1), Text("a"), SoftTokens(1), AnswerSlot()),
    "{{not a field}} {mask}": (Text("{not a field} "), AnswerSlot()),
    "{mask} {{{text}}}": (AnswerSlot(), Text(" {"), Field("text"), Text("}")),
    "[SEP]\n</s>{mask}": (Text("[SEP]\n</s>"), AnswerSlot()),
}


@pytest.mark.parametrize("source", READINGS)
def test_a_template_string_reads_as_its_segments_and_writes_back(source: str):
    template = PromptTemplate.parse(source)
    assert template.segments == READINGS[source]
    assert PromptTemplate.parse(str(template)) == template


MISTAKES = {
    "": (1, "no answer slot"),
    "{text}": (7, "no answer slot"),
    "{MASK} {text}": (14, "Did you mean 'mask'"),
    "{mask} or {mask}": (11, "a second {mask}"),
    "It was {mask .": (8, "'{' at column 8 is never closed"),
    "{text {mask}": (7, "inside the braces opened at column 1"),
    "{te{{xt}}{mask}": (4, "inside the braces opened at column 1"),
    "a } b {mask}": (3, "write '}}'"),
    "{}{mask}": (1, "name no column"),
    "{ }{mask}": (1, "name no column"),
    "{:fixed}{mask}": (1, "name no column"),
    "{a}{b}{a}{mask}": (7, "field 'a' is used twice"),
    "{text:fxed}{mask}": (1, "Did you mean 'fixed'?"),
    "{text:}{mask}": (1, "unknown modifier ''"),
    "{sof:20}{mask}": (1, "Did you mean 'soft'?"),
    "{mask:2}": (1, "takes nothing after a ':'"),
    "{soft}{mask}": (1, "needs a number"),
    "{soft:}{mask}": (1, "from 1 to"),
    "{soft:0}{mask}": (1, "from 1 to"),
    "{soft:-1}{mask}": (1, "from 1 to"),
    "{soft:two}{mask}": (1, "from 1 to"),
    "{soft:²}{mask}": (1, "from 1 to"),
    f"{{soft:{MAX_SOFT_TOKENS + 1}}}{{mask}}": (1, "from 1 to"),
    "{soft:" + "9" * 5000 + "}{mask}": (1, "from 1 to"),
    "{soft:2:}{mask}": (9, "initial text of the soft tokens is empty"),
    "{soft:2:never closed {mask}": (22, "inside the initial text"),
    "{soft:2:never closed}} ": (1, "never closed"),
    "half \ud83d {mask}": (6, "surrogate"),
}


@pytest.mark.parametrize("source", MISTAKES)
def test_a_mistake_is_shown_with_its_column(source: str):
    column, words = MISTAKES[source]
    with pytest.raises(TemplateSyntaxError) as caught:
        PromptTemplate.parse(source)
    assert str(caught.value).startswith(f"column {column}: ")
    assert words in str(caught.value)
    str(caught.value).encode("utf-8")


def test_the_caret_stands_under_the_mistake_even_after_wide_characters():
    with pytest.raises(TemplateSyntaxError) as caught:
        PromptTemplate.parse("评论：{text}\n情感 } {mask}")
    _, excerpt, caret = str(caught.value).splitlines()
    assert excerpt == "  评论：{text}⏎情感 } {mask}"
    columns = sum(
        2 if character > "\u2fff" or character == "：" else 1 for character in excerpt[: excerpt.index(" }") + 1]
    )
    assert caret.index("^") == columns


def test_a_long_template_is_shown_in_part():
    with pytest.raises(TemplateSyntaxError) as caught:
        PromptTemplate.parse("x" * 1000 + "}" + "y" * 1000)
    assert len(str(caught.value)) < 250


def test_segments_that_no_string_stands_for_are_refused():
    for segments in (
        (SoftTokens(1, "a"), Text("}"), AnswerSlot()),
        (Text("a"), Text("b"), AnswerSlot()),
        (Text(""), AnswerSlot()),
        (Field("a:b"), AnswerSlot()),
        (Field("mask"), AnswerSlot()),
        (SoftTokens(0), AnswerSlot()),
        (Field("a"),),
    ):
        with pytest.raises(TemplateSyntaxError):
            PromptTemplate(segments)


def test_a_template_counts_and_drops_its_soft_tokens():
    template = PromptTemplate.parse("{soft:2:x}It was {soft:3}so {mask}")
    assert template.num_soft_tokens == 5
    assert str(template.without_soft_tokens()) == "It was so {mask}"


@given(st.text(alphabet=st.sampled_from("{}:ab 评masksoftfixed123\n")))
def test_any_text_is_a_template_that_writes_back_or_a_syntax_error(source: str):
    try:
        segments = parse_segments(source)
    except TemplateSyntaxError:
        return
    assert parse_segments(write_segments(segments)) == segments


@given(st.text(), st.text(min_size=1))
def test_any_text_can_stand_in_a_template_with_its_braces_doubled(text: str, initial: str):
    def escape(value: str) -> str:
        return value.replace("{", "{{").replace("}", "}}")

    source = escape(text) + "{soft:2:" + escape(initial) + "}{mask}"
    template = PromptTemplate.parse(source)
    assert str(template) == source
    assert SoftTokens(2, initial) in template.segments
