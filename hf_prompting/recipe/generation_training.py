"""Train one model of a generation recipe, measure it, and keep it where a resumed run finds it."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerFast, set_seed

from hf_prompting.data.pairs import PairCollator, tokenize_pairs
from hf_prompting.errors import BaseModelError
from hf_prompting.evaluation.generation import generate_texts, text_metrics
from hf_prompting.processes import agreed, is_main_process
from hf_prompting.recipe.generation_check import CheckedGeneration, Pairs
from hf_prompting.recipe.generation_models import Contestant, SoftPrompted, with_soft_prompt
from hf_prompting.recipe.unfinished import keep_result, kept_result
from hf_prompting.seq2seq import Seq2SeqTransformerForConditionalGeneration
from hf_prompting.training import Tuning
from hf_prompting.training.generation import train_pairs
from hf_prompting.training.generation_arguments import make_generation_arguments


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What came of one training; the model itself lies in the same folder.

    Attributes:
        num_parameters: of the model, soft tokens included.
        num_trained: of these, how many were trained.
        num_soft_tokens: at the source, and before the target.
        tuning: steps, best dev score, learning curve, time and share of padding.
        test_seconds: of generating the test rows.
        test: metric -> value on the test rows.
        samples: first test rows: source, reference and generated text.
    """

    num_parameters: int
    num_trained: int
    num_soft_tokens: tuple[int, int]
    tuning: Tuning
    test_seconds: float
    test: dict[str, float]
    samples: list[dict[str, str]]

    def numbers(self) -> dict[str, Any]:
        """Return everything but the learning curve, as ``metrics.json`` holds it."""
        values = dataclasses.asdict(self)
        del values["tuning"]["curve"]
        return {**values.pop("tuning"), **values}


def train_and_test(
    checked: CheckedGeneration,
    contestant: Contestant,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    folder: Path,
    resume: bool,
) -> TrainedModel:
    """Train a model with one seed, generate the test rows, and save model and result in a folder.

    Args:
        checked: the recipe and its pairs.
        contestant: which model.
        tokenizer: of both sides, without soft tokens.
        seed: of weights, dropout and order.
        folder: for the model and its result; the checkpoints lie beside it.
        resume: go on from the newest whole checkpoint, if there is one.
    Returns:
        The result, which ``load_trained`` finds again.
    Raises:
        TrainingError: the loss is not a number; the last good checkpoint stays.
    """
    recipe = checked.recipe
    set_seed(seed)
    model, soft = contestant.make(), contestant.soft_prompt
    if soft is None:
        prompted = SoftPrompted(model=model, tokenizer=tokenizer, decoder_prefix=())
    else:
        prompted = with_soft_prompt(model, tokenizer, soft, seed=seed)
    num_trained = sum(weight.numel() for weight in prompted.model.parameters() if weight.requires_grad)
    train = _tokenized(checked, checked.train, prompted, tokenizer)
    tuning = _train(checked, contestant, prompted, train, tokenizer, seed=seed, folder=folder, resume=resume)

    model = model if soft is None else prompted.model.merge_and_unload()
    _prepare_to_generate(model, checked, prompted)
    start = time.monotonic()
    texts = generate_texts(
        model,
        prompted.tokenizer,
        checked.test.sources,
        batch_size=recipe.evaluation.batch_size,
        decoder_prefix=prompted.decoder_prefix,
    )
    result = TrainedModel(
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        num_trained=num_trained,
        num_soft_tokens=(0, 0) if soft is None else (soft.source, soft.target),
        tuning=tuning,
        test_seconds=time.monotonic() - start,
        test=_metrics(checked, texts, checked.test.targets),
        samples=[
            {"source": source, "reference": reference, "text": text}
            for source, reference, text in zip(checked.test.sources, checked.test.targets, texts, strict=True)
        ][: recipe.evaluation.num_samples],
    )
    _save(model, prompted.tokenizer, result, folder)
    return result


def checkpoints_of(folder: Path) -> Path:
    """Return where the training that will fill a folder keeps its checkpoints."""
    return folder.with_name(f"checkpoints-{folder.name}")


def load_trained(folder: Path) -> TrainedModel | None:
    """Return the result of a training that an interrupted run finished, or ``None``."""
    values = agreed(kept_result(folder) if is_main_process() else None)
    return None if values is None else TrainedModel(**{**values, "tuning": Tuning(**values["tuning"])})


