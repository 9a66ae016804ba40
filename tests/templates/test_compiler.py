from __future__ import annotations

import pytest
from tiny_tokenizers import (
    ALL_TOKENIZERS,
    bert_wordpiece,
    byte_level_bpe,
    gemma_bpe,
    llama_metaspace_bpe,
    qwen_bpe,
    roberta_bpe,
    t5_unigram,
)
from tokenizers import AddedToken
from transformers import BertTokenizer, PreTrainedTokenizerFast

from hf_prompting.errors import TemplateError
from hf_prompting.templates import CompiledTemplate, PromptTemplate, SlotKind, SoftRun, compile_template
from hf_prompting.templates.alignment import PROBES

SLOT_OF = {"bert_wordpiece": SlotKind.MASK, "roberta_bpe": SlotKind.MASK, "t5_unigram": SlotKind.SENTINEL}
TEXTS = [
    "The movie was great, and the actors were good!",
    "I hated it.",
    "这部电影很好，演员非常好",
    "很差。",
    "2 hours, in 1999 (too long)",
    "one line\nand another\n\nand a third",
]


def compiled(source: str, tokenizer: PreTrainedTokenizerFast, slot: SlotKind, **kwargs: int) -> CompiledTemplate:
    return compile_template(PromptTemplate.parse(source), tokenizer, slot=slot, **kwargs)


def tokens(result: CompiledTemplate, *texts: str) -> list[str]:
    return result.tokenizer.convert_ids_to_tokens(result.tokenizer(*texts)["input_ids"])


def written_out(result: CompiledTemplate, tokenizer: PreTrainedTokenizerFast, *texts: str) -> list[int]:
    """The ids of the prompt written as one string: an independent way to the same prompt."""
    template = result.template
    tokenizer.add_special_tokens(
        {"extra_special_tokens": result.tokenizer.convert_ids_to_tokens(list(result.soft_token_ids))}
    )
    slot = "" if result.slot_token_id is None else tokenizer.convert_ids_to_tokens(result.slot_token_id)
    source = str(template).replace(" {mask}", "{mask}")
    row = {field.name: text for field, text in zip(template.fields, texts, strict=True)}
    string = PromptTemplate.parse(source).render_string(row, slot=slot * result.num_slot_tokens, soft="\0")
    for name in result.tokenizer.convert_ids_to_tokens(list(result.soft_token_ids)):
        string = string.replace("\0", name, 1)
    return tokenizer(string)["input_ids"]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize(
    "source",
    [
        "{soft:3}Review: {text} \nThe movie was{mask}",
        "{soft:3}评论：{text} 情感：{mask}",
        "{text} It was {mask}",
        "{soft:2}{text}{soft:2:good or bad}{mask}",
        "Text: {text} {soft:1}{mask}",
    ],
)
def test_a_prompt_has_the_ids_of_the_string_written_out(name: str, source: str):
    make = ALL_TOKENIZERS[name]
    result = compiled(source, make(), SLOT_OF.get(name, SlotKind.CAUSAL))
    reported = {difference.text for difference in result.differences}
    for text in TEXTS:
        native = result.tokenizer(text)["input_ids"]
        if name == "qwen_bpe" and "评论：{" in source and not text[0].isascii():
            continue  # "：" and the Chinese word behind it are one piece of Qwen's pattern: known, and reported below
        if name == "llama_metaspace_bpe" and "评论：{" in source and text.startswith("这"):
            continue  # BPE without words merges over the border: known, and reported below
        assert native == written_out(result, make(), text), (text, reported)


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_a_pair_has_the_ids_of_the_string_written_out(name: str):
    make = ALL_TOKENIZERS[name]
    result = compiled(
        "Premise: {a} \nHypothesis: {b} {soft:2}Answer:{mask}", make(), SLOT_OF.get(name, SlotKind.CAUSAL)
    )
    for first, second in zip(TEXTS, reversed(TEXTS), strict=True):
        assert result.tokenizer(first, second)["input_ids"] == written_out(result, make(), first, second)


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_every_probe_that_differs_is_reported_and_no_other(name: str):
    make = ALL_TOKENIZERS[name]
    result = compiled("{soft:2}Review: {text}\nThe movie was {mask}", make(), SLOT_OF.get(name, SlotKind.CAUSAL))
    reported = {difference.text: difference for difference in result.differences}
    for probe in PROBES:
        native, rendered = result.tokenizer(probe)["input_ids"], written_out(result, make(), probe)
        assert (native != rendered) == (probe in reported)
        if probe in reported:
            assert list(reported[probe].native_ids) == native
            assert list(reported[probe].rendered_ids) == rendered


