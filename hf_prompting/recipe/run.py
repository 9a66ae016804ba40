"""A run from top to bottom: data, base model, zero-shot, tuning, test, folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedTokenizerFast, set_seed

from hf_prompting.artifacts import (
    CardContents,
    atomic_folder,
    installed_versions,
    output_lock,
    refuse_existing,
    write_card,
)
from hf_prompting.bases import fingerprint_base
from hf_prompting.classifier import PromptClassifierConfig, PromptForSequenceClassification
from hf_prompting.data import tokenize_rows
from hf_prompting.errors import RecipeError
from hf_prompting.evaluation import Report, draw_run, evaluate_rows
from hf_prompting.processes import agreed, is_main_process, one_first, shards_weights
from hf_prompting.recipe.base import Base, load_base
from hf_prompting.recipe.check import CheckedRecipe, LabelledRows, check_recipe
from hf_prompting.recipe.progress import Stages
from hf_prompting.recipe.reader import ReadRecipe
from hf_prompting.recipe.schema import Recipe
from hf_prompting.recipe.unfinished import (
    RESULT,
    keep_result,
    kept_result,
    run_folder,
    run_record,
    unfinished_folder,
)
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import Tuning, make_arguments, out_of_memory_says, signals_as_exceptions, tune
from hf_prompting.training.checkpoints import MANIFEST
from hf_prompting.training.sharding import whole_state
from hf_prompting.verbalizers import Verbalizer

PICTURE = "results.png"
MEMORY_ADVICE = "lower evaluation.batch_size or training.max_length"


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One tuned prompt: its seed, how training went, its test report, and the folder it was saved in for now."""

    seed: int
    tuning: Tuning
    test: Report
    num_trained: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left: the folder, the content of its ``metrics.json``, and the rows of the printed table."""

    folder: Path
    metrics: dict[str, Any]
    rows: dict[str, dict[str, float]]
    spread: dict[str, tuple[float, float]]


def run_recipe(
    read: ReadRecipe, *, overwrite: bool = False, resume: bool = False, console: Console | None = None
) -> RunResult:
    """Do everything that a recipe says.

    Started in several processes (``accelerate launch``), all of them train and measure, and process 0 alone speaks and
    writes; ``join_processes`` has to be called before.

    Args:
        read: from ``read_recipe``.
        overwrite: replace the output folder if an earlier run made it; without ``resume``, also begin anew where an
            earlier run was cut.
        resume: go on with a run that was cut, from its last whole checkpoint; begin where there is none. The result is
            that of an unbroken run.
        console: where the stages are named.
    Returns:
        The folder and the numbers.
    Raises:
        RecipeError, BaseModelError, TemplateError, LabelWordError: the recipe does not fit the data or model, or is not
            the one that the run to resume was begun with.
        TrainingError: the loss is not a number, or memory ran out; the last good checkpoint is kept.
        ArtifactError: the folder cannot be written, or another run is writing it; what was there before is untouched.
        Interrupted: Ctrl-C or SIGTERM; what was done is kept for ``resume``.
    Example:
        >>> run_recipe(read_recipe("recipes/movie-reviews-soft-prompt", smoke=True))  # doctest: +SKIP
    """
    say = Stages(console or Console(stderr=True, quiet=not is_main_process()))
    target = Path(read.recipe.output.dir)
    with ExitStack() as held:
        held.enter_context(signals_as_exceptions())
        if is_main_process():
            refuse_existing(target, overwrite=overwrite)
            held.enter_context(output_lock(target))
        say("check the recipe and read the data")
        with one_first():
            checked = check_recipe(read)
        say(f"load {checked.recipe.base_model.id}")
        base = load_base(checked.recipe.base_model)
        _refuse_unloadable_checkpoints(checked, base)
        if is_main_process():
            record = run_record(checked.recipe, _splits(checked), fingerprint_base(base.model).to_dict())
            held.enter_context(run_folder(target, record=record, resume=resume, overwrite=overwrite))
        work = agreed(unfinished_folder(target))  # it is there now
        zero_shot = zero_shot_report(checked, base, work=work, say=say)
        runs = tune_seeds(checked, base, work=work, resume=resume, say=say)
        best = best_run(runs)
        say(f"save the prompt of seed {best.seed}")
        result = summarise(read, checked, zero_shot, runs, best)
        if is_main_process():
            save(result, read, checked, best, overwrite=overwrite)
    return result


def zero_shot_report(checked: CheckedRecipe, base: Base, *, work: Path, say: Stages) -> Report | None:
    """Measure zero-shot if the recipe says so, unless the run measured it before it was cut."""
    if not checked.recipe.evaluation.zero_shot:
        return None
    kept = agreed(kept_result(work / "zero-shot") if is_main_process() else None)
    if kept is not None:
        return Report(**kept)
    say(f"measure zero-shot on {len(checked.test.labels)} test rows")
    # Measuring splits the weights of a base in place where they are to be split, and tuning needs whole ones to begin.
    report = measure_zero_shot(checked, load_base(checked.recipe.base_model) if shards_weights() else base)
    if is_main_process():
        keep_result(work / "zero-shot", dataclasses.asdict(report))
    return report


def tune_seeds(checked: CheckedRecipe, base: Base, *, work: Path, resume: bool, say: Stages) -> list[SeedRun]:
    """Tune and test one prompt for each seed; those that were finished before the run was cut are taken as they are."""
    runs = []
    is_fresh = True
    for seed in checked.recipe.training.seeds:
        folder = work / f"seed-{seed}"
        kept = agreed(kept_result(folder) if is_main_process() else None)
        if kept is not None:
            say(f"seed {seed} was finished before")
            kept |= {"tuning": Tuning(**kept["tuning"]), "test": Report(**kept["test"])}
            runs.append(SeedRun(folder=folder, **kept))
            continue
        if not is_fresh and (checked.recipe.training.trainable_base or shards_weights()):
            base = load_base(checked.recipe.base_model)
        is_fresh = False
        say(f"tune with seed {seed}, then test")
        run = tune_and_test(checked, base, seed=seed, work=work, resume=resume)
        if is_main_process():
            keep_result(folder, {key: value for key, value in dataclasses.asdict(run).items() if key != "folder"})
            shutil.rmtree(work / f"checkpoints-{seed}", ignore_errors=True)
        runs.append(run)
    return runs


def measure_zero_shot(checked: CheckedRecipe, base: Base) -> Report:
    """Measure the same template without its soft tokens, before anything is tuned."""
    template = checked.template.without_soft_tokens()
    model, tokenizer = _classifier(checked.recipe, base, template, checked.verbalizer)
    try:
        return _measure(checked, template, model, tokenizer)
    finally:
        model.release_base()


def compiled_tokenizer(recipe: Recipe, template: PromptTemplate, verbalizer: Verbalizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a run of the recipe would save; loads the base model, but no data."""
    base = load_base(recipe.base_model)
    model, tokenizer = _classifier(recipe, base, template, verbalizer)
    model.release_base()
    return tokenizer