def _train(
    checked: CheckedGeneration,
    contestant: Contestant,
    prompted: SoftPrompted,
    train: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    folder: Path,
    resume: bool,
) -> Tuning:
    recipe, training = checked.recipe, checked.recipe.training
    arguments = make_generation_arguments(
        output_dir=checkpoints_of(folder),
        seed=seed,
        learning_rate=contestant.learning_rate,
        max_steps=training.max_steps,
        num_train_epochs=training.num_train_epochs,
        train_batch_size=training.per_device_train_batch_size,
        eval_batch_size=recipe.evaluation.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        label_smoothing=training.label_smoothing,
        mixed_precision=training.mixed_precision,
        eval_steps=training.eval_steps,
        best_by=training.best_by if checked.dev is not None else None,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        extra=training.arguments,
    )
    start = prompted.model.config.decoder_start_token_id
    if start is None:
        raise BaseModelError(
            f"{recipe.model.pretrained!r} has no decoder_start_token_id in its config.json; set it there"
        )
    return train_pairs(
        prompted.model,
        prompted.tokenizer,
        train=train,
        dev=None if checked.dev is None else _tokenized(checked, checked.dev, prompted, tokenizer),
        collator=PairCollator(
            pad_token_id=prompted.tokenizer.pad_token_id,
            decoder_start_token_id=start,
            decoder_prefix=prompted.decoder_prefix,
        ),
        arguments=arguments,
        schedule=training.schedule,
        bucket_by_length=training.bucket_by_length,
        early_stopping_patience=training.early_stopping_patience,
        dev_metrics=_dev_metrics(checked, tokenizer),
        resume=resume,
    )


def _tokenized(
    checked: CheckedGeneration, pairs: Pairs, prompted: SoftPrompted, target_tokenizer: PreTrainedTokenizerFast
) -> Dataset:
    return tokenize_pairs(
        pairs.sources,
        pairs.targets,
        tokenizer=prompted.tokenizer,
        target_tokenizer=target_tokenizer,
        max_source_length=_max_source_length(checked),
        max_target_length=checked.recipe.training.max_target_length,
    )


def _max_source_length(checked: CheckedGeneration) -> int:
    soft = checked.recipe.soft_prompt
    return checked.recipe.training.max_source_length + (0 if soft is None else soft.source)


def _metrics(checked: CheckedGeneration, texts: list[str], references: list[str]) -> dict[str, float]:
    evaluation = checked.recipe.evaluation
    return text_metrics(texts, references, evaluation.metrics, bleu_tokenizer=evaluation.bleu_tokenizer)


def _dev_metrics(
    checked: CheckedGeneration, tokenizer: PreTrainedTokenizerFast
) -> Callable[[EvalPrediction], dict[str, float]]:
    def measure(prediction: EvalPrediction) -> dict[str, float]:
        ids = np.where(prediction.predictions < 0, tokenizer.pad_token_id, prediction.predictions)
        texts = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        assert checked.dev is not None, "the dev rows are what was generated"
        evaluation = checked.recipe.evaluation
        return text_metrics(texts, checked.dev.targets, ("bleu", "chrf"), bleu_tokenizer=evaluation.bleu_tokenizer)

    return measure


def _prepare_to_generate(model: PreTrainedModel, checked: CheckedGeneration, prompted: SoftPrompted) -> None:
    """Write into the model's configurations what a plain ``generate`` and ``predict`` need to do the same."""
    data, evaluation = checked.recipe.data, checked.recipe.evaluation
    model.generation_config.num_beams = evaluation.num_beams
    model.generation_config.max_new_tokens = evaluation.max_new_tokens
    model.config.text_to_text = {
        "source": data.source,
        "prefix": data.prefix,
        "decoder_prefix": list(prompted.decoder_prefix),
    }
    prompted.tokenizer.model_max_length = _max_source_length(checked)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, result: TrainedModel, folder: Path) -> None:
    if not is_main_process():
        return
    with saved_with_sources(model):
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    keep_result(folder, dataclasses.asdict(result))
    shutil.rmtree(checkpoints_of(folder), ignore_errors=True)


@contextmanager
def saved_with_sources(model: PreTrainedModel) -> Iterator[None]:
    """Let a model of this library's family save its source files too, so that its folder loads without the library."""
    if not isinstance(model, Seq2SeqTransformerForConditionalGeneration):
        yield
        return
    classes: dict[Any, str] = {type(model): "AutoModelForSeq2SeqLM", type(model.config): "AutoConfig"}
    before = {kind: kind._auto_class for kind in classes}
    try:
        for kind, auto_class in classes.items():
            kind.register_for_auto_class(auto_class)
        yield
    finally:
        for kind, auto_class in before.items():
            kind._auto_class = auto_class
