"""A tiny classifier over rows of many lengths, and what each process of ``test_classification.py`` runs.

Usage: bucketed_classifier.py FOLDER PROCESSES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from classifier_parts import TOKENIZERS
from datasets import Dataset
from tiny_models import tiny_model
from torch import nn
from transformers import TrainingArguments

from hf_prompting import PromptForSequenceClassification, SoftPromptConfig, Verbalizer
from hf_prompting.processes import gathered, is_main_process, join_processes, leave_processes, num_processes
from hf_prompting.training import make_arguments, tune

LENGTHS = [12 + (number * 7) % 16 for number in range(16)]  # all different, in no order


def bucketed_classifier(family: str) -> tuple[Any, Any, Dataset]:
    """Return a classifier, its tokenizer, and a row of each length."""
    tokenizer = TOKENIZERS[family]()
    torch.manual_seed(0)
    model, tokenizer = PromptForSequenceClassification.from_base(
        tiny_model(family, vocab_size=len(tokenizer)),
        template="{soft:3}Review: {text} It was {mask}." if family == "bert" else "{soft:3}Review: {text} It was{mask}",
        verbalizer=Verbalizer({"negative": "bad", "positive": "good"}),
        soft_prompt=SoftPromptConfig(seed=0),
        tokenizer=tokenizer,
    )
    short = tokenizer("a").input_ids
    place = short.index(model.config.soft_prompt["token_ids"][2]) + 1
    ids = [[*short[:place], *[40 + row] * (length - len(short)), *short[place:]] for row, length in enumerate(LENGTHS)]
    assert list(map(len, ids)) == LENGTHS
    table = {
        "input_ids": ids,
        "attention_mask": [[1] * length for length in LENGTHS],
        "length": LENGTHS,
        "labels": [row % 2 for row in range(len(LENGTHS))],
    }
    return model, tokenizer, Dataset.from_dict(table)


def bucketed_arguments(folder: Path, **changes: Any) -> TrainingArguments:
    """Four steps of four rows: an epoch."""
    values = {
        "seed": 0,
        "learning_rate": 0.01,
        "max_steps": 4,
        "num_train_epochs": 1.0,
        "train_batch_size": 4,
        "eval_batch_size": 4,
        "best_by": None,
    }
    return make_arguments(output_dir=folder, **{**values, **changes})


def rows_of_steps(model: nn.Module) -> list[list[int]]:
    """Return a list that fills with the lengths of the rows of each training step, over all processes."""
    steps: list[list[int]] = []

    def note(module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        if module.training:
            parts = gathered(inputs["attention_mask"].sum(1).tolist())
            steps.append(sorted(length for part in parts for length in part))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return steps


def main(folder: str, processes: str) -> None:
    join_processes()
    model, tokenizer, rows = bucketed_classifier("bert")
    steps = rows_of_steps(model)
    arguments = bucketed_arguments(Path(folder), train_batch_size=4 // int(processes), max_steps=8)
    tuning = tune(model, tokenizer, train=rows, dev=None, arguments=arguments)
    if is_main_process():
        found = {
            "processes": num_processes(),
            "steps": steps,
            "losses": [entry["loss"] for entry in tuning.curve if "loss" in entry],
            "padding": tuning.padding,
        }
        Path(folder, "found.json").write_text(json.dumps(found), encoding="utf-8")
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
