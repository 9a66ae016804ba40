"""A saved folder that was damaged or prepared by an enemy: a clear error or the same scores, and no code is run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_recipes import recipe_values, write_base, write_recipe
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_prompting.checksums import seal
from hf_prompting.errors import HfPromptingError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.prediction import InputRow, load_classifier, predict_rows
from hf_prompting.recipe.run import run_recipe

ROWS = [InputRow(f"row {n}", {"text": text}) for n, text in enumerate(("great, so great", "bad", ""))]
READ = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")  # by loading; others by people


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run saves."""
    folder = tmp_path_factory.mktemp("saved")
    recipe = write_recipe(folder / "recipe", recipe_values(base))
    read = read_recipe(recipe, overrides=[f"output.dir={folder / 'out'}", "evaluation.zero_shot=false"])
    return run_recipe(read, console=Console(file=io.StringIO())).folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def scores(folder: Path, base: Path) -> list[dict[str, Any]]:
    return list(predict_rows(load_classifier(str(folder), base_model=str(base)), ROWS, batch_size=8))


def damaged(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
    return bytes(changed)


@pytest.mark.parametrize(
    "num_rounds", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["100 times", "1,000 times"]
)
def test_random_damage_is_a_clear_error_or_changes_nothing(
    saved: Path, copy: Path, base: Path, num_rounds: int
) -> None:
    expected = scores(saved, base)
    chance = random.Random(num_rounds)
    files = sorted(path.name for path in saved.iterdir())
    outcomes: Counter[tuple[str, str]] = Counter()
    for _ in range(num_rounds):
        name = chance.choice(files)
        (copy / name).write_bytes(damaged((saved / name).read_bytes(), chance))
        try:
            assert scores(copy, base) == expected, name
            outcomes[name, "equal"] += 1
        except HfPromptingError as error:
            assert str(copy) in str(error)
            outcomes[name, "error"] += 1
        shutil.copyfile(saved / name, copy / name)
    for name in files:
        assert outcomes[name, "error" if name in READ else "equal"] > 0
        assert name in READ or not outcomes[name, "error"]


def test_random_damage_does_not_pass_the_auto_classes_either(saved: Path, copy: Path, base: Path) -> None:
    """Where the type of the model itself is damaged, the error is that of transformers."""
    model = AutoModelForCausalLM.from_pretrained(base)
    expected = scores(saved, base)
    chance = random.Random(0)
    errors = 0
    for _ in range(60):
        name = chance.choice(READ)
        (copy / name).write_bytes(damaged((saved / name).read_bytes(), chance))
        try:
            tokenizer = AutoTokenizer.from_pretrained(copy)
            classifier = AutoModelForSequenceClassification.from_pretrained(copy, base_model=model)
        except Exception:
            errors += 1
        else:
            with torch.inference_mode():
                logits = classifier(
                    **tokenizer([row.values["text"] for row in ROWS], padding=True, return_tensors="pt")
                )
            found = logits.logits.softmax(-1).tolist()
            assert found == [pytest.approx(list(row["scores"].values()), abs=2e-6) for row in expected], name
            classifier.release_base()
        shutil.copyfile(saved / name, copy / name)
    assert errors > 50


def test_the_card_may_be_edited_and_a_setting_too_if_one_says_so(saved: Path, copy: Path, base: Path) -> None:
    (copy / "README.md").write_text("My words.", encoding="utf-8")
    assert scores(copy, base) == scores(saved, base)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {"0": "bad", "1": "good"}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(HfPromptingError, match=r'write "checksums": null in config\.json'):
        scores(copy, base)
    (copy / "config.json").write_text(json.dumps({**config, "checksums": None}), encoding="utf-8")
    assert set(scores(copy, base)[0]["scores"]) == {"bad", "good"}


def test_a_folder_that_is_loaded_and_saved_again_carries_its_own_sums(saved: Path, tmp_path: Path, base: Path) -> None:
    loaded = load_classifier(str(saved), base_model=str(base))
    assert not hasattr(loaded.model.config, "checksums")
    with torch.no_grad():
        loaded.model.soft_prompt.rows.add_(1.0)
    loaded.tokenizer.padding_side = "left"
    loaded.model.save_pretrained(tmp_path / "again")
    loaded.tokenizer.save_pretrained(tmp_path / "again")
    assert scores(tmp_path / "again", base) != scores(saved, base)


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("has_weights", [True, False])
def test_neither_a_pickle_nor_a_module_in_the_folder_is_ever_run(
    saved: Path, copy: Path, base: Path, tmp_path: Path, has_weights: bool
) -> None:
    ran = tmp_path / "ran"
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin", "optimizer.pt", "tokenizer.pkl"):
        (copy / name).write_bytes(pickle.dumps(Bomb(ran)))
    source = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    for name in ("modeling_prompt.py", "tokenization_prompt.py", "configuration_prompt.py", "__init__.py"):
        (copy / name).write_text(source, encoding="utf-8")
    for name, classes in (
        ("config.json", {"AutoModelForSequenceClassification": "modeling_prompt.PromptForSequenceClassification"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "tokenization_prompt.PromptTokenizer"]}),
    ):
        values = json.loads((copy / name).read_text(encoding="utf-8"))
        (copy / name).write_text(json.dumps({**values, "auto_map": classes}), encoding="utf-8")
        seal(copy / name, ["model.safetensors"] if name == "config.json" else ["tokenizer.json"])
    (copy / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    if not has_weights:
        (copy / "model.safetensors").unlink()
    with contextlib.suppress(HfPromptingError):
        assert scores(copy, base) == scores(saved, base)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Bomb(ran)))
    assert ran.exists()  # the bomb itself works
