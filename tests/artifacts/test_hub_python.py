"""The ways of transformers to and from the Hub: push_to_hub of model, tokenizer and Trainer, and the base they need."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from classifier_parts import TEXTS, save_base
from hub_prompts import error_line, loaded, pushed
from hub_worker import Worker
from huggingface_hub import ModelCard
from loopback_hub import TOKEN, LoopbackHub
from tiny_recipes import labelled_rows, recipe_values

PUSH = """
import json, sys
import torch
from hf_prompting import PromptForSequenceClassification, SoftPromptConfig
from transformers import Trainer, TrainingArguments
way, texts = sys.argv[1], json.loads(sys.argv[2])
template = "{soft:3}Review: {text} It was{mask}"
words = {"negative": ["terrible"], "positive": ["great", "很好"]}
model, tokenizer = PromptForSequenceClassification.from_base(
    "org/base", template=template, verbalizer=words, soft_prompt=SoftPromptConfig(seed=0), revision=sys.argv[3] or None
)
if way == "trainer":
    rows = [{**tokenizer(text), "label": number % 2} for number, text in enumerate(texts)]
    arguments = TrainingArguments(
        "out", hub_model_id="alice/prompt", max_steps=2, learning_rate=0.1, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True,
    )
    trainer = Trainer(model=model, processing_class=tokenizer, train_dataset=rows, args=arguments)
    trainer.train()
    trainer.push_to_hub()
else:
    model.push_to_hub("alice/prompt")
    tokenizer.push_to_hub("alice/prompt")
