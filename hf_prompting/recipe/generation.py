"""A generation run from top to bottom: data, tokenizer, models, training, test, folder."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_prompting.artifacts import atomic_folder, installed_versions, output_lock, refuse_existing
from hf_prompting.artifacts.generation_card import GenerationCard, write_generation_card
from hf_prompting.bases import BaseModelSource, load_base_tokenizer
from hf_prompting.data.tokenizer_training import train_tokenizer
from hf_prompting.errors import RecipeError
from hf_prompting.evaluation.curves import draw_curves
from hf_prompting.processes import agreed, is_main_process, one_first
from hf_prompting.recipe.generation_check import CheckedGeneration, check_generation
from hf_prompting.recipe.generation_models import OWN, Contestant, contestants_of
from hf_prompting.recipe.generation_schema import GenerationRecipe, TokenizerSection
from hf_prompting.recipe.generation_training import TrainedModel, load_trained, train_and_test
from hf_prompting.recipe.progress import Stages
from hf_prompting.recipe.reader import Read
from hf_prompting.recipe.run import RunResult
from hf_prompting.recipe.unfinished import RESULT, run_folder, run_record, unfinished_folder
from hf_prompting.training import is_whole, seal_folder, signals_as_exceptions
from hf_prompting.training.checkpoints import MANIFEST

PICTURE = "results.png"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One trained model: who, which seed, and what came of it."""

    contestant: Contestant
    seed: int
    trained: TrainedModel
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.contestant.title}, seed {self.seed}"


