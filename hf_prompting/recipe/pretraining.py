"""A pre-training run from top to bottom: texts, tokenizer, blocks, training, perplexity, folder, fine-tuning."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, set_seed

from hf_prompting.artifacts import atomic_folder, installed_versions, output_lock, refuse_existing
from hf_prompting.artifacts.pretraining_card import PretrainingCard, write_pretraining_card
from hf_prompting.data import chunk_texts
from hf_prompting.data.pairs import texts_of
from hf_prompting.data.tokenizer_training import train_tokenizer
from hf_prompting.evaluation import Perplexity, perplexity
from hf_prompting.evaluation.curves import draw_curves
from hf_prompting.processes import agreed, is_main_process, one_first
from hf_prompting.recipe.generation import run_generation
from hf_prompting.recipe.generation_models import config_of, special_ids_of
from hf_prompting.recipe.generation_training import checkpoints_of, saved_with_sources
from hf_prompting.recipe.pretraining_check import CheckedPretraining, check_pretraining, fine_tuning_recipe
from hf_prompting.recipe.pretraining_schema import FineTuningSection, PretrainingRecipe
from hf_prompting.recipe.progress import Stages
from hf_prompting.recipe.reader import Read
from hf_prompting.recipe.run import RunResult
from hf_prompting.recipe.unfinished import (
    RESULT,
    can_go_on,
    keep_result,
    kept_result,
    run_folder,
    run_record,
    unfinished_folder,
)
from hf_prompting.seq2seq import Seq2SeqTransformerForConditionalGeneration
from hf_prompting.training import is_whole, seal_folder, signals_as_exceptions
from hf_prompting.training.checkpoints import MANIFEST, TRAINER_STATE, newest_whole_checkpoint
from hf_prompting.training.generation import train_pairs
from hf_prompting.training.generation_arguments import make_generation_arguments
from hf_prompting.training.objectives import Objective, build_objective, with_noise_keys

PICTURE = "results.png"
PART = "pretraining"
BEFORE, AFTER = "random weights", "pretrained"


def run_pretraining(
    read: Read[PretrainingRecipe], *, overwrite: bool = False, resume: bool = False, console: Console | None = None
) -> RunResult:
    """Do everything that a pre-training recipe says.

    Args:
        read: from ``read_recipe_as(PretrainingRecipe, ...)``.
        overwrite: replace the output folders if an earlier run made them, and drop what an interrupted one left.
        resume: go on where an interrupted run of the same recipe stopped.
        console: where the stages are named.
    Returns:
        The folder and the numbers, those of the fine-tuning among them.
    Raises:
        RecipeError: the recipe does not fit the data, or its fine-tuning's recipe has mistakes.
        TokenizerTrainingError: the texts do not fit the vocabulary's size.
        ObjectiveError: an option of the objective is not allowed.
        TrainingError: the loss is not a number; the last good checkpoint is kept.
        ArtifactError: a folder cannot be written, or an interrupted run is in the way.
    Example:
        >>> run_pretraining(read_recipe_as(PretrainingRecipe, "my-recipe", smoke=True))  # doctest: +SKIP
    """
    say = Stages(console or Console(stderr=True, quiet=not is_main_process()))
    target = Path(read.recipe.output.dir)
    with ExitStack() as held:
        held.enter_context(signals_as_exceptions())
        goes_on = resume and can_go_on(unfinished_folder(target))  # then the folder may be there already
        if is_main_process():
            refuse_existing(target, overwrite=overwrite or goes_on)
            held.enter_context(output_lock(target))
        say("check the recipes and read the texts")
        with one_first():
            checked = check_pretraining(read)
        if is_main_process():
            record = run_record(checked.recipe, {"train": checked.train.table, "dev": checked.dev.table}, {})
            held.enter_context(run_folder(target, record=record, resume=resume, overwrite=overwrite))
        trained = agreed(unfinished_folder(target)) / PART  # it is there now
        metrics = agreed(kept_result(trained) if is_main_process() else None)
        if metrics is None:
            metrics = _pretrain(checked, trained, say, resume=resume)
            metrics |= {"recipe": read.public_values(), "versions": installed_versions()}
            if is_main_process():
                keep_result(trained, metrics)
                shutil.rmtree(checkpoints_of(trained), ignore_errors=True)
        if is_main_process():
            _save(checked, metrics, trained, overwrite=overwrite or goes_on)
        rows = {name: {"perplexity": metrics["dev"][name]["perplexity"]} for name in (BEFORE, AFTER)}
        if checked.recipe.fine_tuning is not None:
            say("fine-tune it")
            target = agreed(target)  # its folder is there now
            tuned = _fine_tuned(checked.recipe.fine_tuning, target, overwrite=overwrite, resume=resume, console=console)
            rows |= tuned.rows
            metrics = {**metrics, "fine_tuning": tuned.metrics}
    return RunResult(folder=target, metrics=metrics, rows=rows, spread={})


def _pretrain(checked: CheckedPretraining, folder: Path, say: Stages, *, resume: bool) -> dict[str, Any]:
    """Train tokenizer and model, save both into ``folder``, and return the numbers with the learning curve."""
    recipe, training = checked.recipe, checked.recipe.training
    with one_first():
        tokenizer = _tokenizer(checked, folder.with_name("tokenizer"), say)
    options = {"seed": training.seed, **recipe.objective.arguments}
    objective = build_objective(recipe.objective.name, tokenizer, **options)
    train, dev = (
        chunk_texts(
            rows,
            recipe.data.column,
            tokenizer=tokenizer,
            max_length=recipe.objective.max_length,
            pack=recipe.objective.pack,
        )
        for rows in (checked.train, checked.dev)
    )
    set_seed(training.seed)
    config = config_of(
        recipe.model,
        vocab_size=len(tokenizer),
        longest_text=recipe.objective.max_length,
        **special_ids_of(tokenizer),
    )
    model = Seq2SeqTransformerForConditionalGeneration(config)
    dev_rows = with_noise_keys(dev)
    before = _measured(model, dev_rows, objective, training.eval_batch_size)
    say(f"pre-train {model.num_parameters():,} values on {len(train):,} blocks ({recipe.objective.name})")
    arguments = make_generation_arguments(
        output_dir=checkpoints_of(folder),
        seed=training.seed,
        learning_rate=training.learning_rate,
        max_steps=training.max_steps,
        num_train_epochs=training.num_train_epochs,
        train_batch_size=training.per_device_train_batch_size,
        eval_batch_size=training.eval_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        mixed_precision=training.mixed_precision,
        eval_steps=training.eval_steps,
        extra=training.arguments,
    )
    arguments.remove_unused_columns = False  # the collator reads the noise keys of dev rows
    tuning = train_pairs(
        model,
        tokenizer,
        train=train,
        dev=Dataset.from_list(dev_rows),
        collator=_from_step(objective, checkpoints_of(folder), training.gradient_accumulation_steps, resume=resume),
        arguments=arguments,
        schedule=training.schedule,
        bucket_by_length=False,
        early_stopping_patience=training.early_stopping_patience,
        dev_loss=lambda trained, batches: perplexity(trained, batches).mean_nll,
        resume=resume,
    )
    after = _measured(model, dev_rows, objective, training.eval_batch_size)
    if is_main_process():
        with saved_with_sources(model):
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    values = dataclasses.asdict(tuning)
    del values["padding"]
    start = {"step": 0, "eval_loss": before.mean_nll}
    return {
        "task": "pretraining",
        "name": recipe.name,
        "vocab_size": len(tokenizer),
        "num_parameters": model.num_parameters(),
        "num_train_texts": len(checked.train),
        "num_train_blocks": len(train),
        "num_train_tokens": sum(map(len, train["input_ids"])),
        "num_dev_blocks": len(dev),
        "dev": {BEFORE: _numbers(before), AFTER: _numbers(after)},
        **values,
        "curve": [start, *tuning.curve],
    }


def _tokenizer(checked: CheckedPretraining, folder: Path, say: Stages) -> PreTrainedTokenizerFast:
    """Train the tokenizer, or take the one that an interrupted run trained."""
    section = checked.recipe.tokenizer
    if not is_whole(folder):
        say(f"train a tokenizer of up to {section.vocab_size:,} tokens")
        train_tokenizer(
            [*texts_of(checked.train, checked.recipe.data.column), *checked.more_texts],
            kind=section.kind,
            vocab_size=section.vocab_size,
            num_sentinels=section.num_sentinels,
            allow_fewer=True,
        ).save_pretrained(folder)
        seal_folder(folder)
    return AutoTokenizer.from_pretrained(folder)


def _from_step(objective: Objective, checkpoints: Path, batches_of_step: int, *, resume: bool) -> Objective:
    """Give a resumed run the noise that the uninterrupted one would have had."""
    last = newest_whole_checkpoint(checkpoints) if resume else None
    if last is None:
        return objective
    state = json.loads((last / TRAINER_STATE).read_text(encoding="utf-8"))
    return dataclasses.replace(objective, first_step=state["global_step"] * batches_of_step)


def _measured(model: PreTrainedModel, rows: list[dict[str, Any]], objective: Objective, batch_size: int) -> Perplexity:
    batches: Iterable[Mapping[str, Any]] = DataLoader(rows, batch_size=batch_size, collate_fn=objective)  # type: ignore[arg-type]
    return perplexity(model, batches)


def _numbers(measured: Perplexity) -> dict[str, float]:
    return {"perplexity": measured.value, **dataclasses.asdict(measured)}


def _save(checked: CheckedPretraining, metrics: dict[str, Any], trained: Path, *, overwrite: bool) -> None:
    recipe = checked.recipe
    with atomic_folder(Path(recipe.output.dir), overwrite=overwrite) as folder:
        shutil.copytree(trained, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, RESULT))
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        draw_curves(folder / PICTURE, {recipe.objective.name: metrics["curve"]})
        write_pretraining_card(
            folder,
            PretrainingCard(
                name=recipe.name,
                description=recipe.description,
                objective=recipe.objective.name,
                num_parameters=metrics["num_parameters"],
                num_tokens=metrics["num_train_tokens"],
                perplexities={name: values["perplexity"] for name, values in metrics["dev"].items()},
                dataset=recipe.data.title or recipe.name,
                credit=recipe.data.credit,
                language=recipe.output.language,
                license=recipe.output.license,
                picture=PICTURE,
                recipe=metrics["recipe"],
                versions=metrics["versions"],
            ),
        )


def _fine_tuned(
    section: FineTuningSection, pretrained: Path, *, overwrite: bool, resume: bool, console: Console | None
) -> RunResult:
    read = fine_tuning_recipe(section, pretrained=str(pretrained.absolute()))
    return run_generation(read, overwrite=overwrite, resume=resume, console=console)
