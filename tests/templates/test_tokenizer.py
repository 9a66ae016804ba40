from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from tiny_tokenizers import ALL_TOKENIZERS, bert_wordpiece, byte_level_bpe, gemma_bpe, qwen_bpe
from transformers import AutoTokenizer, DataCollatorWithPadding, PreTrainedTokenizerFast

from hf_prompting.checksums import seal
from hf_prompting.errors import FieldError, InputTextError, TemplateLengthError, TemplateSyntaxError
from hf_prompting.templates import PromptTemplate, PromptTokenizer, SlotKind, compile_template

SOURCE = "{soft:3}Review: {text} \nThe movie was{mask}"
LONG = "The movie was great and the actors were good. " * 20


def prompt_tokenizer(source: str = SOURCE, base: PreTrainedTokenizerFast | None = None) -> PromptTokenizer:
    return compile_template(PromptTemplate.parse(source), base or qwen_bpe(), slot=SlotKind.CAUSAL).tokenizer


def test_a_tokenizer_tells_its_template_and_its_lengths():
    tokenizer = prompt_tokenizer()
    assert tokenizer.prompt_template == PromptTemplate.parse(SOURCE)
    assert tokenizer.num_template_tokens == len(tokenizer("")["input_ids"])
    assert len(tokenizer.soft_token_ids) == 3
    plain = PromptTokenizer(tokenizer_object=qwen_bpe().backend_tokenizer)
    assert plain.prompt_template is None and plain.soft_token_ids == ()
    assert plain("good")["input_ids"] == qwen_bpe()("good")["input_ids"]


def test_it_has_no_init_of_its_own():
    """transformers rebuilds the pipeline of a class with ``__init__`` when it loads it, and would drop the template."""
    assert "__init__" not in vars(PromptTokenizer)


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_saving_and_loading_keeps_every_id(name: str, tmp_path: Path):
    tokenizer = prompt_tokenizer(base=ALL_TOKENIZERS[name]())
    tokenizer.save_pretrained(tmp_path)
    texts = ["It was good.", "很好 <|im_end|> </s> [SEP] <|soft_0|> <mask>", "", " a\n\nb"]
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is PromptTokenizer
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert loaded.prompt_template == tokenizer.prompt_template
    assert (loaded.soft_token_ids, loaded.pad_token) == (tokenizer.soft_token_ids, tokenizer.pad_token)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_the_plain_class_of_transformers_gives_the_same_ids(name: str, tmp_path: Path):
    tokenizer = prompt_tokenizer(base=ALL_TOKENIZERS[name]())
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = ["It was good.", "很好 <|im_end|> </s> [SEP] <|soft_0|> <mask>", LONG]
    kwargs = {"truncation": True, "max_length": 60, "padding": True}
    assert loaded(texts, **kwargs)["input_ids"] == tokenizer(texts, **kwargs)["input_ids"]


