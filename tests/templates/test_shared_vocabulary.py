"""Copies of tokenizers over one vocabulary: nothing else of them is shared, and they encode alike."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tiny_tokenizers import bert_wordpiece, byte_level_bpe, gemma_bpe, llama_metaspace_bpe, qwen_bpe, t5_unigram
from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerFast

from hf_prompting.templates.compiler import SlotKind, compile_template
from hf_prompting.templates.shared_vocabulary import share_vocabulary
from hf_prompting.templates.template import PromptTemplate

TOKENIZERS = [bert_wordpiece, byte_level_bpe, gemma_bpe, llama_metaspace_bpe, qwen_bpe, t5_unigram]


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_copy_is_the_same_tokenizer_without_truncation_and_padding(
    make: Callable[[], PreTrainedTokenizerFast],
) -> None:
    backend = make().backend_tokenizer
    backend.add_tokens([AddedToken("  spaced ", normalized=True, lstrip=True), AddedToken("<|x|>", special=True)])
    expected = json.loads(backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding()
    copy = share_vocabulary(backend)
    assert json.loads(copy.to_str()) == {**expected, "truncation": None, "padding": None}


def test_changes_of_a_copy_stay_there() -> None:
    backend = byte_level_bpe().backend_tokenizer
    before = backend.to_str()
    copy = share_vocabulary(backend)
    copy.add_special_tokens(["<|soft_0|>"])
    copy.normalizer = normalizers.Lowercase()
    copy.post_processor = None
    copy.pre_tokenizer.add_prefix_space = not copy.pre_tokenizer.add_prefix_space
    assert backend.to_str() == before


def test_compiling_a_template_does_not_copy_the_vocabulary() -> None:
    tokenizer = gemma_bpe()
    compiled = compile_template(PromptTemplate.parse("{text} It was{mask}"), tokenizer, slot=SlotKind.CAUSAL)
    assert tokenizer.backend_tokenizer.model.dropout is None
    tokenizer.backend_tokenizer.model.dropout = 0.5
    assert compiled.tokenizer.backend_tokenizer.model.dropout == 0.5