def tune_and_test(checked: CheckedRecipe, base: Base, *, seed: int, work: Path, resume: bool = False) -> SeedRun:
    """Tune one prompt, measure it on the test rows, and save it into the working folder."""
    recipe, training = checked.recipe, checked.recipe.training
    set_seed(seed)
    soft = recipe.soft_prompt
    config = SoftPromptConfig(
        init=soft.init,
        init_text=soft.init_text,
        reparameterization=soft.reparameterization,
        reparameterization_hidden_size=soft.reparameterization_hidden_size,
        seed=seed,
    )
    tuned: dict[str, Any] = {
        "soft_prompt": config,
        "class_weights": _class_weights(checked),
        "label_smoothing": training.label_smoothing,
        "trainable_base": training.trainable_base,
    }
    model, tokenizer = _classifier(recipe, base, checked.template, checked.verbalizer, **tuned)
    try:
        arguments = make_arguments(
            output_dir=work / f"checkpoints-{seed}",
            seed=seed,
            learning_rate=training.learning_rate,
            max_steps=training.max_steps,
            num_train_epochs=training.num_train_epochs,
            train_batch_size=training.per_device_train_batch_size,
            eval_batch_size=recipe.evaluation.batch_size,
            gradient_accumulation_steps=training.gradient_accumulation_steps,
            warmup_steps=training.warmup_steps,
            weight_decay=training.weight_decay,
            lr_scheduler_type=training.lr_scheduler_type,
            eval_steps=training.eval_steps,
            best_by=training.best_by if checked.dev is not None else None,
            # Every weight that is trained takes part in every step, unless the base has parts that prompts do not use.
            extra={"ddp_find_unused_parameters": training.trainable_base, **training.arguments},
        )
        tuning = tune(
            model,
            tokenizer,
            train=_tokenized(checked.train, checked, checked.template, tokenizer),
            dev=None if checked.dev is None else _tokenized(checked.dev, checked, checked.template, tokenizer),
            arguments=arguments,
            bucket_by_length=training.bucket_by_length,
            early_stopping_patience=training.early_stopping_patience,
            resume=resume,
        )
        num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        if shards_weights():
            state = whole_state(model)
            base = load_base(recipe.base_model)
            model, tokenizer = _classifier(recipe, base, checked.template, checked.verbalizer, **tuned)
            model.load_state_dict(state, strict=False)
        model.drop_reparameterization()
        folder = work / f"seed-{seed}"
        if is_main_process():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        test = _measure(checked, checked.template, model, tokenizer)
    finally:
        model.release_base()
    return SeedRun(seed=seed, tuning=tuning, test=test, num_trained=num_trained, folder=folder)


