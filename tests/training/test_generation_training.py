"""Training on pairs: arguments in a recipe's words, the schedule and the buckets inside the ordinary trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_tokenizers import smollm_bpe
from transformers import Seq2SeqTrainer

from hf_prompting.data.pairs import PairCollator
from hf_prompting.errors import RecipeError, TrainingError
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.training.generation import PairTrainer, train_pairs
from hf_prompting.training.generation_arguments import (
    check_generation_arguments,
    make_generation_arguments,
    precision_of,
)
from hf_prompting.training.length_buckets import LengthBucketSampler
from hf_prompting.training.schedules import exponential_share


def tiny_model() -> Seq2SeqTransformerForConditionalGeneration:
    torch.manual_seed(0)
    return Seq2SeqTransformerForConditionalGeneration(
        Seq2SeqTransformerConfig(
            vocab_size=40, hidden_size=16, intermediate_size=32, num_encoder_layers=1, num_decoder_layers=1,
            num_attention_heads=2, dropout=0.0,
        )
    )  # fmt: skip


def rows(num_rows: int = 20) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randint(4, 40, (3 + number % 5,), generator=generator).tolist() for number in range(num_rows)]
    labels = [[*reversed(ids), 1] for ids in sources]
    return Dataset.from_dict(
        {
            "input_ids": sources,
            "attention_mask": [[1] * len(ids) for ids in sources],
            "labels": labels,
            "lengths": [[len(ids), len(ids) + 1] for ids in sources],
        }
    )


def arguments(folder: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "output_dir": folder,
        "seed": 0,
        "learning_rate": 0.01,
        "max_steps": 6,
        "num_train_epochs": 1,
        "train_batch_size": 4,
        "eval_batch_size": 8,
        "best_by": None,
    }
    return make_generation_arguments(**{**values, **changes})


COLLATOR = PairCollator(pad_token_id=0, decoder_start_token_id=0)


def test_the_learning_rate_of_a_run_follows_the_named_schedule(tmp_path: Path) -> None:
    tuning = train_pairs(
        tiny_model(),
        smollm_bpe(),
        train=rows(),
        dev=None,
        collator=COLLATOR,
        arguments=arguments(tmp_path, warmup_steps=2, extra={"logging_steps": 1}),
        schedule="exponential",
    )
    rates = [entry["learning_rate"] for entry in tuning.curve if "learning_rate" in entry]
    expected = [
        0.01 * exponential_share(step, num_warmup_steps=2, num_training_steps=6) for step in range(1, len(rates) + 1)
    ]
    assert rates == pytest.approx(expected, rel=1e-6) or rates == pytest.approx([0.0, *expected[:-1]], rel=1e-6)
    assert tuning.num_steps == tuning.best_step == 6 and tuning.dev_score is None


def test_training_learns_and_the_best_moment_is_kept(tmp_path: Path) -> None:
    tuning = train_pairs(
        tiny_model(),
        smollm_bpe(),
        train=rows(),
        dev=rows(),
        collator=COLLATOR,
        arguments=arguments(tmp_path, max_steps=30, eval_steps=10, best_by="loss", gradient_accumulation_steps=2),
        schedule="constant",
        early_stopping_patience=2,
    )
    losses = [entry["eval_loss"] for entry in tuning.curve if "eval_loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert tuning.dev_score == pytest.approx(-min(losses))


def test_buckets_are_drawn_by_the_sampler_or_left_to_the_trainer(tmp_path: Path) -> None:
    def trainer(bucket_by_length: bool) -> PairTrainer:
        return PairTrainer(
            schedule="linear",
            bucket_by_length=bucket_by_length,
            model=tiny_model(),
            args=arguments(tmp_path, gradient_accumulation_steps=2),
            train_dataset=rows(),
            data_collator=COLLATOR,
        )

    sampler = trainer(True)._get_train_sampler()
    assert isinstance(sampler, LengthBucketSampler)
    assert (sampler.batch_size, sampler.seed) == (8, 0)
    assert not isinstance(trainer(False)._get_train_sampler(), LengthBucketSampler)


def test_transformers_still_asks_for_its_sampler_by_this_name() -> None:
    """If this fails, Trainer renamed the hook: rename PairTrainer's, or rows are drawn blindly."""
    assert callable(Seq2SeqTrainer._get_train_sampler)


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        train_pairs(model, smollm_bpe(), train=rows(), dev=None, collator=COLLATOR, arguments=arguments(tmp_path))


def test_arguments_say_in_transformers_words_what_the_recipe_said(tmp_path: Path) -> None:
    made = arguments(tmp_path, best_by="chrf", eval_steps=3, label_smoothing=0.1, max_new_tokens=9)
    assert made.predict_with_generate and made.greater_is_better and made.metric_for_best_model == "chrf"
    assert (made.generation_max_length, made.generation_num_beams, made.label_smoothing_factor) == (10, 1, 0.1)
    assert made.load_best_model_at_end and made.restore_callback_states_from_checkpoint
    by_loss = arguments(tmp_path, best_by="loss")
    assert not by_loss.predict_with_generate and not by_loss.greater_is_better


def test_what_other_keys_own_is_refused_by_name(tmp_path: Path) -> None:
    assert check_generation_arguments({"max_grad_norm": 0.5}) == []
    assert "use training.schedule" in check_generation_arguments({"lr_scheduler_type": "linear"})[0][1]
    assert "Did you mean 'adam_beta2'?" in check_generation_arguments({"adam_bta2": 0.98})[0][1]
    with pytest.raises(RecipeError, match=r"training\.arguments: 'seed' is set elsewhere"):
        arguments(tmp_path, extra={"seed": 1})


def test_mixed_precision_is_automatic_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_of("no") == {}
    assert precision_of("fp16") == {"fp16": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision_of("auto") == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert precision_of("auto") == {"bf16": True}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert precision_of("auto") == {"fp16": True}
