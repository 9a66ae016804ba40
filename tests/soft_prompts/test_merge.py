"""Soft prompts copied into plain weights, and taken off again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from soft_models import (
    ALL_FAMILIES,
    NUM_SOFT,
    SOFT_IDS,
    VOCAB_SIZE,
    config_for,
    inputs_for,
    logits_of,
    new_rows,
    soft_model,
    table,
    write,
)
from tiny_models import CAUSAL, MASKED, SEQ2SEQ, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from hf_prompting.errors import SoftPromptError

GENERATING = (*CAUSAL, *SEQ2SEQ)
AUTO: dict[str, Any] = {
    **dict.fromkeys(CAUSAL, AutoModelForCausalLM),
    **dict.fromkeys(MASKED, AutoModelForMaskedLM),
    **dict.fromkeys(SEQ2SEQ, AutoModelForSeq2SeqLM),
}
PROMPT = torch.tensor([[300, 301, 11, 12, 302, 13, 303]])


def generate(model: Any, **kwargs: Any) -> torch.Tensor:
    output: torch.Tensor = model.generate(
        input_ids=PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=8, min_new_tokens=8, **kwargs
    )
    return output[:, PROMPT.shape[1] :] if output.shape[1] > 9 else output[:, 1:]


# transformers itself cannot resize and reload the other families untied.
@pytest.mark.parametrize(("family", "tied"), [*((f, True) for f in ALL_FAMILIES), *((f, False) for f in CAUSAL)])
def test_merging_gives_equal_logits_as_does_the_reloaded_folder(family: str, tied: bool, tmp_path: Path) -> None:
    model = soft_model(family, tiny_model(family, tie_word_embeddings=tied))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()  # zero in a fresh model; a lost bias must show
    expected = logits_of(model, inputs_for(family))
    merged = model.merge_and_unload()
    assert type(merged) is type(tiny_model(family))
    torch.testing.assert_close(logits_of(merged, inputs_for(family)), expected, atol=1e-5, rtol=1e-5)
    merged.save_pretrained(tmp_path)
    again = AUTO[family].from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(again, inputs_for(family)), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(again.get_input_embeddings().weight[-NUM_SOFT:], new_rows())
    assert again.get_output_embeddings().weight is not again.get_input_embeddings().weight
    assert not again.get_output_embeddings().weight[-NUM_SOFT:].any()


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_merging_ordinary_ids_changes_the_input_rows_only(family: str) -> None:
    ids, base = [40, 41, 42, 43], tiny_model(family)
    head = base.get_output_embeddings().weight.detach().clone()
    inputs = inputs_for(family, ids=(40, 41, 42, 43))
    model = soft_model(family, base, token_ids=ids)
    expected = logits_of(model, inputs)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits_of(merged, inputs), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(merged.get_output_embeddings().weight, head)
    assert torch.equal(merged.get_input_embeddings().weight[ids], new_rows())
    assert merged.get_input_embeddings().weight.shape[0] == VOCAB_SIZE


@pytest.mark.parametrize("family", GENERATING)
def test_a_merged_model_never_generates_a_soft_token_even_when_its_rows_are_huge(family: str, tmp_path: Path) -> None:
    merged = soft_model(family, rows=new_rows() * 1e3).merge_and_unload()
    merged.save_pretrained(tmp_path)
    again = AUTO[family].from_pretrained(tmp_path).eval()
    for model in (merged, again):
        assert model.generation_config.suppress_tokens == list(SOFT_IDS)
        for settings in ({"do_sample": False}, {"do_sample": True, "num_return_sequences": 1}, {"num_beams": 3}):
            torch.manual_seed(0)
            assert not torch.isin(generate(model, **settings), torch.tensor(SOFT_IDS)).any()


@pytest.mark.slow
def test_a_merged_folder_loads_in_a_process_that_never_saw_this_library(tmp_path: Path) -> None:
    merged = soft_model("llama").merge_and_unload()
    merged.save_pretrained(tmp_path)
    expected = generate(merged, do_sample=False)[0].tolist()
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "ids = torch.tensor([[300, 301, 11, 12, 302, 13, 303]])\n"
        "out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8)\n"
        "assert 'hf_prompting' not in sys.modules\n"
        "print(model.generation_config.suppress_tokens, out[0, 7:].tolist())\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == f"[300, 301, 302, 303] {expected}"


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_unload_restores_the_very_same_modules_and_settings(family: str) -> None:
    base, generates = tiny_model(family), family in GENERATING
    if generates:
        base.generation_config.suppress_tokens = [9]
    modules = dict(base.named_modules(remove_duplicate=False))
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    model = soft_model(family, base, token_ids=[290, 291, 292, 293])
    assert not generates or base.generation_config.suppress_tokens == [9, 290, 291, 292, 293]
    restored = model.unload()
    assert restored is base
    found = dict(restored.named_modules(remove_duplicate=False))
    assert found.keys() == modules.keys()
    assert all(found[name] is module for name, module in modules.items())
    assert (restored.get_output_embeddings().weight is restored.get_input_embeddings().weight) is tied
    assert not generates or restored.generation_config.suppress_tokens == [9]


def test_a_merge_keeps_tokens_that_were_suppressed_before() -> None:
    base = tiny_model("llama")
    base.generation_config.suppress_tokens = [9]
    assert soft_model("llama", base).merge_and_unload().generation_config.suppress_tokens == [9, *SOFT_IDS]


def test_two_soft_prompts_are_merged_together() -> None:
    model = soft_model("gemma3")
    model.add_adapter("second", config_for("gemma3"))
    write(model, new_rows(seed=8), "second")
    merged = model.merge_and_unload(adapter_names=["default", "second"])
    assert torch.equal(merged.get_input_embeddings().weight[300:], torch.cat([new_rows(), new_rows(seed=8)]))


def test_a_reparameterised_prompt_merges_its_materialised_rows() -> None:
    model = soft_model("llama", reparameterization="mlp")
    with torch.no_grad():
        table(model).encoder.latent.add_(1.0)
        rows = table(model).materialize()
    assert torch.equal(model.merge_and_unload().get_input_embeddings().weight[300:], rows)


def test_a_safe_merge_refuses_values_that_are_not_finite_and_leaves_the_model_whole() -> None:
    model = soft_model("llama", rows=torch.full((4, 32), torch.inf))
    with pytest.raises(SoftPromptError, match="not finite"):
        model.merge_and_unload(safe_merge=True)
    assert model.base_model.model.get_input_embeddings().tables.keys() == {"default"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5", "bart"])
def test_the_configuration_says_how_many_rows_there_are(family: str) -> None:
    merged = soft_model(family).merge_and_unload()
    assert merged.config.get_text_config().vocab_size == VOCAB_SIZE + NUM_SOFT
    assert merged.get_output_embeddings().weight.shape[0] == VOCAB_SIZE + NUM_SOFT
    assert merged.get_input_embeddings().weight.shape[0] == VOCAB_SIZE + NUM_SOFT


def test_an_encoder_decoder_with_two_embeddings_is_refused() -> None:
    merged = soft_model("bart").merge_and_unload()
    with pytest.raises(SoftPromptError, match="read embeddings of their own"):
        soft_model("bart", merged)
