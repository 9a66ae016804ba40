"""The prompt in pieces, and the words near its soft tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_prompts import save_prompt
from tiny_tokenizers import bert_wordpiece, qwen_bpe

from hf_prompting.demo.pieces import ANSWER, MAX_SHOWN, Piece, prompt_pieces, soft_token_words, whole_characters
from hf_prompting.recipe.prediction import Classifier, load_classifier
from hf_prompting.templates import PromptTemplate, SlotKind, compile_template, describe_prompt


def test_a_prompt_is_cut_into_pieces_of_one_kind_each(classifier: Classifier) -> None:
    pieces = prompt_pieces(classifier, {"text": "great\x1b[31m"})
    assert pieces[:3] == [Piece("0", "soft"), Piece("1", "soft"), Piece("2", "soft")]
    assert "".join(piece.text for piece in pieces if piece.kind == "field") == " great\\x1b[31m"
    assert "".join(piece.text for piece in pieces if piece.kind == "template") == "Review:\\nThe movie was"
    assert pieces[-1] == Piece(ANSWER, "slot")


def test_tokens_that_share_a_chinese_character_are_one_piece() -> None:
    tokenizer = compile_template(PromptTemplate.parse("评论：{text}{mask}"), qwen_bpe(), slot=SlotKind.CAUSAL).tokenizer
    for text in ("这部电影很好看", "ok 🎬 龘"):
        tokens = describe_prompt(tokenizer, text)
        pieces = [piece.text for piece in whole_characters(tokenizer, tokens) if piece.kind == "field"]
        assert "".join(pieces) == text
        assert len(tokens) > len(pieces)


def test_a_masked_model_has_its_slot_in_the_prompt() -> None:
    template = PromptTemplate.parse("{a} and {b} {mask} .")
    tokenizer = compile_template(template, bert_wordpiece(), slot=SlotKind.MASK).tokenizer
    kinds = [piece.kind for piece in whole_characters(tokenizer, describe_prompt(tokenizer, "good", "bad"))]
    assert kinds == ["special", "field", "template", "field", "slot", "template", "special"]


def test_the_middle_of_a_very_long_prompt_is_counted_instead_of_shown(classifier: Classifier) -> None:
    pieces = prompt_pieces(classifier, {"text": "great " * 5_000})
    assert len(pieces) == MAX_SHOWN + 1
    remark = pieces[MAX_SHOWN // 2]
    assert remark.kind is None
    assert int(remark.text.strip(" …").replace(",", "")) > 50
    assert pieces[-1] == Piece(ANSWER, "slot")


def test_a_soft_token_that_is_a_copy_of_a_word_is_nearest_to_it(tmp_path: Path) -> None:
    classifier = load_classifier(str(save_prompt(tmp_path)))
    (word,) = classifier.tokenizer.encode(" good", add_special_tokens=False)[-1:]
    weight = classifier.model.base.get_input_embeddings().weight
    with torch.no_grad():
        classifier.model.soft_prompt.rows[1] = 3 * weight[word]
    words = soft_token_words(classifier, num_words=2)
    assert len(words) == 3
    assert words[1][0][1] == pytest.approx(1.0)
    assert words[1][0][0].replace("␣", " ") == classifier.tokenizer.decode([word])
    assert all(first[1] >= second[1] for first, second in words)


def test_a_template_without_soft_tokens_has_no_words(tmp_path: Path) -> None:
    assert soft_token_words(load_classifier(str(save_prompt(tmp_path, template="{text} It was{mask}")))) == []