with torch.no_grad():
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    print(json.dumps(model.eval()(**batch).logits.softmax(-1).tolist()))
"""


def push(worker: Worker, way: str, tmp_path: Path, *, revision: str = "") -> torch.Tensor:
    home = tmp_path / "author"
    home.mkdir(exist_ok=True)
    script = f"import os; os.chdir({str(home)!r})\n{PUSH}"
    ran = worker.run(script, way, json.dumps(TEXTS), revision, home=home, token=TOKEN)
    assert TOKEN not in ran.out + ran.err
    return torch.tensor(ran.answer)


@pytest.mark.parametrize("way", ["model and tokenizer", "trainer"])
def test_what_transformers_pushes_loads_by_auto_class_and_pipeline(
    worker: Worker, hub: LoopbackHub, base: Path, tmp_path: Path, way: str
) -> None:
    pinned = hub.add_folder("org/base", base)
    expected = push(worker, way, tmp_path)
    config = json.loads(hub.files("alice/prompt")["config.json"])
    assert (config["base_model_name_or_path"], config["base_model_revision"]) == ("org/base", pinned)
    assert "hf_prompting" in (ModelCard(hub.files("alice/prompt")["README.md"].decode()).data.tags or [])
    for name, content in hub.files("alice/prompt").items():
        if name != "training_args.bin":  # a pickle of Trainer's own; `hf-prompting push` leaves it out
            assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name
    torch.testing.assert_close(torch.tensor(loaded(worker, tmp_path / "reader").answer), expected, atol=1e-5, rtol=1e-4)


def test_a_base_is_pinned_to_its_commit_so_that_a_moved_one_changes_nothing(
    worker: Worker, hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    first = hub.add_folder("org/base", base)
    other = Path(save_base("gpt2", tmp_path / "other", seed=9))
    moved = hub.add_folder("org/base", other)
    on_main = push(worker, "model and tokenizer", tmp_path)
    on_first = push(worker, "model and tokenizer", tmp_path, revision=first)
    assert not torch.allclose(on_main, on_first)
    assert json.loads(hub.files("alice/prompt")["config.json"])["base_model_revision"] == first
    found = torch.tensor(loaded(worker, tmp_path / "reader").answer)
    torch.testing.assert_close(found, on_first, atol=1e-5, rtol=1e-4)
    assert moved != first


@pytest.mark.parametrize(
    "change",
    [{"seed": 9}, {"n_embd": 64}, pytest.param({"vocab_size": 40}, marks=pytest.mark.slow)],
    ids=str,
)
def test_another_model_under_the_bases_id_is_refused(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path, change: dict[str, int]
) -> None:
    """The prompt of this fixture was saved without a commit, so it follows the base's main branch."""
    from classifier_parts import TOKENIZERS
    from tiny_models import tiny_model

    pushed(worker, prompt[0], tmp_path)
    other = tmp_path / "other"
    TOKENIZERS["gpt2"]().save_pretrained(other)
    tiny_model("gpt2", **{"vocab_size": len(TOKENIZERS["gpt2"]()), **change}).save_pretrained(other)
    hub.add_folder("org/base", other)
    said = error_line(worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader"))
    assert "org/base" in said and "base_model=" in said
    assert ("not the model" in said) == (change == {"seed": 9})


@pytest.mark.slow
def test_a_run_over_data_and_a_base_from_the_hub_goes_back_to_it_with_its_card(
    worker: Worker, hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    commit = hub.add_folder("org/base", base)
    rows = {name: "".join(json.dumps(row) + "\n" for row in labelled_rows(8)) for name in ("train", "test")}
    hub.add("alice/reviews", {f"{name}.jsonl": text.encode() for name, text in rows.items()}, kind="dataset")
    values = recipe_values(base)
    values |= {"name": "from-the-hub", "base_model": {"id": "org/base"}}
    values["data"] = {"path": "alice/reviews", "train": "train", "dev": "test", "test": "test"}
    values["training"] |= {"seeds": [0, 1], "max_steps": 2, "eval_steps": 1}
    values["output"] |= {"license": "mit", "language": ["en", "zh"]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    home, folder = tmp_path / "author", tmp_path / "out"
    ran = worker.command("run", tmp_path / "recipe.yaml", "--output-dir", folder, home=home, token=TOKEN)
    assert ran.code == 0, ran.err
    pushed(worker, folder, tmp_path)
    files = hub.files("alice/prompt")
    assert {"results.png", "metrics.json", "README.md"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("org/base", "hf_prompting")
    assert (card.data.pipeline_tag, card.data.license) == ("text-classification", "mit")
    assert (card.data.language, card.data.datasets) == (["en", "zh"], ["alice/reviews"])
    metrics = json.loads(files["metrics.json"])
    best = next(seed for seed in metrics["seeds"] if seed["seed"] == metrics["saved_seed"])
    measured = {one.metric_type: one.metric_value for one in card.data.eval_results or []}
    assert measured == {name: round(value, 4) for name, value in best["test"].items() if name in card.data.metrics}
    for said in (
        commit,
        "mean ± standard deviation",
        "{soft:3}Review",
        "(results.png)",
        'model="alice/prompt"',
        "torch",
    ):
        assert said in card.content, said
    for name, content in files.items():
        assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name
    assert worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader").code == 0


def test_a_missing_base_names_the_base_and_the_ways_out(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    pushed(worker, prompt[0], tmp_path)
    del hub.repositories["model", "org/base"]
    said = error_line(worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader"))
    assert "'org/base'" in said and "private" in said and "Ways out" in said


def test_an_empty_cache_offline_is_one_clear_error(worker: Worker, hub: LoopbackHub, tmp_path: Path) -> None:
    ran = worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader", offline=True)
    assert "HF_HUB_OFFLINE is set" in error_line(ran)


READ_ONLY = """
import ctypes  # a superuser may write everywhere, unless it gives that up
libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(header, data)
data[0] &= ~(1 << 1)
assert libc.capset(header, data) == 0
from hf_prompting.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="gives up the right of root to write anywhere, a capability of Linux"
)
def test_a_read_only_cache_reads_what_is_there_and_says_what_is_not(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    pushed(worker, prompt[0], tmp_path)
    home = tmp_path / "reader"
    expected = loaded(worker, home).answer
    (tmp_path / "empty").mkdir()
    for path in [tmp_path / "empty", home, *home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    ran = worker.run(READ_ONLY, "predict", "alice/prompt", "--text", TEXTS[0], home=home)
    assert ran.code == 0, ran.err
    assert list(json.loads(ran.out)["scores"].values()) == pytest.approx(expected[0], abs=1e-5)
    ran = worker.run(READ_ONLY, "predict", "alice/prompt", "--text", "great", home=tmp_path / "empty")
    assert "cache of the Hub cannot be written" in error_line(ran)


def test_a_prompt_over_a_local_folder_is_pushed_only_with_the_id_of_its_base(
    worker: Worker, hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    from classifier_parts import classifier, scores

    model, tokenizer = classifier(str(base), "gpt2")
    model.save_pretrained(tmp_path / "prompt")
    tokenizer.save_pretrained(tmp_path / "prompt")
    arguments = ("push", tmp_path / "prompt", "--repo-id", "alice/prompt")
    said = error_line(worker.command(*arguments, home=tmp_path / "author", token=TOKEN))
    assert "--base-model" in said and base.name in said and str(base.parent) not in said
    assert not hub.repositories
    hub.add_folder("org/base", base)
    pushed(worker, tmp_path / "prompt", tmp_path, "--base-model", "org/base")
    assert all(str(base.parent).encode() not in content for content in hub.files("alice/prompt").values())
    found = torch.tensor(loaded(worker, tmp_path / "reader").answer)
    torch.testing.assert_close(found, scores(model, tokenizer), atol=1e-6, rtol=1e-5)