def best_run(runs: Sequence[SeedRun]) -> SeedRun:
    """Return the run with the best dev score; of equals, or without dev rows, the one with the smallest seed."""
    return min(runs, key=lambda run: (-(run.tuning.dev_score or 0.0), run.seed))


def summarise(
    read: ReadRecipe, checked: CheckedRecipe, zero_shot: Report | None, runs: Sequence[SeedRun], best: SeedRun
) -> RunResult:
    """Put all numbers of a run together, with mean and sample standard deviation over the seeds."""
    recipe = checked.recipe
    rows = {} if zero_shot is None else {"zero-shot": zero_shot.metrics}
    rows |= {f"tuned, seed {run.seed}": run.test.metrics for run in runs}
    spread: dict[str, tuple[float, float]] = {}
    if len(runs) > 1:
        for name in best.test.metrics:
            values = [run.test.metrics[name] for run in runs]
            spread[name] = (statistics.fmean(values), statistics.stdev(values))
    metrics = {
        "name": recipe.name,
        "base_model": read.public_values()["base_model"]["id"],
        "num_train_rows": len(checked.train.labels),
        "num_dev_rows": len(checked.dev.labels) if checked.dev else 0,
        "labels": list(checked.verbalizer.labels),
        "zero_shot": zero_shot.to_dict() if zero_shot else None,
        "seeds": [_seed_numbers(run) for run in runs],
        "saved_seed": best.seed,
        "mean": {name: round(mean, 6) for name, (mean, _) in spread.items()},
        "standard_deviation": {name: round(deviation, 6) for name, (_, deviation) in spread.items()},
        "learning_curve": best.tuning.curve,
        "recipe": read.public_values(),
        "versions": installed_versions(),
    }
    return RunResult(folder=Path(recipe.output.dir), metrics=metrics, rows=rows, spread=spread)


