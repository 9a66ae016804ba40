"""What holds for every objective: seeds, steps, fixed noise, workers, clear mistakes, and the ordinary Trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import bert_wordpiece, roberta_bpe, t5_unigram
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForPreTraining, PreTrainedTokenizerFast, Trainer, TrainingArguments

from hf_prompting.errors import ObjectiveError
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.training.objectives import OBJECTIVES, Objective, SpanCorruption, build_objective, with_noise_keys

TOKENIZERS = {"denoising": roberta_bpe, "masked_lm": bert_wordpiece, "next_sentence": bert_wordpiece}
NAMES = list(OBJECTIVES)
RANDOM = [name for name in NAMES if name != "causal_lm"]


def tokenizer_for(name: str) -> PreTrainedTokenizerFast:
    return TOKENIZERS.get(name, t5_unigram)()


def rows(num_rows: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": list(range(30 + i, 60 + 2 * i)),
            "next_input_ids": list(range(40 + i, 60 + i)),
            "document": i,
        }
        for i in range(num_rows)
    ]


def lists(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in batch.items()}


def as_seen(batch: dict[str, torch.Tensor], number: int) -> list[list[int]]:
    """One row of the batch without its padding."""
    kept = batch["attention_mask"][number].bool()
    return [batch["input_ids"][number][kept].tolist(), [t for t in batch["labels"][number].tolist() if t != -100]]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_step_give_the_same_batch(name: str) -> None:
    first, second = (build_objective(name, tokenizer_for(name), seed=3) for _ in range(2))
    assert [lists(first(rows())) for _ in range(3)] == [lists(second(rows())) for _ in range(3)]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_gets_the_batches_it_would_have_got(name: str) -> None:
    whole = build_objective(name, tokenizer_for(name), seed=3)
    batches = [lists(whole(rows())) for _ in range(4)]
    resumed = build_objective(name, tokenizer_for(name), seed=3, first_step=2)
    assert [lists(resumed(rows())) for _ in range(2)] == batches[2:]


@pytest.mark.parametrize("name", RANDOM)
def test_steps_and_seeds_differ(name: str) -> None:
    objective = build_objective(name, tokenizer_for(name), seed=3)
    first, second = lists(objective(rows())), lists(objective(rows()))
    assert first != second
    assert lists(build_objective(name, tokenizer_for(name), seed=4)(rows())) != first


@pytest.mark.parametrize("name", [name for name in NAMES if name != "next_sentence"])
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(6)), size=st.integers(1, 6))
def test_rows_with_noise_keys_are_the_same_in_every_batch(name: str, order: list[int], size: int) -> None:
    objective = build_objective(name, tokenizer_for(name))
    keyed = with_noise_keys(rows())
    expected = objective(keyed)
    for start in range(0, 6, size):
        numbers = order[start : start + size]
        batch = objective([keyed[number] for number in numbers])
        for place, number in enumerate(numbers):
            assert as_seen(batch, place) == as_seen(expected, number)


def test_measuring_rows_with_noise_keys_leaves_the_noise_of_training_alone() -> None:
    plain, measured = (SpanCorruption(tokenizer=t5_unigram()) for _ in range(2))
    measured(with_noise_keys(rows()))
    assert lists(plain(rows())) == lists(measured(rows()))


def test_two_worker_processes_do_not_share_their_noise() -> None:
    same = [rows()[0]] * 4
    loader = DataLoader(same, batch_size=1, num_workers=2, collate_fn=SpanCorruption(tokenizer=t5_unigram()))
    batches = [str(lists(batch)) for batch in loader]
    assert len(set(batches)) > 2  # two batches from each worker; with the same noise there would be two kinds


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_text_is_named(name: str) -> None:
    objective = build_objective(name, tokenizer_for(name))
    with pytest.raises(ObjectiveError, match="row 1 of the batch has no token"):
        objective([rows()[0], {**rows()[1], "input_ids": []}])
    with pytest.raises(ObjectiveError, match="row 1 of the batch has no token"):
        objective([{**row, "attention_mask": [1 - i] * len(row["input_ids"])} for i, row in enumerate(rows(2))])
    with pytest.raises(ObjectiveError, match="the batch is empty"):
        objective([])


@pytest.mark.parametrize("name", NAMES)
def test_objectives_are_finished_when_built(name: str) -> None:
    objective = build_objective(name, tokenizer_for(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.seed = 1  # type: ignore[misc]
    assert isinstance(objective, Objective)


def test_unknown_names_and_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(ObjectiveError, match=r"'span_coruption' is unknown.*Did you mean 'span_corruption'"):
        build_objective("span_coruption", t5_unigram())
    with pytest.raises(ObjectiveError, match=r"no option 'noise_densty'.*Did you mean 'noise_density'"):
        build_objective("span_corruption", t5_unigram(), noise_densty=0.2)
    with pytest.raises(ObjectiveError, match=r"SpanCorruption.noise_density is 1.5; allowed: above 0 and below 1"):
        build_objective("span_corruption", t5_unigram(), noise_density=1.5)


@pytest.mark.parametrize("name", ["span_corruption", "prefix_lm"])
def test_the_ordinary_trainer_takes_it_and_the_loss_falls(name: str, tmp_path: Path) -> None:
    tokenizer = t5_unigram()
    config = Seq2SeqTransformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    losses = trained(Seq2SeqTransformerForConditionalGeneration(config), name, tokenizer, tmp_path)
    assert losses[-1] < losses[0]


def test_bert_learns_masks_and_pairs_with_the_ordinary_trainer(tmp_path: Path) -> None:
    tokenizer = bert_wordpiece()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    losses = trained(BertForPreTraining(config), "next_sentence", tokenizer, tmp_path)
    assert losses[-1] < losses[0]


def trained(model: Any, name: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> list[float]:
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        learning_rate=0.01,
        per_device_train_batch_size=6,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows()),
        data_collator=build_objective(name, tokenizer),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
