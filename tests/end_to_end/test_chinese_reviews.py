"""Chinese label words of several tokens on a real multilingual model, against the plain computation."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_prompting import PromptForSequenceClassification, SoftPromptConfig, Verbalizer
from hf_prompting.bases import PACKAGED_BASES, load_base_model

BASE = "google/gemma-3-270m"
TEXTS = ["物流很快，手机用起来很流畅，很满意。", "用了三天就坏了，客服也不理人。", "一般。"]

pytestmark = pytest.mark.slow


def test_words_of_several_tokens_are_scored_exactly_and_survive_saving(tmp_path: Path) -> None:
    gguf = PACKAGED_BASES[BASE]
    if not all(find_spec(part.path.partition("/")[0]) for part in gguf.parts):
        pytest.skip(f"needs the model's packages: {gguf.install_command}")
    base = load_base_model(BASE)
    model, tokenizer = PromptForSequenceClassification.from_base(
        base,
        template="{soft:5}评论：{text}\n这是一条{mask}",
        verbalizer=Verbalizer({"负面": ["差评", "负面评价"], "正面": ["好评", "正面评价"]}),
        soft_prompt=SoftPromptConfig(init="text", init_text="判断评论是好评还是差评。"),
    )
    pieces = [pieces for words in model.config.label_word_ids for pieces in words]
    assert min(map(len, pieces)) >= 2, pieces
    model.eval()

    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        got = model(**batch).logits.log_softmax(-1)
        expected = []
        for text in TEXTS:
            prompt = tokenizer(text)["input_ids"]
            words = []
            for word in pieces:
                logits = model.base(input_ids=torch.tensor([[*prompt, *word]])).logits[0].float().log_softmax(-1)
                words.append(sum(logits[len(prompt) - 1 + i, piece] for i, piece in enumerate(word)))
            expected.append(torch.stack([(words[0] + words[1]) / 2, (words[2] + words[3]) / 2]))
        torch.testing.assert_close(got, torch.stack(expected).log_softmax(-1), atol=1e-3, rtol=1e-3)

        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path, base_model=model.release_base())
        reloaded = AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
        left = again(**reloaded(TEXTS, padding=True, return_tensors="pt")).logits.log_softmax(-1)
        torch.testing.assert_close(left, got, atol=1e-4, rtol=1e-4)
