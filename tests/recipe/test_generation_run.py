"""A whole generation run over tiny models: what is trained, measured, saved, resumed and used again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_generation import generation_values, pairs, write_generation_recipe
from tiny_recipes import write_rows
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner

import hf_prompting
from hf_prompting.cli import app
from hf_prompting.errors import ArtifactError, RecipeError
from hf_prompting.recipe.generation import run_generation
from hf_prompting.recipe.run import RunResult
from hf_prompting.recipe.tasks import read_any_recipe
from hf_prompting.training.callbacks import StopOnNonFinite


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def learning_values(**sections: Any) -> dict[str, Any]:
    """Return a recipe that learns enough to say something."""
    values = generation_values()
    values["training"] |= {"max_steps": 45, "eval_steps": 15}
    return {**values, **sections}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("run")
    write_generation_recipe(folder / "recipe", learning_values(compare={"bart": {"learning_rate": 0.003}}))
    overrides = [
        f"output.dir={folder / 'saved'}",
        "training.seeds=[0, 1]",
        "training.best_by=chrf",
        "training.early_stopping_patience=9",
    ]
    return run_generation(read_any_recipe(folder / "recipe", overrides=overrides))


def test_a_run_trains_itself_and_its_peer_for_each_seed_and_measures_all_test_rows(saved: RunResult) -> None:
    assert list(saved.rows) == ["ours, modern, seed 0", "ours, modern, seed 1", "BART, seed 0", "BART, seed 1"]
    metrics = json.loads((saved.folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["task"], metrics["num_train_rows"], metrics["num_test_rows"]) == ("generation", 48, 10)
    assert set(saved.spread) == {"bleu", "chrf"}
    own, bart = metrics["models"][0], metrics["models"][2]
    assert (own["learning_rate"], bart["learning_rate"]) == (0.01, 0.003)
    assert own["num_trained"] == own["num_parameters"]
    assert 0 <= own["padding"]["bucketed"] <= own["padding"]["blind"]
    assert own["seconds"] > 0 and own["num_steps"] == 45
    assert len(own["samples"]) == 2 and own["samples"][0]["source"] == pairs(1, 200)[0]["en"]
    assert max(values["chrf"] for values in saved.rows.values()) > 5


def test_nothing_but_the_saved_folder_is_left(saved: RunResult) -> None:
    assert sorted(path.name for path in saved.folder.parent.iterdir()) == ["recipe", "saved"]
    assert (saved.folder / "results.png").stat().st_size > 1000
    card = (saved.folder / "README.md").read_text(encoding="utf-8")
    assert "(this folder)" in card and "AutoModelForSeq2SeqLM" in card
    assert str(saved.folder.parent) not in card


GENERATE = """
import sys
{first}
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code={trust})
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code={trust})
for text in {texts!r}:
    ids = model.generate(**tokenizer(text, return_tensors="pt"))
    print(ascii(tokenizer.decode(ids[0], skip_special_tokens=True).strip()))
"""


@pytest.mark.parametrize(
    ("first", "trust"),
    [
        ("import hf_prompting", False),
        # None in sys.modules makes every import of the package fail, as where it is not installed
        pytest.param("sys.modules['hf_prompting'] = None", True, marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_generates_the_same_texts_with_and_without_the_library(
    saved: RunResult, first: str, trust: bool, tmp_path: Path
) -> None:
    metrics = json.loads((saved.folder / "metrics.json").read_text(encoding="utf-8"))
    number = 0 if metrics["saved"].endswith("seed 0") else 1
    samples = metrics["models"][number]["samples"]
    script = GENERATE.format(first=first, trust=trust, texts=[sample["source"] for sample in samples])
    paths = os.pathsep.join([str(Path(hf_prompting.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(saved.folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [ascii(sample["text"]) for sample in samples]


def call(*arguments: object, **options: Any) -> list[dict[str, str]]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_predict_generates_one_line_for_each_text_whatever_the_batch(saved: RunResult, tmp_path: Path) -> None:
    rows = pairs(5, 200)
    texts = [row["en"] for row in rows]
    from_options = call("predict", saved.folder, *[part for text in texts for part in ("--text", text)])
    from_file = call("predict", saved.folder, "--file", write_rows(tmp_path / "r.jsonl", rows), "--batch-size", 2)
    from_lines = call("predict", saved.folder, "--batch-size", 1, input="".join(f"{text}\n" for text in texts))
    assert from_options == from_file == from_lines
    metrics = json.loads((saved.folder / "metrics.json").read_text(encoding="utf-8"))
    own = next(model for model in metrics["models"] if model["title"] == metrics["saved"])
    assert [row["text"] for row in from_options[:2]] == [sample["text"] for sample in own["samples"]]


def test_a_finished_folder_is_replaced_only_when_asked(saved: RunResult) -> None:
    overrides = [f"output.dir={saved.folder}"]
    read = read_any_recipe(saved.folder.parent / "recipe", overrides=overrides, smoke=True)
    with pytest.raises(ArtifactError, match="add --overwrite"):
        run_generation(read)
    before = {path.name: path.read_bytes() for path in saved.folder.iterdir()}
    broken = read_any_recipe(saved.folder.parent / "recipe", overrides=[*overrides, "data.test=no"])
    with pytest.raises(RecipeError, match="no file"):
        run_generation(broken, overwrite=True)
    assert {path.name: path.read_bytes() for path in saved.folder.iterdir()} == before


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C when a training has made so many steps."""

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(StopOnNonFinite, "on_step_end", on_step_end)