def test_a_line_break_after_a_full_stop_is_reported_where_the_tokenizer_joins_them():
    result = compiled("Review: {text}\nIt was{mask}", qwen_bpe(), SlotKind.CAUSAL)
    assert "It was good." in {difference.text for difference in result.differences}


def test_sentencepiece_tokenizers_gain_no_stray_space():
    for make, slot in ((t5_unigram, SlotKind.SENTINEL), (llama_metaspace_bpe, SlotKind.CAUSAL)):
        shown = tokens(compiled("情感：{text}。{mask}", make(), slot), "电影")
        assert shown.count("▁") <= 1, shown


def test_the_tokenizer_that_is_given_stays_as_it_was():
    tokenizer = qwen_bpe()
    tokenizer("x", truncation=True, max_length=5, padding="max_length")
    before, kwargs = tokenizer.backend_tokenizer.to_str(), dict(tokenizer.init_kwargs)
    compiled("{soft:5}Review: {text}\nIt was{mask}", tokenizer, SlotKind.CAUSAL)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.init_kwargs == kwargs


def test_truncation_and_padding_of_the_given_tokenizer_are_not_kept():
    tokenizer = qwen_bpe()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    result = compiled("Review: {text}\nIt was{mask}", tokenizer, SlotKind.CAUSAL)
    assert tokens(result, "good")[-2:] == ["It", "Ġwas"]
    assert result.tokenizer.backend_tokenizer.truncation is None
    assert "max_length" not in result.tokenizer.init_kwargs
    assert result.tokenizer.model_max_length == 512


def test_soft_tokens_are_new_ids_in_template_order():
    tokenizer = byte_level_bpe()
    result = compiled("{soft:2:good}a{soft:1}{text}{soft:1: b }{mask}", tokenizer, SlotKind.CAUSAL)
    first = len(tokenizer)
    assert result.soft_token_ids == tuple(range(first, first + 4)) == result.tokenizer.soft_token_ids
    assert result.soft_runs == (
        SoftRun((first, first + 1), "good"),
        SoftRun((first + 2,), None),
        SoftRun((first + 3,), " b "),
    )


def test_soft_token_names_that_are_taken_are_skipped():
    tokenizer = byte_level_bpe()
    tokenizer.add_tokens([AddedToken("<|soft_1|>", special=True)])
    result = compiled("<|soft_3|>{soft:3}{text}{mask}", tokenizer, SlotKind.CAUSAL)
    names = result.tokenizer.convert_ids_to_tokens(list(result.soft_token_ids))
    assert names == ["<|soft_0|>", "<|soft_2|>", "<|soft_4|>"]


def test_a_causal_prompt_ends_at_the_slot_and_costs_no_token():
    result = compiled("{text} It was {mask}", llama_metaspace_bpe(), SlotKind.CAUSAL)
    assert tokens(result, "good")[0] == "<s>"
    assert tokens(result, "good")[-1] == "▁was"
    assert (result.slot_token_id, result.num_slot_tokens, result.answer_prefix) == (None, 0, " ")
    assert tokens(compiled("{text} It was{mask}", bert_wordpiece(), SlotKind.CAUSAL), "a")[-1] == "was"


def test_an_encoder_decoder_without_sentinels_keeps_its_end_token():
    result = compiled("{text} It was {mask}", t5_unigram(), SlotKind.DECODER_START)
    assert tokens(result, "good")[-2:] == ["▁was", "</s>"]
    assert (result.slot_token_id, result.num_slot_tokens) == (None, 0)


def test_a_masked_model_gets_as_many_masks_as_the_word_has_tokens():
    result = compiled("{text} It was {mask}.", bert_wordpiece(), SlotKind.MASK, num_slot_tokens=2)
    assert tokens(result, "good") == ["[CLS]", "good", "it", "was", "[MASK]", "[MASK]", ".", "[SEP]"]
    assert result.num_slot_tokens == 2


def test_the_space_before_a_mask_belongs_to_the_label_word():
    result = compiled("{text} It was {mask} .", roberta_bpe(), SlotKind.MASK)
    assert tokens(result, "很")[-6:] == ["ĠIt", "Ġwas", "<mask>", "Ġ", ".", "</s>"]
    assert result.answer_prefix == " "
    assert compiled("{text} 很{mask}", roberta_bpe(), SlotKind.MASK).answer_prefix == ""


def test_t5_gets_its_first_sentinel():
    result = compiled("{text} It was {mask} .", t5_unigram(), SlotKind.SENTINEL)
    assert tokens(result, "good")[:4] == ["▁good", "▁It", "▁was", "<extra_id_0>"]
    assert result.slot_token_id == t5_unigram().convert_tokens_to_ids("<extra_id_0>")
    assert tokens(result, "good")[-1] == "</s>"


