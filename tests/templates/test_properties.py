"""Random templates, texts and limits: every outcome is a right prompt or one of the library's own errors."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import ALL_TOKENIZERS

from hf_prompting.errors import HfPromptingError, TemplateSyntaxError
from hf_prompting.templates import CompiledTemplate, PromptTemplate, SlotKind, compile_template

SLOT_OF = {"bert_wordpiece": SlotKind.MASK, "roberta_bpe": SlotKind.MASK, "t5_unigram": SlotKind.SENTINEL}
PIECES = [
    "{soft:2}",
    "{soft:1:good}",
    "{soft:3}",
    " ",
    "\n",
    "Review: ",
    "评论：",
    ". ",
    "It was ",
    "{{}}",
    "[SEP]",
    "</s>",
]
FIELDS = ["{a}", "{b}", "{c:fixed}", "{d}"]

pieces = st.lists(st.sampled_from(PIECES), max_size=2)
few = st.sampled_from(["", "", "", "{soft:2}", "[SEP]", "</s>"])
between = st.tuples(st.sampled_from([" ", "\n", ". ", "，", " and ", "{{}}"]), few).map("".join)
fields = st.lists(st.tuples(st.sampled_from(FIELDS), between), min_size=1, max_size=4, unique_by=lambda pair: pair[0])
templates = st.tuples(pieces, fields, pieces).map(
    lambda drawn: "".join([*drawn[0], *(field + rest for field, rest in drawn[1]), *drawn[2], "{mask}"])
)
words = st.sampled_from(
    ["good", " bad", "很好", "。", ".", "\n", "  ", "😀", "<|im_end|>", "</s>", "[MASK]", "<|soft_0|>", "<think>"]
)
texts = st.one_of(st.lists(words, max_size=12).map("".join), st.text(max_size=20))


@cache
def compiled(name: str, source: str) -> CompiledTemplate | HfPromptingError:
    try:
        return compile_template(
            PromptTemplate.parse(source), ALL_TOKENIZERS[name](), slot=SLOT_OF.get(name, SlotKind.CAUSAL)
        )
    except HfPromptingError as error:
        return error


@settings(deadline=None, max_examples=3_000)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*PIECES, *FIELDS, "{", "}", "{mask}"])).map("".join)))
def test_any_text_is_a_template_that_can_be_written_again_or_a_syntax_error(source: str):
    try:
        template = PromptTemplate.parse(source)
    except TemplateSyntaxError:
        return
    assert PromptTemplate.parse(str(template)) == template


@settings(deadline=None, max_examples=2_000)
@given(
    name=st.sampled_from(sorted(ALL_TOKENIZERS)),
    source=templates,
    rows=st.lists(st.tuples(texts, texts, texts, texts), min_size=1, max_size=3),
    max_length=st.integers(5, 90),
    side=st.sampled_from(["left", "right"]),
    padding=st.booleans(),
    through_render=st.booleans(),
    more_after=st.booleans(),
    spoiled=st.integers(0, 9),
)
def test_truncation_never_cuts_the_template(
    name: str,
    source: str,
    rows: list[tuple[str, ...]],
    max_length: int,
    side: str,
    padding: bool,
    through_render: bool,
    more_after: bool,
    spoiled: int,
):
    result = compiled(name, source + "." * (more_after and name in SLOT_OF))
    if isinstance(result, HfPromptingError):
        return
    tokenizer, template = result.tokenizer, result.template
    tokenizer.truncation_side = tokenizer.padding_side = side
    columns = {name: [row[index] for row in rows] for index, name in enumerate("abcd")}
    if spoiled == 0:
        columns["a"][0] = "\ud800"
    limits = {"tokenizer": tokenizer, "max_length": max_length} if through_render else {}
    try:
        rendered = template.render_batch(columns, **limits)
        encoded = tokenizer(**rendered, truncation=True, max_length=max_length, padding=padding)
    except HfPromptingError:
        return
    empty = tokenizer(*[""] * len(rendered))["input_ids"]
    for index, (ids, mask) in enumerate(zip(encoded["input_ids"], encoded["attention_mask"], strict=True)):
        prompt = [token_id for token_id, is_token in zip(ids, mask, strict=True) if is_token]
        assert len(prompt) <= max_length
        assert _is_subsequence(empty, prompt)
        assert [i for i in prompt if i in result.soft_token_ids] == list(result.soft_token_ids)
        if result.slot_token_id is not None:
            assert prompt.count(result.slot_token_id) == result.num_slot_tokens
        fixed = encoded.encodings[index]
        if "{c:fixed}" in source and len(template.fields) <= 2:
            place = [field.name for field in template.fields].index("c")
            whole = tokenizer(**{key: values[index] for key, values in rendered.items()}).encodings[0]
            assert fixed.sequence_ids.count(place) == whole.sequence_ids.count(place)


def _is_subsequence(short: list[int], long: list[int]) -> bool:
    remaining = iter(long)
    return all(token_id in remaining for token_id in short)
