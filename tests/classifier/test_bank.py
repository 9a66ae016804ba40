"""Many tuned prompts over one base: a mixed batch gives what each prompt gives alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from classifier_parts import TEXTS, classifier, save_base, scores, scramble
from tiny_models import CAUSAL

import hf_prompting
from hf_prompting import PromptBank, Verbalizer
from hf_prompting.errors import ArtifactError, BaseModelError, BaseModelMismatchError, FieldError, TaskError

Base = Callable[[str], str]
TASKS: dict[str, dict[str, Any]] = {
    "sentiment": {},
    "again": {},  # the same template and words, tuned otherwise
    "topic": {
        "template": "Text: {text}\n{soft:6}Topic:{mask}",
        "verbalizer": Verbalizer({"a": ["sport", "a game"], "b": "film"}, aggregation="weighted"),
    },
    "plain": {"template": "{text} It was{mask}", "verbalizer": Verbalizer({"no": "bad and slow", "yes": "good"})},
}


@pytest.fixture(scope="module")
def saved(base_of: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, tuple[Path, Any]]]:
    """family -> task -> (folder, probabilities of TEXTS by its own classifier)."""
    done: dict[str, dict[str, tuple[Path, Any]]] = {}

    def of_family(family: str) -> dict[str, tuple[Path, Any]]:
        if family not in done:
            folder = tmp_path_factory.mktemp(f"bank_{family}")
            done[family] = {}
            for number, (name, parts) in enumerate(TASKS.items()):
                model, tokenizer = classifier(base_of(family), family, **parts)
                scramble(model, seed=number)
                model.save_pretrained(folder / name)
                tokenizer.save_pretrained(folder / name)
                done[family][name] = (folder / name, scores(model, tokenizer))
        return done[family]

    return of_family


def bank_of(base: str, tasks: dict[str, tuple[Path, Any]], **kwargs: Any) -> PromptBank:
    bank = PromptBank.from_base(base, **kwargs)
    for name, (folder, _) in tasks.items():
        bank.add(name, folder)
    return bank


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_mixed_batch_equals_running_the_tasks_apart(
    base_of: Base, saved: Any, family: str, share_prefix: bool
) -> None:
    bank = bank_of(base_of(family), saved(family), share_prefix=share_prefix)
    rows = [(name, {"text": text}) for text in TEXTS for name in TASKS]
    found = bank.classify(rows, batch_size=7)
    for (name, values), result in zip(rows, found, strict=True):
        expected = saved(family)[name][1][TEXTS.index(values["text"])].tolist()
        assert list(result["scores"].values()) == pytest.approx(expected, abs=1e-5)
        assert result["label"] == max(result["scores"], key=result["scores"].__getitem__)


def test_one_task_alone_shares_its_beginning(base_of: Base, saved: Any) -> None:
    bank = bank_of(base_of("llama"), saved("llama"))
    found = bank.classify([("sentiment", {"text": text}) for text in TEXTS])
    expected = saved("llama")["sentiment"][1].tolist()
    assert [list(result["scores"].values()) for result in found] == [pytest.approx(row, abs=1e-5) for row in expected]


def test_tasks_come_and_go_while_it_runs(base_of: Base, saved: Any) -> None:
    tasks = saved("llama")
    bank = bank_of(base_of("llama"), tasks)
    row = ("again", {"text": TEXTS[0]})
    before = bank.classify([row])
    bank.drop("sentiment")
    assert "sentiment" not in bank and len(bank) == 3 and list(bank) == ["again", "topic", "plain"]
    assert bank.classify([row]) == before
    bank.add("sentiment", tasks["sentiment"][0])
    both = bank.classify([("sentiment", row[1]), row])
    assert list(both[0]["scores"].values()) == pytest.approx(tasks["sentiment"][1][0].tolist(), abs=1e-5)
    assert list(both[1]["scores"].values()) == pytest.approx(list(before[0]["scores"].values()), abs=1e-5)


def test_threads_share_a_bank(base_of: Base, saved: Any) -> None:
    bank = bank_of(base_of("llama"), saved("llama"))
    rows = [(name, {"text": text}) for text in TEXTS for name in TASKS]
    expected = [bank.classify([row]) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: bank.classify([row]), rows * 4))
    assert found == expected * 4


def test_soft_ids_of_tasks_are_disjoint(base_of: Base, saved: Any) -> None:
    bank = bank_of(base_of("llama"), saved("llama"))
    tasks = list(bank._tasks.values())
    ids = [task.first_id + i for task in tasks for i in range(len(task.compiled.soft_token_ids))]
    assert len(ids) == len(set(ids)) == 5 + 5 + 6 and min(ids) >= bank.base.config.vocab_size


def test_wrong_names_and_rows_are_named(base_of: Base, saved: Any) -> None:
    bank = bank_of(base_of("llama"), saved("llama"))
    with pytest.raises(TaskError, match="already holds a task 'topic'; drop it first"):
        bank.add("topic", saved("llama")["topic"][0])
    for call in (lambda: bank.classify([("topics", {"text": "a"})]), lambda: bank.drop("topics")):
        with pytest.raises(TaskError, match=r"holds no 'topics'; add it first. Did you mean 'topic'\?"):
            call()
    with pytest.raises(FieldError, match="column 'text'"):
        bank.classify([("topic", {"review": "a"})])


def test_a_prompt_of_another_base_is_refused(base_of: Base, saved: Any, tmp_path: Path) -> None:
    bank = PromptBank.from_base(save_base("llama", tmp_path, seed=7))
    with pytest.raises(BaseModelMismatchError, match="is not the model that this prompt was tuned on"):
        bank.add("topic", saved("llama")["topic"][0])
    assert len(bank) == 0


def test_what_a_bank_cannot_hold(base_of: Base, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="a bank needs a causal model"):
        PromptBank.from_base(base_of("t5"))
    with pytest.raises(BaseModelError, match="attn_implementation"):
        PromptBank.from_base(base_of("llama"), attn_implementation="eager")
    model, tokenizer = classifier(base_of("llama"), "llama", trainable_base=True)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="whole trained model"):
        PromptBank.from_base(base_of("llama")).add("own", tmp_path)


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="asks the system which files are mapped, which Linux tells in /proc"
)
def test_soft_tokens_are_mapped_from_their_files(base_of: Base, saved: Any) -> None:
    bank = bank_of(base_of("llama"), saved("llama"))
    maps = Path("/proc/self/maps").read_text()
    assert str(saved("llama")["topic"][0] / "model.safetensors") in maps
    assert len(bank) == 4


def test_the_bank_is_public() -> None:
    assert "PromptBank" in hf_prompting.__all__
