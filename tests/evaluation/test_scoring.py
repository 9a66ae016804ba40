"""Scores of rows do not depend on the order and batches in which they are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny_models import tiny_model
from tiny_recipes import labelled_rows, write_rows
from tiny_tokenizers import smollm_bpe

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.data import load_rows, tokenize_rows
from hf_prompting.evaluation import score_rows
from hf_prompting.templates import PromptTemplate
from hf_prompting.verbalizers import Verbalizer


def test_scores_come_back_in_the_rows_own_order(tmp_path: Path) -> None:
    tokenizer = smollm_bpe()
    template = PromptTemplate.parse("{soft:2}Review: {text}\nThe movie was{mask}")
    model, tokenizer = PromptForSequenceClassification.from_base(
        tiny_model("llama", vocab_size=len(tokenizer)),
        template=template,
        verbalizer=Verbalizer({"negative": "terrible", "positive": "great"}),
        tokenizer=tokenizer,
    )
    rows = load_rows(write_rows(tmp_path / "a.jsonl", labelled_rows(9)).parent, "a.jsonl")
    table = tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=64)
    found = score_rows(model, tokenizer, table, batch_size=4)
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0].tolist() for row in table]
    assert len(set(table["length"])) > 1
    np.testing.assert_allclose(found, alone, atol=1e-4)
