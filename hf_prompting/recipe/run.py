"""A run from top to bottom: data, base model, zero-shot, tuning, test, folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

from hf_prompting.artifacts import CardContents, atomic_folder, installed_versions, refuse_existing, write_card
from hf_prompting.artifacts.escaping import visible
from hf_prompting.bases import BaseModelSource, GgufFile, PackageFile, load_base_model, load_base_tokenizer
from hf_prompting.classifier import PromptClassifierConfig, PromptForSequenceClassification
from hf_prompting.data import tokenize_rows
from hf_prompting.errors import ArtifactError, HfPromptingError, TrainingError
from hf_prompting.evaluation import Report, draw_run, evaluate_rows
from hf_prompting.recipe.check import CheckedRecipe, LabelledRows, check_recipe
from hf_prompting.recipe.reader import ReadRecipe
from hf_prompting.recipe.schema import BaseModelSection, Recipe
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import Tuning, make_arguments, tune
from hf_prompting.verbalizers import Verbalizer

PICTURE = "results.png"
TORCH_SAVE_FAILURES = ("iostream", "PytorchStreamWriter", "unexpected pos")  # how torch.save words a full disk


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model, loaded once for the zero-shot measurement and all seeds."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


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


def run_recipe(read: ReadRecipe, *, overwrite: bool = False, console: Console | None = None) -> RunResult:
    """Do everything that a recipe says.

    Args:
        read: from ``read_recipe``.
        overwrite: replace the output folder if an earlier run made it.
        console: where the stages are named.
    Returns:
        The folder and the numbers.
    Raises:
        RecipeError, BaseModelError, TemplateError, LabelWordError: the recipe does not fit the data or model.
        TrainingError: the loss is not a number; the last good checkpoint is kept.
        ArtifactError: the folder cannot be written; what was there before is untouched.
    Example:
        >>> run_recipe(read_recipe("recipes/movie-reviews-soft-prompt", smoke=True))  # doctest: +SKIP
    """
    say = Stages(console or Console(stderr=True))
    target = Path(read.recipe.output.dir)
    refuse_existing(target, overwrite=overwrite)

    say("check the recipe and read the data")
    checked = check_recipe(read)
    recipe = checked.recipe
    say(f"load {recipe.base_model.id}")
    base = load_base(recipe.base_model)

    zero_shot = None
    if recipe.evaluation.zero_shot:
        say(f"measure zero-shot on {len(checked.test.labels)} test rows")
        zero_shot = measure_zero_shot(checked, base)

    with working_folder(target) as work:
        runs = []
        for number, seed in enumerate(recipe.training.seeds):
            if number and recipe.training.trainable_base:
                base = load_base(recipe.base_model)
            say(f"tune with seed {seed}, then test")
            runs.append(tune_and_test(checked, base, seed=seed, work=work))
        best = best_run(runs)
        say(f"save the prompt of seed {best.seed}")
        result = summarise(read, checked, zero_shot, runs, best)
        save(result, read, checked, best, overwrite=overwrite)
    return result


def base_source(section: BaseModelSection) -> BaseModelSource:
    """Return the recipe's base model as ``bases`` names it."""
    gguf = None
    if section.gguf is not None:
        parts = tuple(PackageFile(part.distribution, part.file) for part in section.gguf.parts)
        gguf = GgufFile(parts, sha256=section.gguf.sha256)
    return BaseModelSource(section.id, revision=section.revision, path=section.path, gguf=gguf)


def load_base(section: BaseModelSection) -> Base:
    """Load the base model and its tokenizer."""
    source = base_source(section)
    model = load_base_model(source, task=section.task, trust_remote_code=section.trust_remote_code)
    tokenizer = load_base_tokenizer(source, trust_remote_code=section.trust_remote_code)
    return Base(model=model, tokenizer=tokenizer)


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


def tune_and_test(checked: CheckedRecipe, base: Base, *, seed: int, work: Path) -> SeedRun:
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
    model, tokenizer = _classifier(
        recipe,
        base,
        checked.template,
        checked.verbalizer,
        soft_prompt=config,
        class_weights=_class_weights(checked),
        label_smoothing=training.label_smoothing,
        trainable_base=training.trainable_base,
    )
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
            extra=training.arguments,
        )
        tuning = tune(
            model,
            tokenizer,
            train=_tokenized(checked.train, checked, checked.template, tokenizer),
            dev=None if checked.dev is None else _tokenized(checked.dev, checked, checked.template, tokenizer),
            arguments=arguments,
            early_stopping_patience=training.early_stopping_patience,
        )
        num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        model.drop_reparameterization()
        test = _measure(checked, checked.template, model, tokenizer)
        folder = work / f"seed-{seed}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
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
        shutil.copytree(best.folder, folder, dirs_exist_ok=True)
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


def result_table(result: RunResult) -> Table:
    """Return the small table that ends a run."""
    names = list(next(iter(result.rows.values())))
    table = Table(title=f"{escape(visible(result.metrics['name']))}: test rows")
    table.add_column("")
    for name in names:
        table.add_column(escape(name), justify="right")
    for row, values in result.rows.items():
        table.add_row(row, *(f"{values[name]:.3f}" if name in values else "" for name in names))
    if result.spread:
        cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in map(result.spread.__getitem__, names)]
        table.add_row("mean ± standard deviation", *cells)
    return table


class Stages:
    """Name each stage of a run with the time since the start, by calling it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print one stage."""
        seconds = int(time.monotonic() - self.start)
        self.console.print(f"[dim]{seconds // 60:d}:{seconds % 60:02d}[/dim] {escape(visible(text))}", highlight=False)


@contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """Give a folder for checkpoints beside the target; it stays only if training broke, for its last good checkpoint.

    Raises:
        ArtifactError: the folder cannot be made, or the disk is full.
    """
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.training-", dir=parent))
    except OSError as error:
        raise ArtifactError(f"no folder for checkpoints can be made in {parent}: {error.strerror or error}") from error
    keep = False
    try:
        yield work
    except TrainingError:
        keep = True
        raise
    except HfPromptingError:
        raise
    except (OSError, SafetensorError) as error:
        raise _not_written(parent, error) from error
    except RuntimeError as error:
        if any(word in str(error) for word in TORCH_SAVE_FAILURES):
            raise _not_written(parent, error) from error
        raise
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def _not_written(parent: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"checkpoints could not be written to {parent}: {error}; free some space there")


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
    return evaluate_rows(model, tokenizer, rows, metrics=evaluation.metrics, batch_size=evaluation.batch_size)


def _seed_numbers(run: SeedRun) -> dict[str, Any]:
    tuning = {key: value for key, value in dataclasses.asdict(run.tuning).items() if key != "curve"}
    return {"seed": run.seed, **tuning, "num_trained": run.num_trained, "test": run.test.to_dict()}
