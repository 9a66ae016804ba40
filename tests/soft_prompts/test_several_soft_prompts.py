"""Several soft prompts on one base: added, chosen, combined, switched off, deleted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from soft_models import (
    ALL_FAMILIES,
    NUM_SOFT,
    SOFT_IDS,
    VOCAB_SIZE,
    config_for,
    inputs_for,
    logits_of,
    new_rows,
    owner,
    resized_model,
    soft_model,
    table,
    write,
)
from tiny_models import MASKED, tiny_model

from hf_prompting.errors import SoftPromptError
from hf_prompting.soft_prompts.layer import SoftTokenEmbedding

SECOND_IDS = tuple(range(VOCAB_SIZE + NUM_SOFT, VOCAB_SIZE + 2 * NUM_SOFT))
FEW = ("gemma3", "bert", "t5", "bart")


def two_prompts(family: str) -> Any:
    model = soft_model(family)
    model.add_adapter("second", config_for(family))
    write(model, new_rows(seed=8), "second")
    return model.eval()


@pytest.mark.parametrize("family", FEW)
def test_a_second_soft_prompt_gets_ids_of_its_own(family: str) -> None:
    model = two_prompts(family)
    assert table(model).token_ids == SOFT_IDS
    assert table(model, "second").token_ids == SECOND_IDS
    assert model.peft_config["second"].token_ids == list(SECOND_IDS)
    assert model.active_adapters == ["default"]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_chosen_soft_prompt_alone_answers(family: str) -> None:
    model = two_prompts(family)
    assert torch.equal(logits_of(model, inputs_for(family)), logits_of(soft_model(family), inputs_for(family)))
    model.set_adapter("second")
    inputs = inputs_for(family, ids=SECOND_IDS)
    expected = logits_of(resized_model(family, new_rows(seed=8), SECOND_IDS), inputs)
    torch.testing.assert_close(logits_of(model, inputs), expected, atol=1e-5, rtol=1e-5)
    assert table(model, "second").rows.requires_grad
    assert not table(model).rows.requires_grad


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_two_active_soft_prompts_serve_a_batch_of_mixed_tasks(family: str) -> None:
    model = two_prompts(family)
    model.base_model.set_adapter(["default", "second"])
    first, second = inputs_for(family), inputs_for(family, ids=SECOND_IDS)
    mixed = {name: torch.cat([first[name], second[name]]) for name in first}
    both = torch.cat([new_rows(), new_rows(seed=8)])
    expected = logits_of(resized_model(family, both, (*SOFT_IDS, *SECOND_IDS)), mixed)
    torch.testing.assert_close(logits_of(model, mixed), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FEW)
def test_shared_ids_are_refused_only_when_active_together(family: str) -> None:
    model = soft_model(family)
    model.add_adapter("second", config_for(family, token_ids=[303, 304, 305, 306]))
    model.set_adapter("second")
    model.set_adapter("default")
    with pytest.raises(SoftPromptError, match="'default' and 'second' both use token id 303"):
        model.base_model.set_adapter(["default", "second"])
    assert model.active_adapters == ["default"]
    assert torch.equal(logits_of(model, inputs_for(family)), logits_of(soft_model(family), inputs_for(family)))


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_disabled_soft_prompt_leaves_the_base_with_soft_ids_on_a_safe_row(family: str) -> None:
    model, base, inputs = soft_model(family), tiny_model(family), inputs_for(family)
    ordinary = {name: ids.masked_fill(ids >= VOCAB_SIZE, 0) for name, ids in inputs.items()}
    before = logits_of(model, inputs)
    with model.disable_adapter():
        assert torch.equal(logits_of(model, ordinary), logits_of(base, ordinary))
        assert logits_of(model, inputs).isfinite().all()
        if family not in ("roberta", *MASKED):
            assert torch.equal(logits_of(model, inputs), logits_of(base, ordinary))
    assert torch.equal(logits_of(model, inputs), before)


def test_disabled_overlaid_ids_read_their_own_rows_again() -> None:
    model, base = soft_model("llama", token_ids=[40, 41, 42, 43]), tiny_model("llama")
    inputs = inputs_for("llama", ids=(40, 41, 42, 43))
    assert not torch.equal(logits_of(model, inputs), logits_of(base, inputs))
    with model.disable_adapter():
        assert torch.equal(logits_of(model, inputs), logits_of(base, inputs))


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("deleted", ["default", "second"])
@pytest.mark.filterwarnings("ignore:Adapter default was active which is now deleted")
def test_a_deleted_soft_prompt_leaves_the_other_working(family: str, deleted: str) -> None:
    model = two_prompts(family)
    model.delete_adapter(deleted)
    kept, ids, seed = ("second", SECOND_IDS, 8) if deleted == "default" else ("default", SOFT_IDS, 7)
    assert list(owner(model).tables) == [kept]
    assert model.active_adapters == [kept]
    for layer in (module for module in model.modules() if isinstance(module, SoftTokenEmbedding)):
        assert layer.active_adapters == [kept]
    inputs = inputs_for(family, ids=ids)
    expected = logits_of(resized_model(family, new_rows(seed=seed), ids), inputs)
    torch.testing.assert_close(logits_of(model, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FEW)
def test_soft_prompts_are_saved_apart_and_loaded_beside_each_other(family: str, tmp_path: Path) -> None:
    model = two_prompts(family)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(family), tmp_path)
    again.load_adapter(tmp_path / "second", "second")
    again.eval()
    for name, ids in (("default", SOFT_IDS), ("second", SECOND_IDS)):
        again.set_adapter(name)
        model.set_adapter(name)
        assert torch.equal(logits_of(again, inputs_for(family, ids=ids)), logits_of(model, inputs_for(family, ids=ids)))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
@pytest.mark.parametrize("family", FEW)
def test_transformers_own_adapter_methods_work(family: str, tmp_path: Path) -> None:
    soft_model(family).save_pretrained(tmp_path)
    model = tiny_model(family)
    model.load_adapter(str(tmp_path))
    expected = logits_of(soft_model(family), inputs_for(family))
    assert torch.equal(logits_of(model, inputs_for(family)), expected)
    model.disable_adapters()
    assert not torch.equal(logits_of(model, inputs_for(family)), expected)
    model.enable_adapters()
    model.add_adapter(config_for(family), "second")
    model.set_adapter("default")
    assert torch.equal(logits_of(model, inputs_for(family)), expected)
    assert table(model, "second").token_ids == SECOND_IDS


def test_ids_of_one_row_may_be_mixed_by_peft_names_only_through_active_prompts() -> None:
    model = two_prompts("llama")
    with pytest.raises(SoftPromptError, match="adapter_names"), torch.no_grad():
        model(**inputs_for("llama"), adapter_names=["default", "second", "default"])


def test_the_same_base_takes_a_new_soft_prompt_after_unload() -> None:
    base = soft_model("t5").unload()
    assert not any(isinstance(module, SoftTokenEmbedding) for module in base.modules())
    again = get_peft_model(base, config_for("t5")).eval()
    write(again, new_rows())
    assert torch.equal(logits_of(again, inputs_for("t5")), logits_of(soft_model("t5"), inputs_for("t5")))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_a_soft_prompt_stands_beside_an_adapter_of_another_method() -> None:
    model = tiny_model("llama")
    model.add_adapter(LoraConfig(target_modules=["q_proj"], init_lora_weights=True), "lora")
    model.add_adapter(config_for("llama"), "soft")
    write(model, new_rows(), "soft")
    model.set_adapter(["lora", "soft"])  # a fresh LoRA changes nothing
    assert torch.equal(logits_of(model, inputs_for("llama")), logits_of(soft_model("llama"), inputs_for("llama")))


def test_a_copied_model_shares_nothing_with_the_original() -> None:
    model = soft_model("t5")
    copied = copy.deepcopy(model)
    write(copied, new_rows(seed=9))
    assert torch.equal(logits_of(model, inputs_for("t5")), logits_of(soft_model("t5"), inputs_for("t5")))
    assert not torch.equal(logits_of(copied, inputs_for("t5")), logits_of(model, inputs_for("t5")))
