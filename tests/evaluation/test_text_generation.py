"""Generated texts do not depend on batches, and their scores are sacrebleu's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_generation import pairs

from hf_prompting.data.tokenizer_training import train_tokenizer
from hf_prompting.evaluation.curves import draw_curves
from hf_prompting.evaluation.generation import corpus_bleu, corpus_chrf, generate_texts, rouge_l, text_metrics
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration


def test_bleu_is_the_one_of_the_paper() -> None:
    # 5 of 6 words, 4 of 5 pairs, 3 of 4 triples, 2 of 3 quadruples; equal lengths, so no brevity penalty
    expected = 100 * math.exp((math.log(5 / 6) + math.log(4 / 5) + math.log(3 / 4) + math.log(2 / 3)) / 4)
    assert corpus_bleu(["a b c d e x"], ["a b c d e f"]) == pytest.approx(expected)
    # every Chinese character is a word; the same counts
    assert corpus_bleu(["今天天气很坏"], ["今天天气很好"], tokenizer="zh") == pytest.approx(expected)
    assert corpus_bleu(["今天天气很坏"], ["今天天气很好"]) == 0


def test_chrf_of_equal_and_of_foreign_texts() -> None:
    assert corpus_chrf(["天氣很好", "abc"], ["天氣很好", "abc"]) == pytest.approx(100)
    assert corpus_chrf(["xyz"], ["abc"]) == 0


def test_rouge_l_counts_chinese_characters() -> None:
    # the longest common subsequence of 春天来了 and 春来了 has 3 of 4 and 3 of 3 characters: F = 6 / 7
    assert rouge_l(["春来了"], ["春天来了"]) == pytest.approx(100 * 6 / 7)
    assert rouge_l(["The cat"], ["the cat sat"]) == pytest.approx(100 * 4 / 5)


def test_metrics_come_by_name() -> None:
    assert list(text_metrics(["a b c d"], ["a b c d"], ["chrf", "bleu"])) == ["chrf", "bleu"]


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_change_no_text(beams: int) -> None:
    sources = [row["en"] for row in pairs(9)]
    tokenizer = train_tokenizer(sources, vocab_size=500, allow_fewer=True)
    torch.manual_seed(0)
    model = Seq2SeqTransformerForConditionalGeneration(
        Seq2SeqTransformerConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_encoder_layers=1,
            num_decoder_layers=1, num_attention_heads=2, initializer_range=0.3,
        )
    ).train()  # fmt: skip
    together = generate_texts(model, tokenizer, sources, num_beams=beams, max_new_tokens=6)
    alone = generate_texts(model, tokenizer, sources, batch_size=1, num_beams=beams, max_new_tokens=6)
    backwards = generate_texts(model, tokenizer, sources[::-1], batch_size=4, num_beams=beams, max_new_tokens=6)
    assert together == alone == backwards[::-1]
    assert len(set(together)) > 1 and model.training


def test_the_picture_is_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    curve = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "eval_loss": 1.5, "eval_chrf": 12.0}]
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, {"ours": curve, "对手": curve, "none": []})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