def run_generation(
    read: Read[GenerationRecipe], *, overwrite: bool = False, resume: bool = False, console: Console | None = None
) -> RunResult:
    """Do everything that a generation recipe says.

    Args:
        read: from ``read_recipe_as(GenerationRecipe, ...)``.
        overwrite: replace the output folder if an earlier run made it, and drop what an interrupted one left.
        resume: go on where an interrupted run of the same recipe stopped; the result is that of an unbroken run.
        console: where the stages are named.
    Returns:
        The folder and the numbers.
    Raises:
        RecipeError, BaseModelError: the recipe does not fit the data or the model.
        TrainingError: the loss is not a number; the last good checkpoint is kept.
        ArtifactError: the folder cannot be written, or an interrupted run is in the way.
        Interrupted: Ctrl-C or SIGTERM; what was done is kept for ``resume``.
    Example:
        >>> run_generation(read_recipe_as(GenerationRecipe, "my-recipe", smoke=True))  # doctest: +SKIP
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
            checked = check_generation(read)
        if is_main_process():
            record = run_record(checked.recipe, _splits(checked), {})
            held.enter_context(run_folder(target, record=record, resume=resume, overwrite=overwrite))
        work = agreed(unfinished_folder(target))  # it is there now
        with one_first():
            tokenizer = _tokenizer(checked, work, say)
        runs = _train_all(checked, tokenizer, work=work, resume=resume, say=say)
        own = [run for run in runs if run.contestant.name == OWN]
        best = min(own, key=lambda run: (-(run.trained.tuning.dev_score or 0.0), run.seed))
        say(f"save {best.title}")
        result = _summarise(read, checked, tokenizer, runs, best)
        if is_main_process():
            _save(result, read, checked, runs, best, overwrite=overwrite)
    return result


def _train_all(
    checked: CheckedGeneration, tokenizer: PreTrainedTokenizerFast, *, work: Path, resume: bool, say: Stages
) -> list[_Run]:
    """Train and test every model with every seed; those finished before the run was cut are taken as they are."""
    runs = []
    for contestant in contestants_of(checked.recipe, tokenizer):
        for seed in checked.recipe.training.seeds:
            title = f"{contestant.title}, seed {seed}"
            folder = work / f"{contestant.name}-{seed}"
            trained = load_trained(folder)
            if trained is None:
                say(f"train {title}; then generate {len(checked.test)} test rows")
                trained = train_and_test(checked, contestant, tokenizer, seed=seed, folder=folder, resume=resume)
            else:
                say(f"{title} was trained before the interruption")
            runs.append(_Run(contestant=contestant, seed=seed, trained=trained, folder=folder))
    return runs


def _splits(checked: CheckedGeneration) -> dict[str, Any]:
    pairs = {"train": checked.train, "dev": checked.dev, "test": checked.test}
    return {name: rows and zip(rows.sources, rows.targets, strict=True) for name, rows in pairs.items()}


def _tokenizer(checked: CheckedGeneration, work: Path, say: Stages) -> PreTrainedTokenizerFast:
    """Load the tokenizer that the recipe names, or train one; a resumed run takes the one it trained."""
    recipe = checked.recipe
    if recipe.model.pretrained is not None:
        say(f"load {recipe.model.pretrained}")
        return load_base_tokenizer(BaseModelSource(recipe.model.pretrained))
    section = recipe.tokenizer or TokenizerSection()
    folder = work / "tokenizer" if section.path is None else Path(section.path)
    if section.path is None and not is_whole(folder):
        say(f"train a tokenizer of up to {section.vocab_size:,} pieces")
        texts = [*checked.train.sources, *checked.train.targets]
        trained = train_tokenizer(
            texts, kind=section.kind, vocab_size=section.vocab_size, num_sentinels=0, allow_fewer=True
        )
        trained.save_pretrained(folder)
        seal_folder(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise RecipeError(f"the tokenizer in {folder} has no padding or no end token; an encoder-decoder needs both")
    return tokenizer


def _summarise(
    read: Read[GenerationRecipe],
    checked: CheckedGeneration,
    tokenizer: PreTrainedTokenizerFast,
    runs: Sequence[_Run],
    best: _Run,
) -> RunResult:
    recipe = checked.recipe
    own = [run for run in runs if run.contestant.name == OWN]
    spread: dict[str, tuple[float, float]] = {}
    if len(own) > 1:
        for name in best.trained.test:
            values = [run.trained.test[name] for run in own]
            spread[name] = (statistics.fmean(values), statistics.stdev(values))
    metrics = {
        "task": "generation",
        "name": recipe.name,
        "num_train_rows": len(checked.train),
        "num_dev_rows": len(checked.dev) if checked.dev else 0,
        "num_test_rows": len(checked.test),
        "vocab_size": len(tokenizer),
        "models": [
            {
                "model": run.contestant.name,
                "title": run.title,
                "seed": run.seed,
                "learning_rate": run.contestant.learning_rate,
                **run.trained.numbers(),
            }
            for run in runs
        ],
        "saved": best.title,
        "spread": {name: {"mean": mean, "standard_deviation": spread[name][1]} for name, (mean, _) in spread.items()},
        "recipe": read.public_values(),
        "versions": installed_versions(("sacrebleu",)),
    }
    rows = {run.title: run.trained.test for run in runs}
    return RunResult(folder=Path(recipe.output.dir), metrics=metrics, rows=rows, spread=spread)


def _save(
    result: RunResult,
    read: Read[GenerationRecipe],
    checked: CheckedGeneration,
    runs: Sequence[_Run],
    best: _Run,
    *,
    overwrite: bool,
) -> None:
    recipe = checked.recipe
    with atomic_folder(result.folder, overwrite=overwrite) as folder:
        shutil.copytree(best.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, RESULT))
        text = json.dumps(result.metrics, indent=2, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        draw_curves(folder / PICTURE, {run.title: run.trained.tuning.curve for run in runs})
        local = Path(recipe.data.path).is_dir()
        write_generation_card(
            folder,
            GenerationCard(
                name=recipe.name,
                description=recipe.description,
                base_model=result.metrics["recipe"].get("model", {}).get("pretrained"),
                num_soft_tokens=best.trained.num_soft_tokens,
                soft_tokens_at="before" if recipe.soft_prompt is None else recipe.soft_prompt.place,
                num_parameters=best.trained.num_parameters,
                num_trained=best.trained.num_trained,
                results=result.rows,
                spread=result.spread,
                saved=best.title,
                num_test_rows=len(checked.test),
                samples=best.trained.samples,
                dataset=recipe.data.title or (recipe.name if local else recipe.data.path),
                dataset_id=None if local else recipe.data.path,
                credit=recipe.data.credit,
                language=recipe.output.language,
                license=recipe.output.license,
                picture=PICTURE,
                recipe=result.metrics["recipe"],
                versions=result.metrics["versions"],
            ),
        )