def test_a_fresh_process_without_this_library_gives_the_same_ids(tmp_path: Path):
    tokenizer = prompt_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    program = (
        "import sys, json\n"
        "from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "assert 'hf_prompting' not in sys.modules\n"
        "print(json.dumps(tokenizer(['It was good', '<|im_end|>'])['input_ids']))\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == tokenizer(["It was good", "<|im_end|>"])["input_ids"]


def test_copies_are_equal():
    tokenizer = prompt_tokenizer()
    tokenizer("warm up", truncation=True, max_length=20)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other("good <|im_end|>")["input_ids"] == tokenizer("good <|im_end|>")["input_ids"]
        assert other.prompt_template == tokenizer.prompt_template


@pytest.mark.parametrize("num_proc", [None, 2])
def test_datasets_map_and_the_padding_collator_need_nothing_else(num_proc: int | None):
    tokenizer = prompt_tokenizer()
    rows = Dataset.from_dict({"text": ["It was good", LONG, "很好", ""]})
    encoded = rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=40), batched=True, num_proc=num_proc
    )
    features = [{key: row[key] for key in ("input_ids", "attention_mask")} for row in encoded]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = DataCollatorWithPadding(tokenizer)(features)
        assert tuple(batch["input_ids"].shape) == (4, 40)
        for ids, mask, feature in zip(batch["input_ids"], batch["attention_mask"], features, strict=True):
            assert ids[mask.bool()].tolist() == feature["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_shortens_the_field_on_the_side_asked_for_and_nothing_else(side: str):
    tokenizer = prompt_tokenizer()
    tokenizer.truncation_side = side
    whole = tokenizer(LONG)["input_ids"]
    short = tokenizer(LONG, truncation=True, max_length=30)["input_ids"]
    empty = tokenizer("")["input_ids"]
    start = empty.index(qwen_bpe()(":")["input_ids"][0]) + 1
    room = 30 - len(empty)
    field = whole[start : start + len(whole) - len(empty)]
    assert short == empty[:start] + (field[:room] if side == "right" else field[-room:]) + empty[start:]


def test_a_limit_below_the_template_is_an_error_naming_both_numbers():
    tokenizer = prompt_tokenizer()
    num = tokenizer.num_template_tokens
    with pytest.raises(TemplateLengthError, match=f"max_length is {num - 1}, but the template alone has {num}"):
        tokenizer(LONG, truncation=True, max_length=num - 1)
    assert tokenizer(LONG, truncation=True, max_length=num)["input_ids"] == tokenizer("")["input_ids"]
    assert len(tokenizer(LONG, max_length=num - 1, truncation=False)["input_ids"]) > num


def test_a_fixed_field_is_never_shortened():
    tokenizer = prompt_tokenizer("{a} or {b:fixed}? {mask}")
    kwargs = {"truncation": True, "max_length": tokenizer.num_template_tokens + 12}
    fixed = tokenizer("", "bad story")["input_ids"]
    cut = tokenizer(LONG, "bad story", **kwargs)["input_ids"]
    assert len(cut) == kwargs["max_length"] and cut[-len(fixed) :] == fixed
    with pytest.raises(TemplateLengthError, match="fixed"):
        tokenizer("good", LONG, **kwargs)
    with pytest.raises(TemplateLengthError, match="fixed"):
        tokenizer("good", "bad", truncation=True, max_length=tokenizer.num_template_tokens)
    first = prompt_tokenizer("{a:fixed} or {b}? {mask}")
    assert first("bad", LONG, **kwargs)["input_ids"][:3] == first("bad", "")["input_ids"][:3]


@pytest.mark.parametrize("source", ["{a:fixed}{mask}", "{a:fixed} or {b:fixed}{mask}", "{a}, {b}, {c}{mask}"])
def test_what_the_tokenizer_must_not_cut_is_an_error_if_too_long(source: str):
    tokenizer = prompt_tokenizer(source)
    texts = ["good", "bad"][: len(PromptTemplate.parse(source).text_groups)]
    assert tokenizer(*texts, truncation=True, max_length=40, padding="max_length")["input_ids"]
    with pytest.raises(TemplateLengthError, match="max_length is 40"):
        tokenizer(*[[text, text + LONG] for text in texts], truncation=True, max_length=40)


def test_a_template_takes_as_many_texts_as_it_has_fields():
    one, two = prompt_tokenizer("{a}{mask}"), prompt_tokenizer("{a} or {b}{mask}")
    for call in (lambda: one("x", "y"), lambda: one([("x", "y")]), lambda: two("x"), lambda: two(["x", "y"])):
        with pytest.raises(FieldError, match="the template takes"):
            call()
    with pytest.raises(FieldError, match="is_split_into_words"):
        one([["a", "b"]], is_split_into_words=True)
    assert two([("x", "y")])["input_ids"] == two(["x"], ["y"])["input_ids"]


def test_an_empty_second_text_is_the_same_alone_and_in_a_batch():
    two = prompt_tokenizer("{a} or {b}! {mask}")
    assert two("x", "")["input_ids"] == two(["x"], [""])["input_ids"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ab\ud800", "text has half of a surrogate pair, '\\\\ud800', at position 2"),
        (["fine", "\udfff"], r"text\[1\] has half"),
        (["fine", None], r"text\[1\] is None"),
        (["fine", 3], r"text\[1\] is int"),
        (3.5, "text is float"),
        ([], "the batch is empty"),
    ],
)
def test_what_is_no_text_is_an_error_naming_its_place(text: object, words: str):
    with pytest.raises(InputTextError, match=words):
        prompt_tokenizer()(text)


def test_the_second_text_is_checked_too():
    with pytest.raises(InputTextError, match=r"text_pair\[0\] has half"):
        prompt_tokenizer("{a} or {b}{mask}")(["x"], ["\ud800"])


def test_overflowing_tokens_work_and_a_stride_without_room_is_an_error():
    tokenizer = prompt_tokenizer()
    room = 10
    kwargs = {"truncation": True, "max_length": tokenizer.num_template_tokens + room}
    windows = tokenizer(LONG, stride=4, return_overflowing_tokens=True, **kwargs)["input_ids"]
    assert len(windows) > 10
    empty = tokenizer("")["input_ids"]
    assert all(window[:3] == empty[:3] and window[-3:] == empty[-3:] for window in windows)
    with pytest.raises(TemplateLengthError, match="stride is 10"):
        tokenizer(LONG, stride=room, **kwargs)


def test_without_special_tokens_the_template_is_left_out():
    ids = prompt_tokenizer("评论：{text}{mask}")("good", add_special_tokens=False)["input_ids"]
    assert ids == qwen_bpe()("good")["input_ids"]


@pytest.mark.parametrize("base", [byte_level_bpe, bert_wordpiece, gemma_bpe])
def test_long_texts_and_control_characters_pass(base: object):
    tokenizer = prompt_tokenizer(base=base())  # type: ignore[operator]
    assert len(tokenizer("很好 good\n" * 12_500, truncation=True, max_length=100)["input_ids"]) == 100
    assert tokenizer("\x00\x07\x1b\u200b\ufeff\x7f")["input_ids"][:1] == tokenizer("")["input_ids"][:1]


def test_a_malformed_template_in_a_saved_folder_is_an_error_on_use(tmp_path: Path):
    prompt_tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace("{soft:3}", "{soft:"))
    seal(path, ["tokenizer.json"])
    loaded = PromptTokenizer.from_pretrained(tmp_path)
    with pytest.raises(TemplateSyntaxError):
        loaded("good")


def test_soft_tokens_are_skipped_when_decoding():
    tokenizer = prompt_tokenizer("{soft:2}{text}<|im_end|>{mask}")
    assert tokenizer.decode(tokenizer("good")["input_ids"], skip_special_tokens=True) == "good"


def test_the_plain_class_puts_a_second_text_right_behind_the_only_field(tmp_path: Path):
    tokenizer = prompt_tokenizer("{soft:1}{text}!{mask}")
    tokenizer.save_pretrained(tmp_path)
    plain = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert plain("good", " bad")["input_ids"] == tokenizer("good bad")["input_ids"]
