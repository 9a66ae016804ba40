"""Run a classifier over rows: sorted by length for speed, results in the rows' own order."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from hf_prompting.data import row_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def score_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, *, batch_size: int
) -> NDArray[np.float64]:
    """Compute the class scores of every row with the ordinary ``Trainer``.

    Rows of like length share a batch, so little is computed on padding. The longest come first: a batch that does not
    fit in memory fails at once, and the time that the progress bar promises only gets shorter.

    Args:
        model: a sequence classifier.
        tokenizer: its tokenizer, for padding.
        rows: N tokenised rows.
        batch_size: B rows at a time.
    Returns:
        (N, C) class scores, row i for row i whatever the order of computation.
    Example:
        >>> score_rows(model, tokenizer, tokenised, batch_size=32).shape  # doctest: +SKIP
        (1018, 2)
    """
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from hf_prompting.training.sharding import shard_on_cpu_too, split_for_measuring

    order = np.argsort(-np.asarray(row_lengths(rows)), kind="stable")
    by_length = rows.select(order).select_columns(["input_ids", "attention_mask"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=batch_size,
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        shard_on_cpu_too()
        trainer = Trainer(
            model=model, args=arguments, processing_class=tokenizer, data_collator=DataCollatorWithPadding(tokenizer)
        )
        split_for_measuring(trainer)
        sorted_scores_NC = np.asarray(trainer.predict(by_length).predictions, dtype=np.float64)
    scores_NC = np.empty_like(sorted_scores_NC)
    scores_NC[order] = sorted_scores_NC
    return scores_NC


def softmax(scores_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn class scores into probabilities. (N, C) -> (N, C), rows summing to 1.

    Example:
        >>> softmax(np.zeros((1, 2))).tolist()
        [[0.5, 0.5]]
    """
    powers_NC: NDArray[np.float64] = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    probabilities_NC: NDArray[np.float64] = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return probabilities_NC