@pytest.mark.parametrize("step", [pytest.param(20, marks=pytest.mark.slow), 33])
def test_a_resumed_run_ends_as_an_unbroken_one(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 6 steps an epoch, a checkpoint every 15: both interruptions resume in the middle of an epoch
    write_generation_recipe(tmp_path / "recipe", learning_values())
    unbroken = run_generation(read_any_recipe(tmp_path / "recipe", overrides=["output.dir=whole"]))
    read = read_any_recipe(tmp_path / "recipe", overrides=["output.dir=broken"])
    with monkeypatch.context() as patched:
        interrupt_after(patched, step)
        with pytest.raises(KeyboardInterrupt) as caught:
            run_generation(read)
    assert "again with --resume" in str(caught.value)
    assert not Path("broken").exists()
    with pytest.raises(ArtifactError, match="again with --resume to go on"):
        run_generation(read)
    assert not Path("broken").exists()
    changed = read_any_recipe(tmp_path / "recipe", overrides=["output.dir=broken", "training.learning_rate=0.1"])
    with pytest.raises(RecipeError, match=r"training\.learning_rate was .* and is 0\.1"):
        run_generation(changed, resume=True)
    resumed = run_generation(read, resume=True)
    weights = [AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict() for folder in ("whole", "broken")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert resumed.rows == unbroken.rows
    numbers = [result.metrics["models"][0] for result in (unbroken, resumed)]
    assert numbers[0]["dev_score"] == numbers[1]["dev_score"]
    assert not list(Path().glob(".broken*"))


def test_the_command_line_says_how_to_go_on_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_generation_recipe(tmp_path / "recipe")
    command = ["run", str(tmp_path / "recipe"), "--output-dir", "out"]
    with monkeypatch.context() as patched:
        interrupt_after(patched, 9)
        stopped = CliRunner().invoke(app, command)
    assert stopped.exit_code == 130
    assert stopped.stderr.splitlines()[-1].startswith("interrupted; run the same command again with --resume")
    resumed = CliRunner().invoke(app, [*command, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert "ours, modern, seed 0" in resumed.stdout


def test_an_interruption_before_the_first_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_generation_recipe(tmp_path / "recipe")
    interrupt_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        run_generation(read_any_recipe(tmp_path / "recipe"))
    assert not list((tmp_path / "outputs").glob("*"))


def test_soft_tokens_are_tuned_while_the_model_stays_as_it_is(saved: RunResult, tmp_path: Path) -> None:
    values = learning_values(
        model={"pretrained": str(saved.folder)},
        soft_prompt={"source": 3, "target": 2},
        compare={"full_fine_tuning": {"learning_rate": 0.001}},
    )
    del values["tokenizer"]
    write_generation_recipe(tmp_path / "recipe", values)
    result = run_generation(read_any_recipe(tmp_path / "recipe", overrides=["output.dir=tuned"]))
    assert list(result.rows) == ["soft prompt, seed 0", "full fine-tuning, seed 0"]
    own, full = result.metrics["models"]
    assert own["num_trained"] == 5 * 32
    assert full["num_trained"] == full["num_parameters"] < own["num_parameters"]
    base = AutoModelForSeq2SeqLM.from_pretrained(saved.folder).state_dict()
    tuned = AutoModelForSeq2SeqLM.from_pretrained("tuned").state_dict()
    for name, weight in base.items():
        assert torch.equal(tuned[name][: weight.shape[0]], weight), name
    tokenizer = AutoTokenizer.from_pretrained("tuned")
    assert tokenizer("one cats")["input_ids"][:3] == tokenizer.convert_tokens_to_ids(
        [f"<|soft_{i}|>" for i in range(3)]
    )
    texts = [sample["source"] for sample in own["samples"]]
    generated = call("predict", "tuned", *[part for text in texts for part in ("--text", text)])
    assert [row["text"] for row in generated] == [sample["text"] for sample in own["samples"]]


def test_soft_tokens_behind_a_source_leave_it_at_its_positions_however_long_it_is(
    saved: RunResult, tmp_path: Path
) -> None:
    values = learning_values(model={"pretrained": str(saved.folder)}, soft_prompt={"source": 2, "place": "behind"})
    del values["tokenizer"]
    write_generation_recipe(tmp_path / "recipe", values)
    overrides = ["output.dir=tuned", "training.max_steps=1", "training.eval_steps=1"]
    run_generation(read_any_recipe(tmp_path / "recipe", overrides=overrides))
    plain, tuned = (AutoTokenizer.from_pretrained(folder) for folder in (saved.folder, "tuned"))
    soft = tuned.convert_tokens_to_ids(["<|soft_0|>", "<|soft_1|>"])
    for text in ("one cats", "one cats " * 99):
        ids = tuned(text, truncation=True)["input_ids"]
        text_ids = plain(text, add_special_tokens=False)["input_ids"][: tuned.model_max_length - 3]
        assert ids == [*text_ids, *soft, tuned.eos_token_id]
    assert "2 soft tokens behind the source" in Path("tuned", "README.md").read_text(encoding="utf-8")


def test_a_pretrained_model_is_compared_with_its_own_architecture_from_random_weights(
    saved: RunResult, tmp_path: Path
) -> None:
    values = learning_values(model={"pretrained": str(saved.folder)}, compare={"random_weights": {}})
    del values["tokenizer"]
    write_generation_recipe(tmp_path / "recipe", values)
    result = run_generation(read_any_recipe(tmp_path / "recipe", overrides=["output.dir=tuned", "data.dev=null"]))
    tuned, random = result.metrics["models"]
    assert tuned["num_parameters"] == random["num_parameters"]
    assert tuned["dev_score"] is None and tuned["best_step"] == 45