def test_special_tokens_written_in_a_template_become_their_ids_but_never_inside_a_field():
    source = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{mask}"
    result = compiled(source, qwen_bpe(), SlotKind.CAUSAL)
    start, end = (qwen_bpe().convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))
    ids = result.tokenizer("stop<|im_end|>\n<|im_start|>system<|soft_0|>")["input_ids"]
    assert (ids.count(start), ids.count(end)) == (2, 1)
    bert = compiled("{text} [SEP] It was {mask} .", bert_wordpiece(), SlotKind.MASK)
    ids = bert.tokenizer("[MASK] [SEP] [CLS]")["input_ids"]
    assert (ids.count(bert.slot_token_id), ids.count(bert_wordpiece().sep_token_id)) == (1, 2)


def test_an_affix_that_the_template_writes_itself_is_not_doubled():
    result = compiled("<bos><start_of_turn>{text}<end_of_turn>{mask}", gemma_bpe(), SlotKind.CAUSAL)
    assert tokens(result, "很")[:2] == ["<bos>", "<start_of_turn>"]
    bert = compiled("[CLS]{text} {mask}[SEP]", bert_wordpiece(), SlotKind.MASK)
    assert tokens(bert, "good") == ["[CLS]", "good", "[MASK]", "[SEP]"]


def test_token_types_are_all_zero():
    result = compiled("{a} and {soft:2} {b}{mask}", bert_wordpiece(), SlotKind.MASK)
    assert set(result.tokenizer("a man", "is eating", return_token_type_ids=True)["token_type_ids"]) == {0}


def test_a_missing_padding_token_is_the_end_token_and_without_either_there_is_an_error():
    assert compiled("{text}{mask}", byte_level_bpe(), SlotKind.CAUSAL).tokenizer.pad_token == "<|endoftext|>"
    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe().backend_tokenizer)
    with pytest.raises(TemplateError, match="neither a padding nor an end-of-sequence token"):
        compiled("{text}{mask}", bare, SlotKind.CAUSAL)


@pytest.mark.parametrize("rest", [" indeed", "{soft:1}", "{other}"])
def test_text_after_the_slot_of_a_causal_model_is_an_error_that_says_why(rest: str):
    with pytest.raises(TemplateError, match="reads only what stands to the left"):
        compiled("{text} It was {mask}" + rest, byte_level_bpe(), SlotKind.CAUSAL)


@pytest.mark.parametrize(
    ("source", "make", "slot", "words"),
    [
        ("{text}{mask}", byte_level_bpe, SlotKind.MASK, "no mask token"),
        ("{text}{mask}", byte_level_bpe, SlotKind.SENTINEL, "no <extra_id_0>"),
        ("{text}{mask}.", t5_unigram, SlotKind.DECODER_START, "answers in its decoder"),
        ("{soft:3}{mask}", byte_level_bpe, SlotKind.CAUSAL, "has no field"),
        ("{a}{soft:1}{b}{soft:1}{c}{mask}", byte_level_bpe, SlotKind.CAUSAL, "3 separate texts"),
        ("{a} <|im_end|> {b} [X] {c} [Y] {d}{mask}", qwen_bpe, SlotKind.CAUSAL, "'<|im_end|>' stands between"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(source: str, make: object, slot: SlotKind, words: str):
    with pytest.raises(TemplateError) as caught:
        compiled(source, make(), slot)  # type: ignore[operator]
    assert words in str(caught.value)


def test_a_slot_needs_at_least_one_token():
    with pytest.raises(TemplateError, match="num_slot_tokens is 0"):
        compiled("{text}{mask}", bert_wordpiece(), SlotKind.MASK, num_slot_tokens=0)


def test_a_compiled_tokenizer_is_not_compiled_again():
    once = compiled("{text}{mask}", byte_level_bpe(), SlotKind.CAUSAL).tokenizer
    with pytest.raises(TemplateError, match="already holds the template"):
        compiled("{text}!{mask}", once, SlotKind.CAUSAL)


def test_a_slow_tokenizer_is_refused_with_the_way_out():
    from transformers import PythonBackend

    class Slow(PythonBackend):
        vocab_size = 1

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

        def _tokenize(self, text: str) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return 0

    with pytest.raises(TemplateError, match="slow tokenizer"):
        compile_template(PromptTemplate.parse("{text}{mask}"), Slow(), slot=SlotKind.CAUSAL)


def test_a_typed_tokenizer_class_compiles_and_keeps_its_settings():
    vocab = {
        token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "it", "was"])
    }
    typed = BertTokenizer(vocab=vocab, model_max_length=99, padding_side="left")
    result = compiled("{text} It was {mask}", typed, SlotKind.MASK)
    assert tokens(result, "good") == ["[CLS]", "good", "it", "was", "[MASK]", "[SEP]"]
    assert (result.tokenizer.model_max_length, result.tokenizer.padding_side) == (99, "left")