def save(result: RunResult, read: ReadRecipe, checked: CheckedRecipe, best: SeedRun, *, overwrite: bool) -> None:
    """Write the output folder, whole or not at all."""
    recipe = checked.recipe
    is_local = Path(recipe.data.path).is_dir()
    with atomic_folder(result.folder, overwrite=overwrite) as folder:
        shutil.copytree(best.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, RESULT))
        text = json.dumps(result.metrics, indent=2, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        draw_run(
            folder / PICTURE,
            curve=best.tuning.curve,
            confusion=best.test.confusion,
            labels=checked.verbalizer.labels,
            title=f"{best.test.num_rows} test rows",
        )
        contents = CardContents(
            name=recipe.name,
            description=recipe.description,
            base_model=result.metrics["base_model"],
            base_is_folder=Path(recipe.base_model.id).expanduser().is_dir(),
            base_is_trained=recipe.training.trainable_base,
            base_revision=PromptClassifierConfig.from_pretrained(best.folder).base_model_revision,
            template=recipe.template,
            fields=[field.name for field in checked.template.fields],
            label_words={label: tuple(checked.verbalizer.words[label]) for label in checked.verbalizer.labels},
            num_trained=best.num_trained,
            results=result.rows,
            spread=result.spread,
            tuned=best.test.metrics,
            num_test_rows=best.test.num_rows,
            dataset=recipe.data.title or (recipe.name if is_local else recipe.data.path),
            dataset_id=None if is_local else recipe.data.path,
            credit=recipe.data.credit,
            language=recipe.output.language,
            license=recipe.output.license,
            picture=PICTURE,
            recipe=read.public_values(),
            versions=result.metrics["versions"],
        )
        write_card(folder, contents)


def _classifier(
    recipe: Recipe, base: Base, template: PromptTemplate, verbalizer: Verbalizer, **tuning: Any
) -> tuple[PromptForSequenceClassification, PreTrainedTokenizerFast]:
    model, tokenizer = PromptForSequenceClassification.from_base(
        base.model,
        template=template,
        verbalizer=verbalizer,
        tokenizer=base.tokenizer,
        task=recipe.base_model.task,
        revision=recipe.base_model.revision,
        **tuning,
    )
    # A pipeline with truncation=True cuts to this length, that of the prompts which the folder was tuned on.
    tokenizer.model_max_length = recipe.training.max_length
    return model, tokenizer


def _refuse_unloadable_checkpoints(checked: CheckedRecipe, base: Base) -> None:
    if shards_weights() and checked.dev is not None and base.model.config.is_encoder_decoder:
        raise RecipeError(
            "an encoder-decoder whose weights are split over processes cannot go back to its best checkpoint (PyTorch "
            "cannot load one embedding under three names); set data.dev=null, or use DDP"
        )


def _splits(checked: CheckedRecipe) -> dict[str, Any]:
    dev = checked.dev.rows.table if checked.dev else None
    return {"train": checked.train.rows.table, "dev": dev, "test": checked.test.rows.table}


def _class_weights(checked: CheckedRecipe) -> list[float] | None:
    wanted = checked.recipe.training.class_weights
    if wanted is None:
        return None
    labels = checked.verbalizer.labels
    if isinstance(wanted, Mapping):
        return [float(wanted[label]) for label in labels]
    counts = Counter(checked.train.labels)
    return [len(checked.train.labels) / (len(labels) * max(counts[number], 1)) for number in range(len(labels))]


def _tokenized(rows: LabelledRows, checked: CheckedRecipe, template: PromptTemplate, tokenizer: Any) -> Any:
    return tokenize_rows(
        rows.rows,
        template=template,
        tokenizer=tokenizer,
        max_length=checked.recipe.training.max_length,
        labels=rows.labels,
    )


def _measure(checked: CheckedRecipe, template: PromptTemplate, model: Any, tokenizer: Any) -> Report:
    evaluation = checked.recipe.evaluation
    rows = _tokenized(checked.test, checked, template, tokenizer)
    with out_of_memory_says(MEMORY_ADVICE):
        return evaluate_rows(model, tokenizer, rows, metrics=evaluation.metrics, batch_size=evaluation.batch_size)


def _seed_numbers(run: SeedRun) -> dict[str, Any]:
    tuning = {key: value for key, value in dataclasses.asdict(run.tuning).items() if key != "curve"}
    return {"seed": run.seed, **tuning, "num_trained": run.num_trained, "test": run.test.to_dict()}
